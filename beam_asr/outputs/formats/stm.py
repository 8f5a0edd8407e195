"""Renders STM by the NIST Scoring Toolkit's "infmts" (https://github.com/usnistgov/SCTK)."""

from __future__ import annotations

from beam_asr.outputs.formats.base import TranscriptFormat
from beam_asr.outputs.formats.timed_transcript import TimedTranscript, sentences, token

UNKNOWN_SPEAKER = "unknown"
LABEL = "<O>"  # for a line whose text looks as if it begins with a label


def render(transcript: TimedTranscript) -> str:
    """Renders ``<file> <channel> <speaker> <start> <end> [<label>] <text>``, a sentence a line.

    A transcript without words has no line: to have it left out of a scoring would hide that the
    model recognized nothing. The label, which not every reader knows, is only written where the
    text begins like one. Marks that NIST's tools read in a text, as ``{a / b}``, stay as they are.
    """
    speaker = transcript.record.get("speaker")
    speaker = UNKNOWN_SPEAKER if speaker is None else token(str(speaker), UNKNOWN_SPEAKER)
    before = f"{transcript.file} {transcript.channel} {speaker.lstrip(';') or UNKNOWN_SPEAKER}"
    return "".join(
        f"{before} {start / 1000:.3f} {end / 1000:.3f} {f'{LABEL} ' if text[0] == '<' else ''}"
        f"{text}\n"
        for start, end, text in sentences(transcript.words)
    )


FORMAT = TranscriptFormat(name="stm", extension="stm", render=render)
