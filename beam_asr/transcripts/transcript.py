"""What was heard in a clip: as plain fields that are kept, and as the fields of a transcript."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from beam_asr.settings import TranscriptFields
from beam_asr.transcripts import token_alignment, word_edges
from beam_asr.transcripts import words as tokens
from beam_asr.transcripts.words import Token, Word

if TYPE_CHECKING:
    from beam_asr.records.outcome import Recognition


DECIMALS = 3  # of a time in seconds, and of a confidence


def to_stored(
    recognition: Recognition, waveform: np.ndarray, sample_rate: int, start: float, wanted: bool
) -> dict[str, Any]:
    """What is kept of a clip: JSON, with all that a transcript of any kind is made of.

    Args:
        waveform: float32 of shape ``(samples,)``, by which words begin and end where sounds do.
        sample_rate: of it, in Hz.
        start: of the clip in its file, in seconds.
        wanted: whether its tokens are needed.
    """
    seconds = round(len(waveform) / sample_rate, DECIMALS)
    fields: dict[str, Any] = {"text": recognition.text, "seconds": seconds}
    if recognition.n_best is not None:
        fields["score"] = recognition.score
        fields["n_best"] = [list(each) for each in recognition.n_best]
    if wanted and recognition.pieces is not None:
        timed = recognition.starts is not None and recognition.ends is not None
        none = [0.0] * len(recognition.pieces)
        found = token_alignment.align(
            recognition.text,
            recognition.pieces,
            recognition.starts or none,
            recognition.ends or none,
            recognition.confidences,
        )
        if timed:
            found = word_edges.refine(found, waveform, sample_rate)
        fields["timed"] = timed
        fields["tokens"] = [
            [
                each.text,
                round(start + each.start, DECIMALS),
                round(start + each.end, DECIMALS),
                None if each.confidence is None else round(each.confidence, DECIMALS),
            ]
            for each in found
        ]
    return fields


def tokens_of(recognition: Mapping[str, Any]) -> list[Token] | None:
    """The tokens that were kept; None if none were."""
    if "tokens" not in recognition:
        return None
    return [Token(*each) for each in recognition["tokens"]]


def transcript_fields(recognition: Mapping[str, Any], asked: TranscriptFields) -> dict[str, Any]:
    """The fields of a transcript, of what was kept."""
    made: dict[str, Any] = {asked.pred_text_key: recognition["text"]}
    found = tokens_of(recognition) or []
    words = tokens.words(found) if asked.tokens else []
    if "word" in asked.timestamps or asked.confidence == "word":
        made["words"] = [_word(word, asked) for word in words]
    if "segment" in asked.timestamps:
        made["segments"] = [
            {"segment": each.text, "start": each.start, "end": each.end}
            for each in tokens.sentences(words)
        ]
    if "char" in asked.timestamps:
        made["chars"] = [
            {"char": each.text, "start": each.start, "end": each.end} for each in found
        ]
    if asked.confidence == "row":
        made["confidence"] = _mean([word.confidence for word in words])
    if asked.n_best:
        texts = recognition.get("n_best", [])
        made["n_best"] = [{"text": text, "score": score} for text, score in texts]
    if recognition.get("no_speech"):
        made["no_speech"] = True
    if "segments_failed" in recognition:
        made["segments_failed"] = recognition["segments_failed"]
    return made


def empty_result(seconds: float) -> dict[str, Any]:
    """What is kept of a clip of so many seconds without speech."""
    seconds = round(seconds, DECIMALS)
    return {"text": "", "seconds": seconds, "timed": True, "tokens": [], "no_speech": True}


def _word(word: Word, asked: TranscriptFields) -> dict[str, Any]:
    made: dict[str, Any] = {"word": word.text}
    if "word" in asked.timestamps:
        made |= {"start": word.start, "end": word.end}
    if asked.confidence == "word":
        made["confidence"] = word.confidence
    return made


def _mean(confidences: Sequence[float | None]) -> float | None:
    known = [each for each in confidences if each is not None]
    return round(statistics.fmean(known), DECIMALS) if known else None
