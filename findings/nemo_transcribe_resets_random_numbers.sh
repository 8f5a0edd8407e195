#!/bin/sh
# NeMo 3.0.0: transcribe() of paths sets the random number generators of the whole process to the same state each time.
# Good guess: a call that reads files and runs a model leaves random.random() and torch.rand() as they were.
# Seen: after each call both continue with the same numbers. What draws a sample, a shuffle or a name
# from them between calls draws the same one each time. transcribe() of arrays does not do it.
# Output seen:
#   paths: 1 number of 3 differs with random, 1 with torch
#   arrays: 3 numbers of 3 differ with random, 3 with torch
# Exits 0 while this is so.
set -e
T="$(mktemp -d)"; trap 'rm -rf "$T"' EXIT; cd "$T"
python3 -m venv "$T/v"; "$T/v/bin/pip" -q install uv==0.13.9
"$T/v/bin/uv" -q pip install --python "$T/v/bin/python" "nemo_toolkit[asr]==3.0.0" lhotse==1.33.0 torch==2.13.0 numpy==2.2.6
"$T/v/bin/python" - 2>"$T/stderr" <<'PY'
import random
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
soundfile.write("a.wav", noise, 16_000)


def drawn(audio):
    numbers = []
    for _ in range(3):
        model.transcribe([audio], verbose=False, use_lhotse=True)
        numbers.append((random.random(), float(torch.rand(1))))
    return [len(set(each)) for each in zip(*numbers)]


paths, arrays = drawn("a.wav"), drawn(noise)
print(f"paths: {paths[0]} number of 3 differs with random, {paths[1]} with torch")
print(f"arrays: {arrays[0]} numbers of 3 differ with random, {arrays[1]} with torch")
sys.exit((paths, arrays) != ([1, 1], [3, 3]))
PY
