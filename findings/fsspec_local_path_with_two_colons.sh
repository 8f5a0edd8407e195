#!/bin/sh
# fsspec 2025.12.0 opens another local file than the one named, where a path has two colons.
# Good guess: an absolute path is taken as it is, so that talk::part1.txt is read, or an error is raised.
# Seen: `::` joins a chain of URLs whatever is around it. fsspec reads the file whose name is the part
# before the colons, if there is one. Linux and macOS allow such names.
# Output seen:
#   open of the absolute path reads: the other file
#   LocalFileSystem().open("talk::part1.txt") reads: the right file
# Exits 0 while this is so.
set -e
T="$(mktemp -d)"; trap 'rm -rf "$T"' EXIT; cd "$T"
python3 -m venv "$T/v"; "$T/v/bin/pip" -q install fsspec==2025.12.0
"$T/v/bin/python" - <<'PY'
import os
import sys
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

Path("talk::part1.txt").write_text("the right file")
Path("talk").write_text("the other file")
with fsspec.open(os.path.abspath("talk::part1.txt"), "r") as file:
    seen = file.read()
with LocalFileSystem().open("talk::part1.txt", "r") as file:
    direct = file.read()
print(f'open of the absolute path reads: {seen}')
print(f'LocalFileSystem().open("talk::part1.txt") reads: {direct}')
sys.exit((seen, direct) != ("the other file", "the right file"))
PY
