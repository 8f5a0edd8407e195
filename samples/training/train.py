"""Trains a small Conformer-CTC model from any NeMo manifests, on a CPU or a GPU, in a set time.

    python samples/training/train.py --manifest prompts/train.jsonl:0.55:9 \\
        --manifest an4_train/manifest.jsonl:0.15:3 … \\
        --held_out prompts/held_out.jsonl --minutes 90 --output model.nemo

A manifest is PATH[:WEIGHT[:SPEEDS]]: the share of the training audio drawn from it, and at how many
speeds its clips are kept. Log-mel spectrograms are computed once; noise, telephone band, gain and
concatenation are applied to them. The learning rate is warmed up and decays with the time used, and
the exponential mean of the weights is what is saved: no checkpoint is chosen by the held-out clips.

With ``--start model.nemo`` training goes on from a model, with a new schedule. Its alignment of the
clips then serves to cut them into words, and items of words out of their sentences are drawn too:
a small corpus of repeated phrases is else learned by heart, and no new word is spelled right.
Clips that are kept at one speed are not cut.

``--new_pieces`` takes only the encoder of that model. The decoder is new, of the pieces of
these manifests: so a model learns another language. Its clips are cut when a third of the time is
used, by what it has learned by then.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from languages import LANGUAGES, Language
from nemo.collections.asr.metrics.wer import word_error_rate as corpus_wer
from nemo.collections.asr.models import EncDecCTCModelBPE
from nemo.collections.asr.parts.preprocessing.features import normalize_batch
from nemo.collections.common.tokenizers.sentencepiece_tokenizer import create_spt_model
from omegaconf import OmegaConf

from beam_asr.models import engine
from beam_asr.models.engine import ModelSpec

SAMPLE_RATE = 16_000
FRAMES_PER_SECOND = 100
LONGEST = 16 * FRAMES_PER_SECOND  # of a training item, concatenated or not; longer clips go alone
FLOOR = math.log(2**-24)  # NeMo's log_zero_guard_value: what silence becomes
CUT_SHARE = 0.45  # of the items are of words out of their sentences, where words are known
TELEPHONE_BINS = 58  # mel bins below about 3.4 kHz of 80 up to 8 kHz


@dataclass
class Corpus:
    path: Path
    weight: float
    speeds: int

    @classmethod
    def parse(cls, spec: str) -> Corpus:
        path, weight, speeds = (spec.split(":") + ["1", "1"])[:3]
        return cls(Path(path), float(weight), int(speeds))

    def rows(self, language: Language) -> list[dict]:
        rows = [json.loads(line) for line in self.path.open(encoding="utf-8")]
        for row in rows:
            row["audio_filepath"] = str(self.path.parent / row["audio_filepath"])
            row["text"] = language.plain(row["text"])
        return rows


def config(tokenizer_dir: str, args: argparse.Namespace) -> OmegaConf:
    return OmegaConf.create(
        {
            "sample_rate": SAMPLE_RATE,
            "log_prediction": False,
            "ctc_reduction": "mean_batch",
            "preprocessor": {
                "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
                "sample_rate": SAMPLE_RATE,
                "normalize": "per_feature",
                "window_size": 0.025,
                "window_stride": 0.01,
                "features": 80,
                "n_fft": 512,
                "dither": 0.0,
                "pad_to": 0,
            },
            "encoder": {
                "_target_": "nemo.collections.asr.modules.ConformerEncoder",
                "feat_in": 80,
                "feat_out": -1,
                "n_layers": args.layers,
                "d_model": args.width,
                "subsampling": "stacking",
                "subsampling_factor": 6,
                "subsampling_conv_channels": -1,
                "ff_expansion_factor": 4,
                "self_attention_model": "rel_pos",
                "n_heads": 4,
                "att_context_size": [-1, -1],
                "xscaling": True,
                "conv_kernel_size": 15,
                "conv_norm_type": "layer_norm",
                "dropout": 0.1,
                "dropout_pre_encoder": 0.1,
                "dropout_emb": 0.0,
                "dropout_att": 0.0,
            },
            "decoder": {
                "_target_": "nemo.collections.asr.modules.ConvASRDecoder",
                "feat_in": args.width,
                "num_classes": -1,
                "vocabulary": [],
            },
            "decoding": {"strategy": "greedy_batch"},
            "tokenizer": {"dir": tokenizer_dir, "type": "bpe"},
        }
    )


def spectrograms(model: EncDecCTCModelBPE, row: dict, speeds: int) -> list[torch.Tensor]:
    """Log-mel frames, not normalized, float16 of shape (80, frames), at each speed."""
    samples, rate = soundfile.read(row["audio_filepath"], dtype="float32")
    if rate != SAMPLE_RATE:
        samples = soxr.resample(samples, rate, SAMPLE_RATE)
    reach = 0.18 if speeds > 3 else 0.1
    made = []
    for index in range(speeds):
        factor = 1.0 if speeds == 1 else 1 - reach + 2 * reach * index / (speeds - 1)
        played = soxr.resample(samples, SAMPLE_RATE, SAMPLE_RATE / factor)
        signal = torch.from_numpy(played)[None]
        frames, length = model.preprocessor(
            input_signal=signal, length=torch.tensor([signal.shape[1]])
        )
        made.append(frames[0, :, : int(length)].half())
    return made


def mixed(frames: torch.Tensor, noise: torch.Tensor, below: float) -> torch.Tensor:
    """``noise`` (80, n), repeated or cut, added in power so that it lies ``below`` nats under."""
    repeats = -(-frames.shape[1] // noise.shape[1])
    noise = noise.repeat(1, repeats)[:, : frames.shape[1]]
    return torch.logaddexp(frames, noise - noise.max() + frames.max() - below)


def augment(frames: torch.Tensor, rng: random.Random, babble: torch.Tensor) -> torch.Tensor:
    if rng.random() < 0.2:
        tilt = torch.linspace(0, rng.uniform(-3, 1), 80)[:, None]
        frames = mixed(frames, torch.randn_like(frames) + tilt, rng.uniform(5, 11))
    if rng.random() < 0.1:
        frames = mixed(frames, babble, rng.uniform(3, 7))
    if rng.random() < 0.15:
        frames = frames.clone()
        frames[TELEPHONE_BINS:] = FLOOR + 2 * torch.rand(80 - TELEPHONE_BINS, frames.shape[1])
    if rng.random() < 0.3:
        curve = torch.linspace(-1, 1, 80)[:, None] * rng.uniform(-0.7, 0.7)
        frames = frames + curve + rng.uniform(-1.5, 1.5)
    return frames


def mask(frames: torch.Tensor, rng: random.Random) -> torch.Tensor:
    """SpecAugment on normalized frames (80, n): two bands of bins, about 6 % of the time."""
    frames = frames.clone()
    for _ in range(2):
        width = rng.randint(0, 16)
        start = rng.randint(0, 80 - width)
        frames[start : start + width] = 0
    for _ in range(max(1, frames.shape[1] // 120)):
        width = rng.randint(0, min(16, frames.shape[1] // 8))
        start = rng.randint(0, frames.shape[1] - width)
        frames[:, start : start + width] = 0
    return frames


class LockedDropout(torch.nn.Module):
    """Dropout with one mask for all frames of an item.

    On a CPU, drawing a mask for each frame takes a third of a step.
    """

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0:
            return x
        kept = torch.rand(x.shape[0], 1, x.shape[-1], device=x.device) >= self.p
        return x * (kept / (1 - self.p)).to(x.dtype)


@dataclass
class Clip:
    """A training clip: its frames at each speed, and where its words are, if that is known."""

    speeds: list[torch.Tensor]
    text: str
    words: list[tuple[str, float, float]] | None = None  # word, start, end: parts of the length


def align(log_probs: torch.Tensor, tokens: list[int], blank: int) -> list[tuple[int, int]] | None:
    """First and last frame of each token on the best CTC path; None if there is no path.

    Args:
        log_probs: (frames, vocabulary).
    """
    states = [blank]
    for token in tokens:
        states += [token, blank]
    emit = log_probs[:, states].numpy()
    skip = np.array([i > 1 and s != blank and s != states[i - 2] for i, s in enumerate(states)])
    score = np.full(len(states), -np.inf, np.float32)
    score[:2] = emit[0, :2]
    came = np.zeros(emit.shape, np.int8)
    for frame in range(1, len(emit)):
        options = np.stack(
            [
                score,
                np.concatenate([[-np.inf], score[:-1]]),
                np.where(skip, np.concatenate([[-np.inf, -np.inf], score[:-2]]), -np.inf),
            ]
        )
        came[frame] = options.argmax(0)
        score = options.max(0) + emit[frame]
    state = len(states) - 1 if score[-1] >= score[-2] else len(states) - 2
    if not np.isfinite(score[state]):
        return None
    spans: dict[int, list[int]] = {}
    for frame in range(len(emit) - 1, -1, -1):
        if state % 2:
            spans.setdefault(state // 2, []).append(frame)
        state -= int(came[frame, state])
    return [(spans[index][-1], spans[index][0]) for index in range(len(tokens))]


def find_words(model: EncDecCTCModelBPE, clip: Clip) -> None:
    """Sets where the clip's words are, as the model aligns it at the middle speed."""
    frames = clip.speeds[len(clip.speeds) // 2].float()[None].to(model.device)
    length = torch.tensor([frames.shape[2]], device=model.device)
    words = clip.text.split()
    if len(words) < 2:
        return
    tokens = model.tokenizer.text_to_ids(clip.text)
    frames, *_ = normalize_batch(frames, length, normalize_type="per_feature")
    with torch.inference_mode():
        encoded, _ = model.encoder(audio_signal=frames, length=length)
        log_probs = model.decoder(encoder_output=encoded)[0].cpu()
    spans = align(log_probs, tokens, log_probs.shape[1] - 1)
    if spans is None:
        return
    pieces = model.tokenizer.ids_to_tokens(tokens)
    firsts = [index for index, piece in enumerate(pieces) if piece.startswith("\u2581")]
    total = len(log_probs)
    cuts = [max(0.0, spans[0][0] - 3)]
    cuts += [(spans[index - 1][1] + 1 + spans[index][0]) / 2 for index in firsts[1:]]
    cuts += [min(float(total), spans[-1][1] + 4)]
    if len(firsts) == len(words):
        clip.words = [
            (word, start / total, end / total)
            for word, start, end in zip(words, cuts[:-1], cuts[1:], strict=True)
        ]


class Items:
    """Draws training items: frames (80, n) and token ids."""

    def __init__(self, corpora: list[list[Clip]], weights, encode, rng, batch_frames: float):
        self.corpora, self.weights, self.encode, self.rng = corpora, weights, encode, rng
        self.batch_frames = batch_frames
        self.bags: list[list[int]] = [[] for _ in corpora]

    def draw(self, which: int) -> tuple[torch.Tensor, str]:
        bag = self.bags[which]
        if not bag:
            bag.extend(self.rng.sample(range(len(self.corpora[which])), len(self.corpora[which])))
        clip = self.corpora[which][bag.pop()]
        return self.rng.choice(clip.speeds).float(), clip.text

    def few_words(self, which: int) -> tuple[torch.Tensor, str]:
        """One to three words out of their sentence."""
        clip = self.rng.choice(self.corpora[which])
        if not clip.words:
            return self.draw(which)
        frames = self.rng.choice(clip.speeds)
        first = self.rng.randrange(len(clip.words))
        chosen = clip.words[first : first + self.rng.choice([1, 1, 2, 3])]
        start, end = (round(part * frames.shape[1]) for part in (chosen[0][1], chosen[-1][2]))
        return frames[:, start : max(end, start + 8)].float(), " ".join(word for word, *_ in chosen)

    def item(self) -> tuple[torch.Tensor, list[int]]:
        which = self.rng.choices(range(len(self.corpora)), self.weights)[0]
        draw, go_on = self.draw, 0.45
        if self.rng.random() < CUT_SHARE:
            draw, go_on = self.few_words, 0.75
        frames, text = draw(which)
        while frames.shape[1] < LONGEST / 2 and self.rng.random() < go_on:
            more, words = draw(which)
            if frames.shape[1] + more.shape[1] > LONGEST:
                break
            gap = self.rng.randint(0, 40 if draw == self.draw else 12)
            quiet = FLOOR + 3 * torch.rand(80, gap)
            frames, text = torch.cat([frames, quiet, more], dim=1), f"{text} {words}".strip()
        babble, _ = self.draw(which)
        frames = augment(frames, self.rng, babble)
        frames, *_ = normalize_batch(
            frames[None], torch.tensor([frames.shape[1]]), normalize_type="per_feature"
        )
        return mask(frames[0], self.rng), self.encode(text)

    def batches(self):
        """Batches of similar lengths, each about batch_frames padded frames, for ever."""
        while True:
            pool = [self.item() for _ in range(160)]
            pool.sort(key=lambda item: item[0].shape[1])
            batches, batch = [], []
            for item in pool:
                if batch and (len(batch) + 1) * item[0].shape[1] > self.batch_frames:
                    batches.append(batch)
                    batch = []
                batch.append(item)
            batches.append(batch)
            self.rng.shuffle(batches)
            yield from batches


def collate(batch):
    frames = torch.nn.utils.rnn.pad_sequence([f.T for f, _ in batch], batch_first=True)
    lengths = torch.tensor([f.shape[1] for f, _ in batch])
    targets = torch.tensor([token for _, tokens in batch for token in tokens], dtype=torch.long)
    return frames.transpose(1, 2), lengths, targets, torch.tensor([len(t) for _, t in batch])


def word_error_rate(model: EncDecCTCModelBPE, rows: list[dict]) -> float:
    texts = []
    model.eval()
    for row in rows:
        samples, _ = soundfile.read(row["audio_filepath"], dtype="float32")
        signal = torch.from_numpy(samples)[None].to(model.device)
        length = torch.tensor([signal.shape[1]], device=model.device)
        with torch.inference_mode():
            log_probs, lengths, _ = model(input_signal=signal, input_signal_length=length)
        decoded = model.decoding.ctc_decoder_predictions_tensor(log_probs, decoder_lengths=lengths)
        texts.append(decoded[0].text)
    return corpus_wer(hypotheses=texts, references=[row["text"] for row in rows])


def save(model: EncDecCTCModelBPE, path: Path) -> None:
    """Saves the model with its parameters rounded to float16, which halves the file."""
    parameters = {name for name, _ in model.named_parameters()}
    full = model.state_dict
    model.state_dict = lambda *a, **k: {  # type: ignore[method-assign]
        name: value.half() if name in parameters else value for name, value in full(*a, **k).items()
    }
    try:
        model.save_to(str(path))
    finally:
        del model.state_dict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", action="append", required=True, type=Corpus.parse)
    parser.add_argument("--held_out", type=Corpus.parse, required=True)
    parser.add_argument(
        "--start", type=Path, help="a model that this program made, to train further"
    )
    parser.add_argument("--language", choices=LANGUAGES, default="en")
    parser.add_argument("--new_pieces", action="store_true", help="only the encoder of --start")
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--width", type=int, default=176)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--pieces", type=int, default=128)
    parser.add_argument("--learning_rate", type=float, default=2e-3)
    parser.add_argument("--warm_up", type=int, default=600, help="steps")
    parser.add_argument("--batch_seconds", type=float, default=70)
    parser.add_argument("--evaluate_every", type=int, default=1000, help="steps")
    args = parser.parse_args()
    torch.manual_seed(0)
    rng = random.Random(0)

    language = LANGUAGES[args.language]
    rows = [corpus.rows(language) for corpus in args.manifest]
    held_out = args.held_out.rows(language)
    tokenizer = tempfile.TemporaryDirectory()  # save_to() reads it again at the end
    corpus_texts = Path(tokenizer.name, "texts.txt")
    corpus_texts.write_text(
        "\n".join(row["text"] for c in rows for row in c if row["text"]), encoding="utf-8"
    )
    create_spt_model(
        data_file=str(corpus_texts),
        vocab_size=args.pieces,
        sample_size=-1,
        do_lower_case=False,
        tokenizer_type="unigram",
        output_dir=tokenizer.name,
        character_coverage=1.0,
    )
    model = EncDecCTCModelBPE(cfg=config(tokenizer.name, args))
    if args.start:
        model = EncDecCTCModelBPE.restore_from(str(args.start), map_location="cpu")
        if args.new_pieces:
            model.change_vocabulary(tokenizer.name, "bpe")
    for module in list(model.encoder.modules()):
        for name, child in module.named_children():
            if isinstance(child, torch.nn.Dropout):
                setattr(module, name, LockedDropout(child.p))
    count = sum(p.numel() for p in model.parameters())
    print(f"{count / 1e6:.2f}M parameters, {args.pieces} pieces", flush=True)

    started = time.monotonic()
    normalized, model.preprocessor.featurizer.normalize = "per_feature", None
    model.eval()
    with torch.inference_mode():
        corpora = [
            [Clip(spectrograms(model, row, corpus.speeds), row["text"]) for row in corpus_rows]
            for corpus, corpus_rows in zip(args.manifest, rows, strict=True)
        ]
    model.preprocessor.featurizer.normalize = normalized

    def cut_into_words() -> None:
        model.eval()
        for corpus, clips in zip(args.manifest, corpora, strict=True):
            for clip in clips if corpus.speeds > 1 else []:
                find_words(model, clip)

    if args.start and not args.new_pieces:
        cut_into_words()
    print(f"spectrograms in {time.monotonic() - started:.0f} s", flush=True)
    weights = [corpus.weight for corpus in args.manifest]
    batch_frames = args.batch_seconds * FRAMES_PER_SECOND
    items = Items(corpora, weights, model.tokenizer.text_to_ids, rng, batch_frames)

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # A processor without the instructions emulates bfloat16, slowly.
    bfloat16 = device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
    model.to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=args.learning_rate, betas=(0.9, 0.98), weight_decay=0.02
    )
    trained = [p for p in model.parameters() if p.requires_grad]
    mean = [p.detach().clone() for p in trained]
    blank = model.decoder.num_classes_with_blank - 1
    started, losses, frames_seen = time.monotonic(), [], 0

    def swap() -> None:
        """Exchanges the weights and their mean."""
        for own, averaged in zip(trained, mean, strict=True):
            kept = own.detach().clone()
            own.data.copy_(averaged)
            averaged.copy_(kept)

    to_be_cut = args.new_pieces
    for step, batch in enumerate(items.batches(), 1):
        used = (time.monotonic() - started) / (args.minutes * 60)
        if used >= 1:
            break
        if to_be_cut and used > 1 / 3:
            cut_into_words()
            to_be_cut = False
        model.train()
        decay = 0.5 + 0.5 * math.cos(math.pi * used)
        rate = args.learning_rate * min(1, step / args.warm_up) * decay
        for group in optimizer.param_groups:
            group["lr"] = rate
        frames, lengths, targets, target_lengths = (part.to(device) for part in collate(batch))
        frames_seen += int(lengths.sum())
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bfloat16):
            encoded, encoded_lengths = model.encoder(audio_signal=frames, length=lengths)
        log_probs = model.decoder(encoder_output=encoded.float())
        loss = torch.nn.functional.ctc_loss(
            log_probs.transpose(0, 1),
            targets,
            encoded_lengths,
            target_lengths,
            blank=blank,
            reduction="none",
            zero_infinity=True,
        ).sum() / max(1, int(target_lengths.sum()))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        torch._foreach_lerp_(mean, [p.detach() for p in trained], 1 - min(0.999, step / (step + 9)))
        losses.append(loss.item())
        if step % 100 == 0:
            minutes = (time.monotonic() - started) / 60
            print(
                f"step {step} {minutes:.1f} min, {frames_seen / 360_000:.1f} h of audio, "
                f"loss a token {sum(losses[-100:]) / 100:.3f}, rate {rate:.2e}",
                flush=True,
            )
        if step % args.evaluate_every == 0:
            swap()
            wer = word_error_rate(model, held_out)
            print(f"step {step} held-out WER {wer:.4f}", flush=True)
            save(model, args.output)
            swap()

    swap()
    save(model, args.output)
    # Measured as in a job: clips of less than a second are padded.
    job = engine.load(ModelSpec(str(args.output), "cpu"))
    clips = [soundfile.read(row["audio_filepath"], dtype="float32")[0] for row in held_out]
    texts = [job.transcribe([clip])[0].text for clip in clips]
    wer = corpus_wer(hypotheses=texts, references=[row["text"] for row in held_out])
    for row, text in zip(held_out, texts, strict=True):
        print(json.dumps({"reference": row["text"], "transcript": text}))
    size = args.output.stat().st_size / 1e6
    print(f"{args.output}: {size:.1f} MB, {frames_seen / 360_000:.0f} h of audio in {step} steps")
    print(f"held-out WER {wer:.4f} over {len(held_out)} clips", flush=True)


if __name__ == "__main__":
    main()
