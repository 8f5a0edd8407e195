#!/bin/sh
# NeMo 3.0.0: transcribe() treats a short clip as an array in another way than the same clip as a file.
# Good guess: an array of samples and the file with these samples give the same text and times.
# Seen: an array of less than a second is padded with silence on both sides to one second, and the
# padding counts as audio. So the model sees other input, and times count from the padding: those
# of a clip of 0.3 s are 0.35 s late, and behind its end. A file is not padded.
# Output seen:
#   0.3 s as a file: 8 frames of 40 ms
#   0.3 s as an array: 26 frames of 40 ms
#   2 s as a file: 51 frames, as an array: 51 frames
# Exits 0 while this is so.
set -e
T="$(mktemp -d)"; trap 'rm -rf "$T"' EXIT; cd "$T"
python3 -m venv "$T/v"; "$T/v/bin/pip" -q install uv==0.13.9
"$T/v/bin/uv" -q pip install --python "$T/v/bin/python" "nemo_toolkit[asr]==3.0.0" lhotse==1.33.0 torch==2.13.0 numpy==2.2.6
"$T/v/bin/python" - 2>"$T/stderr" <<'PY'
import sys

import numpy as np
import soundfile
import torch
from nemo.collections.asr.models import EncDecCTCModel
from nemo.utils import logging

logging.setLevel(logging.ERROR)
letters = list(" abcdefghijklmnopqrstuvwxyz")
torch.manual_seed(0)
model = EncDecCTCModel({
    "sample_rate": 16_000,
    "preprocessor": {
        "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
        "sample_rate": 16_000, "features": 64, "dither": 0.0,
    },
    "encoder": {
        "_target_": "nemo.collections.asr.modules.ConformerEncoder",
        "feat_in": 64, "n_layers": 2, "d_model": 32, "n_heads": 4, "subsampling_factor": 4,
        "conv_kernel_size": 9, "use_bias": False,
    },
    "decoder": {
        "_target_": "nemo.collections.asr.modules.ConvASRDecoder",
        "feat_in": 32, "num_classes": len(letters), "vocabulary": letters,
    },
    "decoding": {"strategy": "greedy_batch"},
    "validation_ds": {"sample_rate": 16_000, "use_start_end_token": False},
}).eval()  # fmt: skip
noise = np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32)


def frames(audio):
    (result,) = model.transcribe([audio], verbose=False, return_hypotheses=True)
    return len(result.alignments)


seen = []
for seconds in (0.3, 2):
    clip = noise[: round(seconds * 16_000)]
    soundfile.write("a.wav", clip, 16_000, subtype="FLOAT")
    seen += frames("a.wav"), frames(clip)
print(f"0.3 s as a file: {seen[0]} frames of 40 ms")
print(f"0.3 s as an array: {seen[1]} frames of 40 ms")
print(f"2 s as a file: {seen[2]} frames, as an array: {seen[3]} frames")
sys.exit(not (seen[0] < 10 and seen[1] > 20 and seen[2] == seen[3]))
PY
