"""A model of the shape of NVIDIA's stt_en_fastconformer_ctc_large, with random weights.

    python -m benchmarks.fastconformer FILE.nemo

Its speed is that of the real one. Its text is gibberish, of which it gives as much as speech would.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from benchmarks import corpora
from tests.support import tiny_models

FEATURES, WIDTH, VOCABULARY = 80, 512, 1024
# Of the frames of the synthetic sounds that it is calibrated on; of speech it makes less blank.
BLANK_SHARE = 0.95


def build(path: Path) -> None:
    import torch
    from omegaconf import open_dict

    encoder = tiny_models._encoder(
        FEATURES,
        n_layers=17,
        d_model=WIDTH,
        n_heads=8,
        ff_expansion_factor=4,
        subsampling_conv_channels=256,
        xscaling=True,
    )
    cfg = tiny_models._common(FEATURES, encoder)
    cfg |= {
        "decoder": {**tiny_models._ctc_decoder([]), "feat_in": WIDTH},
        "decoding": tiny_models._ctc_decoding(),
    }
    prompts = (corpora.PROMPTS / "all.jsonl").read_text().splitlines()
    text = "\n".join(json.loads(line)["text"] for line in prompts)
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(4)
        cfg["tokenizer"] = tiny_models._bpe(Path(folder), text, VOCABULARY)
        model = tiny_models._make("EncDecCTCModelBPE", cfg)
        frames = tiny_models._valid(*tiny_models._encode(model))
        tiny_models._calibrate_ctc(model.decoder, frames, has_unk=True, blank=BLANK_SHARE)
        with open_dict(model.cfg):  # transcribe() of paths reads it
            model.cfg.validation_ds = {"manifest_filepath": None, "sample_rate": corpora.RATE}
        model.save_to(str(path))
    print(f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.1f}M parameters")


if __name__ == "__main__":
    build(Path(sys.argv[1]))
