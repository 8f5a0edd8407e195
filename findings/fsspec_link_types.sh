#!/bin/sh
# fsspec 2025.12.0, LocalFileSystem: what a symbolic link is depends on who is asked.
# info("in/link.wav") of a link to a file says type "file"; the entry of the same name in ls(detail=True), and so
# in find(detail=True) and glob(detail=True), says "other". A link to a folder is "directory" to info() and "other"
# in a listing, and find() lists it as if it were a file and does not enter it, while os.walk(followlinks=True),
# `find -L` and glob.glob("**") do. Code that keeps the entries of type "file", as the documented types suggest,
# loses every link without a word; code that keeps what find() lists opens folders.
# Output seen:
#   info: file, ls: other, find: other
#   folder: info: directory, ls: other; find lists it: True; find enters it: False
# Exits 0 while this is so.
set -e
T="$(mktemp -d)"; trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/v"; "$T/v/bin/pip" -q install fsspec==2025.12.0
mkdir -p "$T/in" "$T/far"; : > "$T/far/a.wav"; ln -s ../far/a.wav "$T/in/link.wav"; ln -s ../far "$T/in/linked"
"$T/v/bin/python" - "$T/in" <<'PY'
import sys
import fsspec
fs, folder = fsspec.filesystem("file"), sys.argv[1]
link, linked = f"{folder}/link.wav", f"{folder}/linked"
listed = {entry["name"]: entry["type"] for entry in fs.ls(folder, detail=True)}
found = {name: entry["type"] for name, entry in fs.find(folder, detail=True).items()}
info = fs.info(link)["type"]
print(f"info: {info}, ls: {listed[link]}, find: {found[link]}")
enters = f"{linked}/a.wav" in found
print(f"folder: info: {fs.info(linked)['type']}, ls: {listed[linked]}; find lists it: {linked in found}; find enters it: {enters}")
same = (info, listed[link], found[link]) == ("file", "other", "other")
sys.exit(not (same and fs.info(linked)["type"] == "directory" and listed[linked] == "other" and linked in found and not enters))
PY
