"""NeMo's hypotheses as plain lists: tokens with their times and confidence, and the n best texts.

NeMo's own ``compute_timestamps`` is not used: it goes through all tokens in Python, and gives words
of CTC models the end of the token before as their start, however long the pause was
(``_compute_offsets`` in nemo/collections/asr/parts/submodules/ctc_decoding.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from beam_asr.models.nemo.decoding import CONFIDENCE

if TYPE_CHECKING:
    import torch

_FRAME = re.compile(r"<\|(\d+)\|>")  # a time among the tokens of a multitask model
_PROBE_SECONDS = 10.0


class Tokens(NamedTuple):
    """The tokens of a hypothesis.

    Attributes:
        pieces: as the tokenizer has them.
        spans: seconds from the first sample that the model was given, start and end of each; None
            if it told none.
        confidences: of each, from 0 to 1; None if none were asked for.
    """

    pieces: list[str]
    spans: list[tuple[float, float]] | None = None
    confidences: list[float] | None = None


class TokenTexts:
    """The pieces of a tokenizer, each looked up once."""

    def __init__(self, pieces_of: Callable[[list[int]], Sequence[str]]):
        self._pieces_of = pieces_of
        self._known: dict[int, str] = {}

    def of(self, ids: Iterable[int]) -> list[str]:
        return [self._known.get(each) or self._learn(each) for each in ids]

    def _learn(self, token: int) -> str:
        piece = self._known[token] = str(self._pieces_of([token])[0])
        return piece


def best(hypothesis: Any) -> Any:
    """The best hypothesis of a clip, of which there may be a list: it comes first."""
    return hypothesis[0] if isinstance(hypothesis, list) else hypothesis


def text(hypothesis: Any) -> str:
    """The text of a clip's best hypothesis."""
    hypothesis = best(hypothesis)
    return str(getattr(hypothesis, "text", hypothesis))


def n_best(
    hypothesis: Any, most: int, score: Callable[[Any], float]
) -> tuple[tuple[str, float], ...]:
    """At most so many texts that differ, with their scores, best first."""
    found: dict[str, float] = {}
    for each in hypothesis if isinstance(hypothesis, list) else [hypothesis]:
        found.setdefault(text(each), score(each))
    return tuple(found.items())[:most]


def of_ctc(
    hypothesis: Any, blank: int, frame_seconds: float, pieces: TokenTexts, collapsed: bool
) -> Tokens:
    """The tokens of a CTC hypothesis; each spans from its first frame to its last repeated one.

    Confidence is aggregated over these frames. NeMo would do the same, but only together with its
    timestamps.

    Args:
        hypothesis: with ``frame_confidence``, if that was asked for.
        blank: id of the blank.
        frame_seconds: of a frame of the encoder; 0 if no times were asked for.
        collapsed: whether it is of a beam: ``y_sequence`` has tokens, ``timestamp`` their first
            frames, and ``alignments`` the best label of each frame. Else ``y_sequence`` has the
            labels of the frames.
    """
    if collapsed:
        labels = np.asarray(hypothesis.alignments)
        ids, firsts = _integers(hypothesis.y_sequence), _integers(hypothesis.timestamp)
        ends = _ends(ids, firsts, labels)
    else:
        ids, firsts, ends = collapse(np.asarray(_integers(hypothesis.y_sequence)), blank)
    confidences = None
    if hypothesis.frame_confidence is not None:
        confidences = [
            _bounded(_aggregate(hypothesis.frame_confidence[first:end]))
            for first, end in zip(firsts, ends, strict=True)
        ]
    return Tokens(pieces.of(ids), _seconds(firsts, ends, frame_seconds), confidences)


def collapse(labels: np.ndarray, blank: int) -> tuple[list[int], list[int], list[int]]:
    """CTC's rule: repeated labels are one token, and blanks are none.

    Args:
        labels: of the frames, integers of shape ``(frames,)``.

    Returns:
        Ids of the tokens, the first frame of each, and the one after its last.
    """
    if not len(labels):
        return [], [], []
    changes = np.flatnonzero(labels[1:] != labels[:-1]) + 1
    firsts, ends = np.append(0, changes), np.append(changes, len(labels))
    kept = labels[firsts] != blank
    return labels[firsts[kept]].tolist(), firsts[kept].tolist(), ends[kept].tolist()


