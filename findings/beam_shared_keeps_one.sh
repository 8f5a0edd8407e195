#!/bin/sh
# Apache Beam 2.77.0: a process keeps one object of beam's Shared alive, not one for each Shared.
# Good guess: an object that acquire() made stays while its Shared and the process do, so that the next
# bundle has it without loading it again. So it is with one Shared.
# Seen: acquire() of a second Shared takes the only place, and the first one's object is gone when
# nobody else holds it. The next acquire() loads it again. Two models in turns load at each change.
# Output seen:
#   one Shared, used three times: 1 load
#   two Shared in turns, each used three times: 6 loads
# Exits 0 while this is so.
set -e
T="$(mktemp -d)"; trap 'rm -rf "$T"' EXIT; cd "$T"
python3 -m venv "$T/v"; "$T/v/bin/pip" -q install apache-beam==2.77.0
"$T/v/bin/python" - 2>"$T/stderr" <<'PY'
import gc
import sys

from apache_beam.utils.shared import Shared

loads = 0


class Model:
    def __init__(self):
        global loads
        loads += 1


def use(*shared):
    global loads
    loads = 0
    for _ in range(3):
        for each in shared:
            each.acquire(Model)
            gc.collect()
    return loads


one, two = use(Shared()), use(Shared(), Shared())
print(f"one Shared, used three times: {one} load")
print(f"two Shared in turns, each used three times: {two} loads")
sys.exit((one, two) != (1, 6))
PY
