"""SRT and WebVTT."""

from __future__ import annotations

from beam_asr.outputs.formats import captions
from beam_asr.outputs.formats.timed_transcript import TimedTranscript


def srt(transcript: TimedTranscript) -> str:
    def block(number: int, cue: captions.Cue) -> str:
        text = "\n".join(cue.lines).replace("-->", "->")  # which only times may hold
        return f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{text}\n\n"

    return "".join(block(number, cue) for number, cue in enumerate(_cues(transcript), 1))


def vtt(transcript: TimedTranscript) -> str:
    def block(cue: captions.Cue) -> str:
        text = "\n".join(cue.lines)
        text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        return f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{text}\n\n"

    return "WEBVTT\n\n" + "".join(map(block, _cues(transcript)))


def _cues(transcript: TimedTranscript) -> list[captions.Cue]:
    return captions.cues(transcript.record.get("words") or [], transcript.text)


def _clock(seconds: float, mark: str) -> str:
    """Hours, of two digits or more, minutes, seconds and, after a mark, milliseconds."""
    rest, milliseconds = divmod(round(1000 * seconds), 1000)
    rest, second = divmod(rest, 60)
    hour, minute = divmod(rest, 60)
    return f"{hour:02}:{minute:02}:{second:02}{mark}{milliseconds:03}"