def of_transducer(
    hypothesis: Any, is_token: Callable[[int], bool], frame_seconds: float, pieces: TokenTexts
) -> Tokens:
    """The tokens of an RNNT or TDT hypothesis.

    A token begins with the frame that emits it, and lasts as long as a TDT model predicts, or else
    one frame.

    Args:
        hypothesis: with ``token_confidence``, if that was asked for.
        is_token: whether an id is none of the blanks.
        frame_seconds: of a frame of the encoder; 0 if no times were asked for.
    """
    ids = _integers(hypothesis.y_sequence)
    firsts = emitted(hypothesis)
    durations = _integers(hypothesis.token_duration)
    if len(durations) != len(ids):
        durations = [1] * len(ids)
    confidences = None
    if hypothesis.token_confidence is not None:
        confidences = [_bounded(each) for each in hypothesis.token_confidence]
    kept = [place for place, each in enumerate(ids) if is_token(each)]
    spans = None
    if len(firsts) == len(ids):
        ends = [first + max(1, own) for first, own in zip(firsts, durations, strict=True)]
        spans = _seconds([firsts[k] for k in kept], [ends[k] for k in kept], frame_seconds)
    if confidences is not None and len(confidences) == len(ids):
        confidences = [confidences[k] for k in kept]
    return Tokens(pieces.of(ids[k] for k in kept), spans, confidences)


def emitted(hypothesis: Any) -> list[int]:
    """The frame that each token of a transducer's hypothesis was emitted at."""
    timestamp = hypothesis.timestamp
    return _integers(timestamp["timestep"] if isinstance(timestamp, dict) else timestamp)


def of_multitask(hypothesis: Any, pieces: TokenTexts) -> Tokens:
    """The tokens of a multitask hypothesis; words, if ``timestamp`` has any.

    A word's confidence is the aggregated one of its tokens.

    Args:
        hypothesis: with ``token_confidence``, if that was asked for; ``timestamp["word"]`` has the
            words with ``start`` and ``end`` in seconds.
    """
    ids = _integers(hypothesis.y_sequence)
    confidences = None
    if hypothesis.token_confidence is not None:
        confidences = [_bounded(float(each)) for each in hypothesis.token_confidence]
    told = hypothesis.timestamp["word"] if isinstance(hypothesis.timestamp, dict) else []
    if not told:
        return Tokens(pieces.of(ids), [] if not ids else None, confidences)
    words = [str(each["word"]) for each in told]
    if confidences is not None:
        known = pieces.of(ids)
        spoken = [place for place, piece in enumerate(known) if not _FRAME.fullmatch(piece)]
        confidences = _by_word(words, [known[k] for k in spoken], [confidences[k] for k in spoken])
    spans = _in_order((float(each["start"]), float(each["end"])) for each in told)
    return Tokens([f"▁{word}" for word in words], spans, confidences)


def words_between_frames(raw: str, frame_seconds: float) -> tuple[str, list[dict[str, Any]]]:
    """The text and the words of what a multitask model says with times, as ``<|3|> word <|9|>``.

    Words that stand together share their time; what stands outside of times belongs to the text
    too, and takes that of its neighbours.

    Returns:
        The text without the times, and the words with ``start`` and ``end`` in seconds, as NeMo's
        ``process_aed_timestamp_outputs`` has them (nemo/collections/asr/parts/utils/); no words if
        there are no times.
    """
    parts = _FRAME.split(raw)  # words, frame, words, frame, ...
    if len(parts) == 1:
        return raw.strip(), []
    words: list[dict[str, Any]] = []
    before = 0.0
    for place in range(0, len(parts), 2):
        start = int(parts[place - 1]) * frame_seconds if place else before
        after = place + 1 < len(parts)
        end = int(parts[place + 1]) * frame_seconds if after else start + frame_seconds
        spoken = parts[place].split()
        words += [{"word": word, "start": start, "end": end} for word in spoken]
        before = end
    return " ".join(each["word"] for each in words), words


