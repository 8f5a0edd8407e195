#!/bin/sh
# NeMo 3.0.0: a TDT model of characters never writes the last letters of its alphabet: as many as it has durations.
#
# Good guess: the text has a character for each token. It has for an RNN-T of the same labels.
# Seen: RNNTDecoding drops the ids from blank_id - num_extra_outputs on, to leave out the extra blanks of a
# multi-blank model. The extra outputs of a TDT model are durations, and take no ids of the vocabulary. Of
# " abcdefghijklmnopqrstuvwxyz" and the five usual durations, v, w, x, y and z vanish from every text.
#   RNN-T: " abcdefghijklmnopqrstuvwxyz"
#   TDT: " abcdefghijklmnopqrstu"
# Nothing is raised or logged for a text; transcribe(timestamps=True) raises IndexError. Models of word pieces are
# not concerned.
# Exits 1 if that changes.
set -e
T="$(mktemp -d)"; trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/v"; "$T/v/bin/pip" -q install uv==0.9.5
"$T/v/bin/uv" -q pip install --python "$T/v/bin/python" "nemo_toolkit[asr]==3.0.0" torch==2.13.0 numpy==2.4.6
cd "$T"; "$T/v/bin/python" - 2>/dev/null <<'PY'
import string
import sys

from nemo.collections.asr.modules import RNNTDecoder, RNNTJoint
from nemo.collections.asr.parts.submodules.rnnt_decoding import RNNTDecoding, RNNTDecodingConfig
from omegaconf import OmegaConf

labels = list(" " + string.ascii_lowercase)
texts = {}
for name, durations in {"RNN-T": None, "TDT": [0, 1, 2, 3, 4]}.items():
    decoder = RNNTDecoder(prednet={"pred_hidden": 16, "pred_rnn_layers": 1}, vocab_size=len(labels), blank_as_pad=True)
    joint = RNNTJoint(
        jointnet={"joint_hidden": 16, "encoder_hidden": 16, "pred_hidden": 16, "activation": "relu"},
        num_classes=len(labels), vocabulary=labels, num_extra_outputs=len(durations or ()),
    )
    config = OmegaConf.structured(RNNTDecodingConfig(strategy="greedy_batch", durations=durations or []))
    if durations:
        config.model_type = "tdt"
    decoding = RNNTDecoding(decoding_cfg=config, decoder=decoder, joint=joint, vocabulary=labels)
    texts[name] = decoding.decode_ids_to_str(list(range(len(labels))))
    print(f'{name}: "{texts[name]}"')
whole = " " + string.ascii_lowercase
sys.exit(texts != {"RNN-T": whole, "TDT": whole[:-5]})
PY
