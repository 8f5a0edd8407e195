#!/bin/sh
# fsspec 2025.12.0's memory file system has one position for all who have a file open.
# Good guess: each open() returns a file of its own that reads from the start, as with any other file system.
# Seen: all get the same object. The second open sets its position, and each continues where the other
# has read. Two threads that read one file both get a part of it, which a test with memory:// blames on the code.
# Output seen:
#   fsspec.open twice, 4 bytes each: b'0123' b'4567'
#   same object: True
# Exits 0 while this is so.
set -e
T="$(mktemp -d)"; trap 'rm -rf "$T"' EXIT; cd "$T"
python3 -m venv "$T/v"; "$T/v/bin/pip" -q install fsspec==2025.12.0
"$T/v/bin/python" - <<'PY'
import sys

import fsspec

fsspec.filesystem("memory").pipe("/a", b"0123456789")
one, two = (fsspec.open("memory://a", "rb").open() for _ in range(2))
seen = one.read(4), two.read(4)
print("fsspec.open twice, 4 bytes each:", *seen)
print("same object:", one is two)
sys.exit(not (seen == (b"0123", b"4567") and one is two))
PY
