"""Renders CTM by the NIST Scoring Toolkit's "infmts" (https://github.com/usnistgov/SCTK)."""

from __future__ import annotations

import math

from beam_asr.outputs.formats.base import TranscriptFormat
from beam_asr.outputs.formats.timed_transcript import TimedTranscript, token


def render(transcript: TimedTranscript) -> str:
    """Renders ``<file> <channel> <start> <duration> <word> [<confidence>]``, a word a line.

    Spaces in a word are written as ``_``; the first channel is 1.
    """
    before = f"{transcript.file} {transcript.channel}"
    lines = []
    for word in transcript.record.get("words") or []:
        text = token(word["word"])
        if not text:
            continue
        start = round(1000 * word["start"])
        duration = max(round(1000 * word["end"]) - start, 0)
        confidence = word.get("confidence")
        known = isinstance(confidence, (int, float)) and math.isfinite(confidence)
        tail = f" {confidence:.3f}" if known else ""
        lines.append(f"{before} {start / 1000:.3f} {duration / 1000:.3f} {text}{tail}\n")
    return "".join(lines)


FORMAT = TranscriptFormat(name="ctm", extension="ctm", render=render)
