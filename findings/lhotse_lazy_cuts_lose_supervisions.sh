#!/bin/sh
# Lhotse 1.33.0: `lhotse cut simple` reads manifests lazily (.jsonl, .jsonl.gz) unless --force-eager is given, and then
# loses the supervisions of recordings that come in another order than their supervisions, without an error or a warning.
# Of recordings alone, which its help allows, it makes cuts only with --force-eager.
# Output seen:
#   same order: 3 cuts, 3 with a text
#   other order: 3 cuts, 2 with a text
#   other order, --force-eager: 3 cuts, 3 with a text
#   recordings alone: AttributeError
#   recordings alone, --force-eager: 3 cuts, 0 with a text
# Exits 0 while this is so.
set -e
T="$(mktemp -d)"; trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/v"; "$T/v/bin/pip" -q install lhotse==1.33.0 numpy==2.2.6 soundfile==0.13.1 urllib3==2.5.0
cd "$T"; "$T/v/bin/python" - <<'PY'
import subprocess
import sys

import numpy as np
import soundfile
from lhotse import CutSet, Recording, RecordingSet, SupervisionSegment, SupervisionSet

names = ["a", "b", "c"]
recordings, supervisions = [], {}
for name in names:
    soundfile.write(f"{name}.wav", np.zeros(16000, np.float32), 16000)
    recordings.append(Recording.from_file(f"{name}.wav", recording_id=name))
    supervisions[name] = SupervisionSegment(name, name, 0.0, 1.0, text=f"text of {name}")
RecordingSet.from_recordings(recordings).to_file("recordings.jsonl.gz")
for order, listed in {"same": names, "other": ["b", "c", "a"]}.items():
    SupervisionSet.from_segments([supervisions[n] for n in listed]).to_file(f"{order}.jsonl.gz")


def cuts(said, *flags):
    made = subprocess.run(
        [f"{sys.prefix}/bin/lhotse", "cut", "simple", "-r", "recordings.jsonl.gz", *flags, "cuts.jsonl.gz"],
        capture_output=True, text=True,
    )
    if made.returncode:
        found = made.stderr.strip().splitlines()[-1].partition(":")[0]
    else:
        read = list(CutSet.from_file("cuts.jsonl.gz"))
        found = f"{len(read)} cuts, {sum(bool(cut.supervisions) for cut in read)} with a text"
    print(f"{said}: {found}")
    return found


seen = [
    cuts("same order", "-s", "same.jsonl.gz"),
    cuts("other order", "-s", "other.jsonl.gz"),
    cuts("other order, --force-eager", "-s", "other.jsonl.gz", "--force-eager"),
    cuts("recordings alone"),
    cuts("recordings alone, --force-eager", "--force-eager"),
]
all_three, none = "3 cuts, 3 with a text", "3 cuts, 0 with a text"
sys.exit(seen != [all_three, "3 cuts, 2 with a text", all_three, "AttributeError", none])
PY
