#!/bin/sh
# NeMo 3.0.0: a call of transcribe() leaves the encoder and the decoder in training mode, though the model is in evaluation mode.
# Good guess: transcribe() restores the mode in which it found the model, so model(...) returns the same before and after.
# Seen: model.training is False, and those of its parts are True. Dropout is active, and batch
# normalization learns from what it sees: two forward passes of one clip differ.
# Output seen:
#   before: model False, encoder False, decoder False; two passes differ: False
#   after: model False, encoder True, decoder True; two passes differ: True
# Exits 0 while this is so.
set -e
T="$(mktemp -d)"; trap 'rm -rf "$T"' EXIT; cd "$T"
python3 -m venv "$T/v"; "$T/v/bin/pip" -q install uv==0.13.9
"$T/v/bin/uv" -q pip install --python "$T/v/bin/python" "nemo_toolkit[asr]==3.0.0" lhotse==1.33.0 torch==2.13.0 numpy==2.2.6
"$T/v/bin/python" - 2>"$T/stderr" <<'PY'
import sys

import numpy as np
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


def state(said):
    signal = torch.from_numpy(noise)[None]
    with torch.inference_mode():
        one, two = (
            model(input_signal=signal, input_signal_length=torch.tensor([len(noise)]))[0] for _ in range(2)
        )
    modes = model.training, model.encoder.training, model.decoder.training
    differ = not torch.equal(one, two)
    print(f"{said}: model {modes[0]}, encoder {modes[1]}, decoder {modes[2]}; two passes differ: {differ}")
    return *modes, differ


before = state("before")
model.transcribe([noise], verbose=False)
after = state("after")
sys.exit((before, after) != ((False, False, False, False), (False, True, True, True)))
PY
