#!/bin/sh
# NeMo 3.0.0: change_attention_model() to local attention gives an encoder without biases new ones, with random values.
# Good guess: the change keeps the weights, so that a window longer than the clip changes nothing, and two calls agree.
# Seen: the new attention has biases whatever `use_bias` says. Nothing sets them, so the encoder's output
# differs from the original one, and from load to load of one checkpoint. No warning says so.
# Output seen:
#   biases of an attention layer before: 0, after: 4
#   window of 128 frames for a clip of 52: differs from full attention: True
#   two loads with two random seeds agree: False
#   with the biases set to 0: differs from full attention: False
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
from omegaconf import OmegaConf
from nemo.utils import logging

logging.setLevel(logging.ERROR)
letters = list(" abcdefghijklmnopqrstuvwxyz")
torch.manual_seed(0)
model = EncDecCTCModel(OmegaConf.create({
    "sample_rate": 16_000,
    "preprocessor": {
        "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
        "sample_rate": 16_000, "features": 64, "dither": 0.0,
    },
    "encoder": {
        "_target_": "nemo.collections.asr.modules.ConformerEncoder",
        "feat_in": 64, "n_layers": 2, "d_model": 32, "n_heads": 4, "subsampling_factor": 4,
        "conv_kernel_size": 9, "use_bias": False, "pos_emb_max_len": 5000,
        "att_context_size": [-1, -1], "conv_norm_type": "layer_norm", "dropout": 0.0, "dropout_pre_encoder": 0.0,
        "dropout_emb": 0.0, "dropout_att": 0.0,
    },
    "decoder": {
        "_target_": "nemo.collections.asr.modules.ConvASRDecoder",
        "feat_in": 32, "num_classes": len(letters), "vocabulary": letters,
    },
    "decoding": {"strategy": "greedy_batch"},
})).eval()  # fmt: skip
noise = np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32)


def encoded(model):
    with torch.inference_mode():
        signal, length = torch.from_numpy(noise)[None], torch.tensor([len(noise)])
        return model.eval()(input_signal=signal, input_signal_length=length)[0]


def biases(model):
    named = model.encoder.layers[0].self_attn.named_parameters()
    return sum(name.endswith(".bias") for name, _ in named)


full = encoded(model)
results = []
for seed in (1, 2):
    local = EncDecCTCModel(model.cfg)
    local.load_state_dict(model.state_dict())
    torch.manual_seed(seed)
    local.change_attention_model("rel_pos_local_attn", [128, 128])
    results.append(encoded(local))
counts = biases(model), biases(local)
for layer in local.encoder.layers:
    for name, parameter in layer.self_attn.named_parameters():
        if name.endswith(".bias"):
            parameter.data.zero_()
zeroed = encoded(local)
differs = not torch.allclose(full, results[0], atol=1e-2)
agree = torch.allclose(*results, atol=1e-2)
still = not torch.allclose(full, zeroed, atol=1e-3)
print(f"biases of an attention layer before: {counts[0]}, after: {counts[1]}")
print(f"window of 128 frames for a clip of {full.shape[1]}: differs from full attention: {differs}")
print(f"two loads with two random seeds agree: {agree}")
print(f"with the biases set to 0: differs from full attention: {still}")
sys.exit((counts, differs, agree, still) != ((0, 4), True, False, False))
PY
