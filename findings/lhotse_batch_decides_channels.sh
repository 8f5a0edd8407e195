#!/bin/sh
# lhotse 1.33.0, soundfile 0.14.0, torch 2.13.0 (CPU): what a stereo cut becomes in a batch of audio
# depends on the other cuts of the batch. With a mono cut beside it, `collate_audio` (and so
# `AudioSamples`, with which NeMo 3.0.0 trains) averages its channels without a word, shape
# (batch, time); alone or with other stereo cuts it keeps them, shape (batch, channels, time). So a
# text of one channel is trained on the average of both in some batches, and stops the training by
# its shape in others.
#
# Seen:
#   with a mono cut  (2, 16000) [0.2, 0.3]      the channels of the first are 0.5 and -0.1
#   alone            (1, 2, 16000)
#
# Exits 0 while that is so.
T="$(mktemp -d)"; trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/v" || exit 2
"$T/v/bin/pip" -q install lhotse==1.33.0 soundfile==0.14.0 torch==2.13.0 urllib3==2.8.0 numpy || exit 2
cd "$T" && "$T/v/bin/python" - <<'PY'
import sys

import numpy as np
import soundfile
from lhotse import CutSet, Recording
from lhotse.dataset.collation import collate_audio

soundfile.write("stereo.wav", np.stack([np.full(16000, 0.5), np.full(16000, -0.1)], 1), 16000)
soundfile.write("mono.wav", np.full(16000, 0.3), 16000)
stereo, mono = (Recording.from_file(name).to_cut() for name in ("stereo.wav", "mono.wav"))
mixed = collate_audio(CutSet.from_cuts([stereo, mono]))[0]
alone = collate_audio(CutSet.from_cuts([stereo]))[0]
print("with a mono cut", tuple(mixed.shape), [round(float(value), 3) for value in mixed[:, 100]])
print("alone", tuple(alone.shape))
as_seen = tuple(mixed.shape) == (2, 16000) and abs(float(mixed[0, 100]) - 0.2) < 1e-3
sys.exit(not (as_seen and tuple(alone.shape) == (1, 2, 16000)))
PY
