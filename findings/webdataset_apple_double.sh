#!/bin/sh
# webdataset 1.0.2: what macOS stores beside files takes their samples apart.
#
# bsdtar of macOS writes `d/._a.flac` (AppleDouble, RFC 1740) before `d/a.flac`, if the file has
# attributes. One would expect four members to be a sample {flac, json}, perhaps with more entries,
# or an error. group_by_keys gives `d/._a.flac` the key `d/` (its pattern wants a character that is
# no dot after the slash, and so takes the slash itself for the key's end). As samples are consecutive
# members of one key, the recording and its json become two samples, both without the other, and
# nothing is said.
#
# Seen: [('d/', ['_a.flac']), ('d/a', ['flac']), ('d/', ['_a.json']), ('d/a', ['json'])]
#
# Exits 0 if it is still so, 1 if not.
set -e
T="$(mktemp -d)"; trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/v"
"$T/v/bin/pip" -q install webdataset==1.0.2
"$T/v/bin/python" - <<'PYTHON'
import io
import sys
import tarfile

from webdataset.tariterators import group_by_keys, tar_file_expander

packed = io.BytesIO()
with tarfile.open(fileobj=packed, mode="w") as tar:
    for name, content in (
        ("d/._a.flac", b"\0\5\x16\7"),
        ("d/a.flac", b"fLaC"),
        ("d/._a.json", b"\0\5\x16\7"),
        ("d/a.json", b'{"text": "hello"}'),
    ):
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
packed.seek(0)
files = tar_file_expander([{"url": "a.tar", "stream": packed}])
seen = [
    (sample["__key__"], [name for name in sample if not name.startswith("__")])
    for sample in group_by_keys(files)
]
print(seen)
expected = [("d/", ["_a.flac"]), ("d/a", ["flac"]), ("d/", ["_a.json"]), ("d/a", ["json"])]
sys.exit(seen != expected)
PYTHON
