#!/bin/sh
# NeMo 3.0.0: how long a token of a TDT model lasts depends on which other clips are in its batch.
# Good guess: a clip's result in a batch is the one that it has alone, and so tokens and frames are.
# Seen: the tokens and their frames are equal, and the durations are not. In a batch, the greedy decoder
# stores the duration of a later step, which it takes while it looks for tokens of the other clips.
# Timestamps of words end by these durations.
# Output seen:
#   8 clips, alone and together: equal tokens True, equal frames True, equal durations False
# Exits 0 while this is so.
set -e
T="$(mktemp -d)"; trap 'rm -rf "$T"' EXIT; cd "$T"
python3 -m venv "$T/v"; "$T/v/bin/pip" -q install uv==0.13.9
"$T/v/bin/uv" -q pip install --python "$T/v/bin/python" "nemo_toolkit[asr]==3.0.0" lhotse==1.33.0 torch==2.13.0 numpy==2.2.6
"$T/v/bin/python" - 2>"$T/stderr" <<'PY'
import sys

import torch
from nemo.collections.asr.modules import RNNTDecoder, RNNTJoint
from nemo.collections.asr.parts.submodules.rnnt_greedy_decoding import GreedyBatchedTDTInfer

torch.manual_seed(0)
size, vocabulary, durations = 32, 20, [0, 1, 2, 3, 4]
decoder = RNNTDecoder({"pred_hidden": size, "pred_rnn_layers": 1}, vocabulary).eval()
joint = RNNTJoint(
    {"encoder_hidden": size, "pred_hidden": size, "joint_hidden": size, "activation": "relu"},
    vocabulary,
    num_extra_outputs=len(durations),
).eval()
output = joint.joint_net[-1]
output.weight.data *= 8
output.bias.data.zero_()
output.bias.data[vocabulary] = 8  # the blank, so that tokens have frames without one between them
decode = GreedyBatchedTDTInfer(
    decoder, joint, blank_index=vocabulary, durations=durations, max_symbols_per_step=5,
    include_duration=True, use_cuda_graph_decoder=False,
)  # fmt: skip
states = 3 * torch.randn(8, size, 60)
lengths = torch.tensor([60, 55, 50, 45, 40, 35, 30, 25])


def results(first, last):
    with torch.inference_mode():
        found = decode(encoder_output=states[first:last], encoded_lengths=lengths[first:last])[0]
    return [[list(map(int, x)) for x in (h.y_sequence, h.timestamp, h.token_duration)] for h in found]


together = results(0, 8)
alone = [results(number, number + 1)[0] for number in range(8)]
equal = [all(a[field] == b[field] for a, b in zip(alone, together)) for field in range(3)]
print(
    f"8 clips, alone and together: equal tokens {equal[0]}, equal frames {equal[1]}, "
    f"equal durations {equal[2]}"
)
sys.exit(equal != [True, True, False] or not sum(len(each[0]) for each in alone))
PY
