#!/bin/sh
# s3fs 2025.12.0 uploads what a writer has written when the `with` block fails, and so replaces a whole object by half of one.
# Good guess: an object appears when it is complete, since S3 stores nothing before the upload is completed, and an
# exception aborts the upload.
# Seen: leaving the block closes the file, and closing completes the upload, also on an exception. It is so
# for small objects and for uploads in parts. The old object is gone.
# Output seen (an emulator, moto, stands in for S3):
#   before: 5 bytes, b'whole'
#   after a failure in the first write: 4 bytes, b'half'
#   after a failure in an upload of parts: 11534336 bytes
# Exits 0 while this is so.
set -e
T="$(mktemp -d)"; trap 'rm -rf "$T"' EXIT; cd "$T"
python3 -m venv "$T/v"; "$T/v/bin/pip" -q install uv==0.9.5
"$T/v/bin/uv" -q pip install --python "$T/v/bin/python" s3fs==2025.12.0 fsspec==2025.12.0 "moto[server]==5.2.5"
"$T/v/bin/python" - 2>"$T/stderr" <<'PY'
import os
import sys

os.environ.update(AWS_ACCESS_KEY_ID="none", AWS_SECRET_ACCESS_KEY="none", AWS_DEFAULT_REGION="us-east-1")
import s3fs
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer(ip_address="localhost", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
files = s3fs.S3FileSystem(endpoint_url=f"http://localhost:{port}", use_listings_cache=False)
files.mkdir("bucket")
files.pipe("bucket/a", b"whole")
print(f"before: {files.size('bucket/a')} bytes, {files.cat('bucket/a')}")


def fail(content):
    try:
        with files.open("bucket/a", "wb", block_size=5 * 2**20) as file:
            file.write(content)
            raise ValueError("the writer fails")
    except ValueError:
        files.invalidate_cache()
    return files.size("bucket/a")


small = fail(b"half")
print(f"after a failure in the first write: {small} bytes, {files.cat('bucket/a')}")
large = fail(bytes(11 * 2**20))
print(f"after a failure in an upload of parts: {large} bytes")
server.stop()
sys.exit((small, large) != (4, 11 * 2**20))
PY
