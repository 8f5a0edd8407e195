"""Converts NeMo's hypotheses to plain lists: tokens, times, confidence, n best texts.

NeMo's ``compute_timestamps`` is not used: it goes through all tokens in Python, and starts words of
CTC models at the end of the token before, however long the pause was
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
    """Holds the tokens of a hypothesis.

    Attributes:
        pieces: the tokenizer's pieces.
        spans: start and end of each, in seconds from the first sample of the model's input; None if
            the model has no times.
        confidences: of each, from 0 to 1; None if not requested.
    """

    pieces: list[str]
    spans: list[tuple[float, float]] | None = None
    confidences: list[float] | None = None


class TokenTexts:
    """Looks up the pieces of a tokenizer, each once."""

    def __init__(self, ids_to_pieces: Callable[[list[int]], Sequence[str]]):
        self._ids_to_pieces = ids_to_pieces
        self._known: dict[int, str] = {}

    def lookup(self, ids: Iterable[int]) -> list[str]:
        """Returns the pieces of token ids, in their order."""
        return [self._known.get(token) or self._add(token) for token in ids]

    def _add(self, token: int) -> str:
        piece = self._known[token] = str(self._ids_to_pieces([token])[0])
        return piece


def best(hypothesis: Any) -> Any:
    """Returns the best hypothesis of a clip, which is the first if there is a list of them."""
    return hypothesis[0] if isinstance(hypothesis, list) else hypothesis


def text(hypothesis: Any) -> str:
    """Returns the text of a clip's best hypothesis."""
    hypothesis = best(hypothesis)
    return str(getattr(hypothesis, "text", hypothesis))


def n_best(
    hypothesis: Any, max_texts: int, score: Callable[[Any], float]
) -> tuple[tuple[str, float], ...]:
    """Returns at most ``max_texts`` distinct texts with their scores, best first."""
    scores: dict[str, float] = {}
    for candidate in hypothesis if isinstance(hypothesis, list) else [hypothesis]:
        scores.setdefault(text(candidate), score(candidate))
    return tuple(scores.items())[:max_texts]


def ctc_tokens(
    hypothesis: Any, blank: int, frame_seconds: float, pieces: TokenTexts, collapsed: bool
) -> Tokens:
    """Returns the tokens of a CTC hypothesis, from their first to their last repeated frames.

    Confidence is aggregated over these frames. NeMo would do the same, but only together with its
    timestamps.

    Args:
        hypothesis: with ``frame_confidence``, if that was requested.
        blank: id of the blank.
        frame_seconds: of a frame of the encoder; 0 if times were not requested.
        collapsed: whether it is from a beam search: ``y_sequence`` has tokens, ``timestamp`` their
            first frames, and ``alignments`` the best label of each frame. Else ``y_sequence`` has
            the labels of the frames.
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
    return Tokens(pieces.lookup(ids), _seconds(firsts, ends, frame_seconds), confidences)


def collapse(labels: np.ndarray, blank: int) -> tuple[list[int], list[int], list[int]]:
    """Collapses labels by CTC's rule: repeated labels are one token, and blanks are dropped.

    Args:
        labels: of the frames, integers of shape ``(frames,)``.

    Returns:
        Ids of the tokens, the first frame of each, and the one after its last.
    """
    if not len(labels):
        return [], [], []
    changes = np.flatnonzero(labels[1:] != labels[:-1]) + 1
    firsts, ends = np.append(0, changes), np.append(changes, len(labels))
    nonblank = labels[firsts] != blank
    return labels[firsts[nonblank]].tolist(), firsts[nonblank].tolist(), ends[nonblank].tolist()


def transducer_tokens(
    hypothesis: Any, is_token: Callable[[int], bool], frame_seconds: float, pieces: TokenTexts
) -> Tokens:
    """Returns the tokens of an RNNT or TDT hypothesis.

    A token begins with the frame that emits it, and lasts as long as a TDT model predicts, or else
    one frame.

    Args:
        hypothesis: with ``token_confidence``, if that was requested.
        is_token: tells whether an id is not a blank.
        frame_seconds: of a frame of the encoder; 0 if times were not requested.
    """
    ids = _integers(hypothesis.y_sequence)
    firsts = emission_frames(hypothesis)
    durations = _integers(hypothesis.token_duration)
    if len(durations) != len(ids):
        durations = [1] * len(ids)
    confidences = None
    if hypothesis.token_confidence is not None:
        confidences = [_bounded(confidence) for confidence in hypothesis.token_confidence]
    positions = [position for position, token in enumerate(ids) if is_token(token)]
    spans = None
    if len(firsts) == len(ids):
        ends = [first + max(1, count) for first, count in zip(firsts, durations, strict=True)]
        spans = _seconds(
            [firsts[k] for k in positions], [ends[k] for k in positions], frame_seconds
        )
    if confidences is not None and len(confidences) == len(ids):
        confidences = [confidences[k] for k in positions]
    return Tokens(pieces.lookup(ids[k] for k in positions), spans, confidences)


def emission_frames(hypothesis: Any) -> list[int]:
    """Returns the frame at which each token of a transducer's hypothesis was emitted."""
    timestamp = hypothesis.timestamp
    return _integers(timestamp["timestep"] if isinstance(timestamp, dict) else timestamp)


