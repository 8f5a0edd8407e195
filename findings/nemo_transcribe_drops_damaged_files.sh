#!/bin/sh
# NeMo 3.0.0: transcribe() of several paths returns fewer results than paths if one file is cut off.
# Good guess: one result for each path, or an error, as there is for a file that is missing.
# Seen: four FLACs, of which the second is half there, have three results. The list says nothing of
# which one is missing, so zip() assigns texts to the wrong files.
# Output seen:
#   4 whole files: 4 results
#   4 files, 1 cut off: 3 results
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
paths = [f"{number}.flac" for number in range(4)]
for path in paths:
    soundfile.write(path, noise, 16_000)
whole = len(model.transcribe(paths, verbose=False))
with open(paths[1], "r+b") as file:
    file.truncate(len(file.read()) // 2)
cut_off = len(model.transcribe(paths, verbose=False, use_lhotse=True))
print(f"4 whole files: {whole} results")
print(f"4 files, 1 cut off: {cut_off} results")
sys.exit((whole, cut_off) != (4, 3))
PY
