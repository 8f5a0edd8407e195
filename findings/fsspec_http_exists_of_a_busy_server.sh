#!/bin/sh
# fsspec 2025.12.0's HTTP file system says of a file that a busy or refusing server has that it does not exist.
# Good guess: exists() is false for 404 and raises for 403, 429 and 503, of which none says that there is no file.
# Seen: it is false for all of them, and info() raises FileNotFoundError. cat() raises the true error.
# "If it is there already, skip it" thus repeats work, and a manifest's file is reported missing.
# Output seen:
#   200: exists True, info returns, cat returns
#   403: exists False, info raises FileNotFoundError, cat raises ClientResponseError
#   404: exists False, info raises FileNotFoundError, cat raises FileNotFoundError
#   429: exists False, info raises FileNotFoundError, cat raises ClientResponseError
#   503: exists False, info raises FileNotFoundError, cat raises ClientResponseError
# Exits 0 while this is so.
set -e
T="$(mktemp -d)"; trap 'rm -rf "$T"' EXIT; cd "$T"
python3 -m venv "$T/v"; "$T/v/bin/pip" -q install fsspec==2025.12.0 aiohttp==3.14.5
"$T/v/bin/python" - <<'PY'
import http.server
import sys
import threading

import fsspec


class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(self.path[1:]))
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *args):
        pass


server = http.server.ThreadingHTTPServer(("localhost", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
files = fsspec.filesystem("http")


def outcome(call, url):
    try:
        call(url)
    except Exception as error:
        return f"raises {type(error).__name__}"
    return "returns"


seen = {}
for status in (200, 403, 404, 429, 503):
    url = f"http://localhost:{server.server_port}/{status}"
    seen[status] = files.exists(url), outcome(files.info, url), outcome(files.cat, url)
    print(f"{status}: exists {seen[status][0]}, info {seen[status][1]}, cat {seen[status][2]}")
missing, refused = "raises FileNotFoundError", "raises ClientResponseError"
expected = {status: (False, missing, refused) for status in (403, 429, 503)}
sys.exit(seen != {200: (True, "returns", "returns"), 404: (False, missing, missing), **expected})
PY
