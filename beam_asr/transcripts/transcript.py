"""Converts recognitions to stored fields, and stored fields to those of a transcript."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from beam_asr.transcripts import token_alignment, word_edges
from beam_asr.transcripts.words import Token, Word, sentences
from beam_asr.transcripts.words import words as words_of_tokens

if TYPE_CHECKING:
    from beam_asr.records.outcome import Recognition
    from beam_asr.records.work import TakenChannel

DECIMALS = 3  # of a time in seconds, and of a confidence


class TranscriptFields(NamedTuple):
    """Selects the fields that a transcript has.

    Attributes:
        pred_text_key: the field of the text.
        timestamps: of `settings.TIMESTAMPS`.
        confidence: ``word``, ``row`` or None.
        n_best: number of texts with scores; 0 for the text alone.
        models: the names of the models in the order of the routes, for ``model``; empty for none.
    """

    pred_text_key: str = "pred_text"
    timestamps: tuple[str, ...] = ()
    confidence: str | None = None
    n_best: int = 0
    models: tuple[str, ...] = ()

    @property
    def tokens(self) -> bool:
        """Tells whether the tokens of a text are needed."""
        return bool(self.timestamps) or self.confidence is not None


def to_stored(
    recognition: Recognition,
    waveform: np.ndarray,
    sample_rate: int,
    start: float,
    needs_tokens: bool,
) -> dict[str, Any]:
    """Converts the recognition of a clip to JSON that any transcript can be made from.

    Args:
        waveform: float32 of shape ``(samples,)``, which refines the boundaries of words.
        sample_rate: of the waveform, in Hz.
        start: of the clip in its file, in seconds.
        needs_tokens: whether tokens are stored.
    """
    seconds = round(len(waveform) / sample_rate, DECIMALS)
    fields: dict[str, Any] = {"text": recognition.text, "seconds": seconds}
    if recognition.n_best is not None:
        fields["score"] = recognition.score
        fields["n_best"] = [list(scored_text) for scored_text in recognition.n_best]
    if needs_tokens and recognition.pieces is not None:
        timed = recognition.starts is not None and recognition.ends is not None
        none = [0.0] * len(recognition.pieces)
        tokens = token_alignment.align(
            recognition.text,
            recognition.pieces,
            recognition.starts or none,
            recognition.ends or none,
            recognition.confidences,
        )
        if timed:
            tokens = word_edges.refine(tokens, waveform, sample_rate)
        fields["timed"] = timed
        fields["tokens"] = [
            [
                token.text,
                round(start + token.start, DECIMALS),
                round(start + token.end, DECIMALS),
                None if token.confidence is None else round(token.confidence, DECIMALS),
            ]
            for token in tokens
        ]
    return fields


def with_channel(stored: dict[str, Any], taken: TakenChannel | None) -> dict[str, Any]:
    """Returns stored fields with the channel that was read of a file of several."""
    return stored if taken is None else {**stored, "taken": list(taken)}


def stored_tokens(recognition: Mapping[str, Any]) -> list[Token] | None:
    """Returns the tokens that were stored, or None."""
    if "tokens" not in recognition:
        return None
    return [Token(*values) for values in recognition["tokens"]]


def transcript_fields(recognition: Mapping[str, Any], request: TranscriptFields) -> dict[str, Any]:
    """Returns the fields of a transcript from a stored recognition."""
    fields: dict[str, Any] = {request.pred_text_key: recognition["text"]}
    tokens = stored_tokens(recognition) or []
    words = words_of_tokens(tokens) if request.tokens else []
    if "word" in request.timestamps or request.confidence == "word":
        fields["words"] = [_word(word, request) for word in words]
    if "segment" in request.timestamps:
        fields["segments"] = [
            {"segment": sentence.text, "start": sentence.start, "end": sentence.end}
            for sentence in sentences(words)
        ]
    if "char" in request.timestamps:
        fields["chars"] = [
            {"char": token.text, "start": token.start, "end": token.end} for token in tokens
        ]
    if request.confidence == "row":
        fields["confidence"] = _mean([word.confidence for word in words])
    if request.n_best:
        texts = recognition.get("n_best", [])
        fields["n_best"] = [{"text": text, "score": score} for text, score in texts]
    if recognition.get("no_speech"):
        fields["no_speech"] = True
    if "segments_failed" in recognition:
        fields["segments_failed"] = recognition["segments_failed"]
    return fields


def empty_result(seconds: float) -> dict[str, Any]:
    """Returns the stored fields of a clip without speech, of this length in seconds."""
    seconds = round(seconds, DECIMALS)
    return {"text": "", "seconds": seconds, "timed": True, "tokens": [], "no_speech": True}


def _word(word: Word, request: TranscriptFields) -> dict[str, Any]:
    fields: dict[str, Any] = {"word": word.text}
    if "word" in request.timestamps:
        fields |= {"start": word.start, "end": word.end}
    if request.confidence == "word":
        fields["confidence"] = word.confidence
    return fields


def _mean(confidences: Sequence[float | None]) -> float | None:
    known = [confidence for confidence in confidences if confidence is not None]
    return round(statistics.fmean(known), DECIMALS) if known else None
