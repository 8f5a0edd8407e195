#!/bin/sh
# NeMo 3.0.0: its Lhotse reader (LazyNeMoIterator) limits a row to its `duration` only if the row also has an `offset`.
# Good guess: a row of 2 s is the first 2 s of its file, since `offset` is 0 if it is left out.
# Seen: without an `offset` the row is the whole file, with one of 0 it is 2 s. So in a row that names
# a part of a recording from its start the text is trained or scored against all of it.
# Output seen (a file of 10 s):
#   duration 2: 10.0 s
#   duration 2, offset 0: 2.0 s
#   duration 2, offset 3: 2.0 s
# Exits 0 while this is so.
set -e
T="$(mktemp -d)"; trap 'rm -rf "$T"' EXIT; cd "$T"
python3 -m venv "$T/v"; "$T/v/bin/pip" -q install uv==0.13.9
"$T/v/bin/uv" -q pip install --python "$T/v/bin/python" "nemo_toolkit[asr]==3.0.0" lhotse==1.33.0 torch==2.13.0 numpy==2.2.6
"$T/v/bin/python" - 2>"$T/stderr" <<'PY'
import json
import sys

import numpy as np
import soundfile
from nemo.collections.common.data.lhotse.nemo_adapters import LazyNeMoIterator

soundfile.write("a.wav", np.zeros(160_000), 16_000)
seen = []
for offset in (None, 0, 3):
    row = {"audio_filepath": "a.wav", "duration": 2, "text": "a"}
    if offset is not None:
        row["offset"] = offset
    with open("manifest.json", "w") as file:
        print(json.dumps(row), file=file)
    (cut,) = LazyNeMoIterator("manifest.json")
    seen.append(cut.load_audio().shape[1] / 16_000)
    print(f"duration 2{'' if offset is None else f', offset {offset}'}: {seen[-1]} s")
sys.exit(seen != [10.0, 2.0, 2.0])
PY
