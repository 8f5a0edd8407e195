#!/bin/sh
# NeMo 3.0.0: the name of one shard with brackets or parentheses is changed into a name that is not there.
# Good guess: a name without a range stands for itself, and of a pattern all but its range is kept.
# Seen: (, [ and < are taken for {, wherever they are in the path. A data set in a folder such as
# "set (copy)" is not found, and the message has a name that nobody wrote.
# Output seen:
#   set (copy)/audio_0.tar -> set {copy}/audio_0.tar
#   set [1]/audio_{0..1}.tar -> set {1}/audio_0.tar, set {1}/audio_1.tar
# Exits 0 while this is so.
set -e
T="$(mktemp -d)"; trap 'rm -rf "$T"' EXIT; cd "$T"
python3 -m venv "$T/v"; "$T/v/bin/pip" -q install uv==0.13.9
"$T/v/bin/uv" -q pip install --python "$T/v/bin/python" "nemo_toolkit[asr]==3.0.0" lhotse==1.33.0 torch==2.13.0 numpy==2.2.6
"$T/v/bin/python" - 2>"$T/stderr" <<'PY'
import sys

from nemo.collections.asr.data.audio_to_text import expand_sharded_filepaths

seen = []
for name in ("set (copy)/audio_0.tar", "set [1]/audio_{0..1}.tar"):
    names = expand_sharded_filepaths(name, shard_strategy="replicate", world_size=1, global_rank=0)
    seen.append(list(names))
    print(f"{name} -> {', '.join(names)}")
sys.exit(seen != [["set {copy}/audio_0.tar"], ["set {1}/audio_0.tar", "set {1}/audio_1.tar"]])
PY
