"""CTM and STM, as NIST's tools read them."""

from __future__ import annotations

import math

from beam_asr.outputs.formats.timed_transcript import TimedTranscript, sentences, token

UNKNOWN_SPEAKER = "unknown"
LABEL = "<O>"  # of a line of STM whose text would be taken for one


def ctm(transcript: TimedTranscript) -> str:
    """``<file> <channel> <start> <duration> <word> [<confidence>]``, a word a line.

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


def stm(transcript: TimedTranscript) -> str:
    """``<file> <channel> <speaker> <start> <end> [<label>] <text>``, a sentence a line.

    A transcript without words has no line: to have it left out of a scoring would hide that the
    model heard nothing. The label, which not every reader knows, is only there where the text
    begins as one. Marks that NIST's tools read in a text, as ``{a / b}``, stay as they are.
    """
    speaker = transcript.record.get("speaker")
    speaker = UNKNOWN_SPEAKER if speaker is None else token(str(speaker), UNKNOWN_SPEAKER)
    before = f"{transcript.file} {transcript.channel} {speaker.lstrip(';') or UNKNOWN_SPEAKER}"
    return "".join(
        f"{before} {start / 1000:.3f} {end / 1000:.3f} {f'{LABEL} ' if text[0] == '<' else ''}"
        f"{text}\n"
        for start, end, text in sentences(transcript.words)
    )