def multitask_tokens(hypothesis: Any, pieces: TokenTexts) -> Tokens:
    """Returns the tokens of a multitask hypothesis, or its words if ``timestamp`` has any.

    A word's confidence is that of its tokens, aggregated.

    Args:
        hypothesis: with ``token_confidence``, if that was requested; ``timestamp["word"]`` has the
            words with ``start`` and ``end`` in seconds.
    """
    ids = _integers(hypothesis.y_sequence)
    confidences = None
    if hypothesis.token_confidence is not None:
        confidences = [_bounded(float(value)) for value in hypothesis.token_confidence]
    timed_words = hypothesis.timestamp["word"] if isinstance(hypothesis.timestamp, dict) else []
    if not timed_words:
        return Tokens(pieces.lookup(ids), [] if not ids else None, confidences)
    words = [str(timed["word"]) for timed in timed_words]
    if confidences is not None:
        texts = pieces.lookup(ids)
        spoken = [position for position, piece in enumerate(texts) if not _FRAME.fullmatch(piece)]
        confidences = _word_confidences(
            words, [texts[k] for k in spoken], [confidences[k] for k in spoken]
        )
    spans = _in_order((float(timed["start"]), float(timed["end"])) for timed in timed_words)
    return Tokens([f"▁{word}" for word in words], spans, confidences)


def words_between_frames(raw: str, frame_seconds: float) -> tuple[str, list[dict[str, Any]]]:
    """Parses the output of a multitask model with times, such as ``<|3|> word <|9|>``.

    Words between the same two times share them; words outside of times belong to the text too, and
    take the times of their neighbors.

    Returns:
        The text without the times, and the words with ``start`` and ``end`` in seconds, as NeMo's
        ``process_aed_timestamp_outputs`` returns them (nemo/collections/asr/parts/utils/); no words
        if there are no times.
    """
    parts = _FRAME.split(raw)  # words, frame, words, frame, ...
    if len(parts) == 1:
        return raw.strip(), []
    words: list[dict[str, Any]] = []
    before = 0.0
    for index in range(0, len(parts), 2):
        start = int(parts[index - 1]) * frame_seconds if index else before
        after = index + 1 < len(parts)
        end = int(parts[index + 1]) * frame_seconds if after else start + frame_seconds
        spoken = parts[index].split()
        words += [{"word": word, "start": start, "end": end} for word in spoken]
        before = end
    return " ".join(word["word"] for word in words), words


def frame_confidences(log_probs: torch.Tensor, frames: torch.Tensor) -> list[np.ndarray]:
    """Computes NeMo's confidence of each frame of CTC's log-probabilities.

    Args:
        log_probs: of shape (batch, frames, labels).
        frames: number of frames of each clip, without padding; of shape (batch,).
    """
    import torch
    from nemo.collections.asr.parts.utils import asr_confidence_utils

    kind = (CONFIDENCE["name"], CONFIDENCE["entropy_type"], CONFIDENCE["entropy_norm"])
    measure = asr_confidence_utils.get_confidence_measure_bank()["_".join(kind)]
    labels = log_probs.shape[-1]
    rows = measure(torch.nan_to_num(log_probs.float()), labels, CONFIDENCE["alpha"]).cpu().numpy()
    return [row[:count] for row, count in zip(rows, frames.tolist(), strict=True)]


def frame_seconds(model: Any) -> float:
    """Returns the seconds of a frame of a model's encoder output."""
    preprocessor = model.cfg.preprocessor
    stride = preprocessor.get("window_stride")
    if stride is None:
        rate = preprocessor.get("sample_rate") or model.cfg.sample_rate
        stride = model.preprocessor.featurizer.hop_length / rate
    factor = getattr(model.encoder, "subsampling_factor", None)
    return float(stride) * float(factor or _measured_factor(model))


def _measured_factor(model: Any) -> int:
    """Measures how many frames of the spectrogram the encoder turns into one."""
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
    """Returns the frame after each token's last, where a beam has only the first."""
    ends = []
    for token, first, limit in zip(ids, firsts, [*firsts, len(labels)][1:], strict=True):
        end = first + 1
        while end < limit and labels[end] == token:
            end += 1
        ends.append(end)
    return ends


def _in_order(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Makes spans neither go back nor end before they start; a negative time is unknown."""
    ordered: list[tuple[float, float]] = []
    for start, end in spans:
        last = ordered[-1][0] if ordered else 0.0
        ordered.append((max(start, last), max(end, start, last)))
    return ordered


def _word_confidences(
    words: Sequence[str], pieces: Sequence[str], confidences: Sequence[float]
) -> list[float]:
    """Returns the confidence of each word, from the tokens that its characters belong to."""
    owners = [
        index
        for index, piece in enumerate(pieces)
        for _ in "".join(piece.replace("▁", " ").split())
    ]
    word_confidences, done = [], 0
    for word in words:
        tokens = dict.fromkeys(owners[done : done + len(word)])
        done += len(word)
        word_confidences.append(_aggregate([confidences[token] for token in tokens]))
    return word_confidences


def _aggregate(confidences: Sequence[float] | np.ndarray) -> float:
    assert CONFIDENCE["aggregation"] == "mean"
    return float(np.mean(confidences))


def _bounded(confidence: float) -> float:
    """Limits a confidence to its range, which rounding may leave."""
    return min(1.0, max(0.0, float(confidence)))


def _integers(values: Any) -> list[int]:
    """Returns the integers of a list, a tensor of any device, an array, or None."""
    if values is None:
        return []
    return [int(value) for value in (values.tolist() if hasattr(values, "tolist") else values)]