def frame_confidences(log_probs: torch.Tensor, frames: torch.Tensor) -> list[np.ndarray]:
    """NeMo's confidence of each frame of CTC's log-probabilities.

    Args:
        log_probs: of shape (batch, frames, labels).
        frames: how many of them are a clip's own; of shape (batch,).
    """
    import torch
    from nemo.collections.asr.parts.utils import asr_confidence_utils

    kind = (CONFIDENCE["name"], CONFIDENCE["entropy_type"], CONFIDENCE["entropy_norm"])
    measure = asr_confidence_utils.get_confidence_measure_bank()["_".join(kind)]
    labels = log_probs.shape[-1]
    rows = measure(torch.nan_to_num(log_probs.float()), labels, CONFIDENCE["alpha"]).cpu().numpy()
    return [row[:own] for row, own in zip(rows, frames.tolist(), strict=True)]


def frame_seconds(model: Any) -> float:
    """Seconds of a frame that a model's encoder gives."""
    preprocessor = model.cfg.preprocessor
    stride = preprocessor.get("window_stride")
    if stride is None:
        rate = preprocessor.get("sample_rate") or model.cfg.sample_rate
        stride = model.preprocessor.featurizer.hop_length / rate
    factor = getattr(model.encoder, "subsampling_factor", None)
    return float(stride) * float(factor or _measured_factor(model))


def _measured_factor(model: Any) -> int:
    """How many frames of the spectrogram the encoder makes one of."""
    import torch

    device = next(model.parameters()).device
    samples = round(_PROBE_SECONDS * float(model.cfg.preprocessor.sample_rate))
    model.eval()
    with torch.inference_mode():
        features, frames = model.preprocessor(
            input_signal=torch.zeros(1, samples, device=device),
            length=torch.tensor([samples], device=device),
        )
        _, encoded = model.encoder(audio_signal=features, length=frames)[:2]
    return max(1, round(int(frames) / int(encoded)))


def _seconds(
    firsts: Sequence[int], ends: Sequence[int], frame: float
) -> list[tuple[float, float]] | None:
    if not frame:
        return None
    return [(first * frame, end * frame) for first, end in zip(firsts, ends, strict=True)]


def _ends(ids: Sequence[int], firsts: Sequence[int], labels: np.ndarray) -> list[int]:
    """The frame after each token's last, where a beam told the first alone."""
    ends = []
    for token, first, limit in zip(ids, firsts, [*firsts, len(labels)][1:], strict=True):
        end = first + 1
        while end < limit and labels[end] == token:
            end += 1
        ends.append(end)
    return ends


def _in_order(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Spans that neither go back nor end before they begin; a negative time is not known."""
    ordered: list[tuple[float, float]] = []
    for start, end in spans:
        last = ordered[-1][0] if ordered else 0.0
        ordered.append((max(start, last), max(end, start, last)))
    return ordered


def _by_word(
    words: Sequence[str], pieces: Sequence[str], confidences: Sequence[float]
) -> list[float]:
    """The confidence of each word, of the tokens that its characters are of."""
    owners = [
        place
        for place, piece in enumerate(pieces)
        for _ in "".join(piece.replace("▁", " ").split())
    ]
    found, done = [], 0
    for word in words:
        tokens = dict.fromkeys(owners[done : done + len(word)])
        done += len(word)
        found.append(_aggregate([confidences[token] for token in tokens]))
    return found


def _aggregate(confidences: Sequence[float] | np.ndarray) -> float:
    assert CONFIDENCE["aggregation"] == "mean"
    return float(np.mean(confidences))


def _bounded(confidence: float) -> float:
    """Rounding takes it out of its range now and then."""
    return min(1.0, max(0.0, float(confidence)))


def _integers(values: Any) -> list[int]:
    """Of a list, a tensor of any device, an array, or None."""
    if values is None:
        return []
    return [int(each) for each in (values.tolist() if hasattr(values, "tolist") else values)]
