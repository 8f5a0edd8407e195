#!/bin/sh
# NeMo 3.0.0: a word of a CTC model starts where the token before it ends, however long the pause between them was.
# Good guess: its start is the frame in which the model emits its first letter.
# Seen: the frames of the pause belong to the word behind it. Here "yo" is emitted in frames 46 and 48,
# and starts in frame 5, so a pause of 1.6 s, at 40 ms a frame, is a part of the word.
# Output seen:
#   emitted: hi____ ________________________________________y_o___
#   hi: frames 0 to 1; yo: frames 5 to 48
# Exits 0 while this is so.
set -e
T="$(mktemp -d)"; trap 'rm -rf "$T"' EXIT; cd "$T"
python3 -m venv "$T/v"; "$T/v/bin/pip" -q install uv==0.13.9
"$T/v/bin/uv" -q pip install --python "$T/v/bin/python" "nemo_toolkit[asr]==3.0.0" lhotse==1.33.0 torch==2.13.0 numpy==2.2.6
"$T/v/bin/python" - 2>"$T/stderr" <<'PY'
import sys

import torch
from nemo.collections.asr.parts.submodules.ctc_decoding import CTCDecoding, CTCDecodingConfig
from omegaconf import OmegaConf

letters = list(" abcdefghijklmnopqrstuvwxyz")
config = CTCDecodingConfig(strategy="greedy_batch", compute_timestamps=True)
decoding = CTCDecoding(OmegaConf.structured(config), letters)
emitted = "hi___ " + 40 * "_" + "y_o___"
labels = [len(letters) if label == "_" else letters.index(label) for label in emitted]
scores = torch.full((1, len(labels), len(letters) + 1), -20.0)
scores[0, range(len(labels)), labels] = 0
(result,) = decoding.ctc_decoder_predictions_tensor(
    scores.log_softmax(-1), torch.tensor([len(labels)]), return_hypotheses=True
)
words = [(w["word"], int(w["start_offset"]), int(w["end_offset"])) for w in result.timestamp["word"]]
print("emitted:", emitted)
print("; ".join(f"{word}: frames {start} to {end}" for word, start, end in words))
sys.exit(not (words[1][0] == "yo" and words[1][1] < 10 < emitted.index("y")))
PY
