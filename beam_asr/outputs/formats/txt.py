"""Renders plain text, as it was recognized."""

from __future__ import annotations

from beam_asr.outputs.formats.base import TranscriptFormat
from beam_asr.outputs.formats.timed_transcript import TimedTranscript


def render(transcript: TimedTranscript) -> str:
    """Renders the text as one line; nothing for a transcript without text."""
    return f"{transcript.text}\n" if transcript.text else ""


FORMAT = TranscriptFormat(name="txt", extension="txt", render=render, needs_words=False)
