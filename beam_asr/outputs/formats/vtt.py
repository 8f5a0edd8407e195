"""Renders WebVTT by the W3C (https://www.w3.org/TR/webvtt1/)."""

from __future__ import annotations

from beam_asr.outputs.formats import captions
from beam_asr.outputs.formats.base import TranscriptFormat
from beam_asr.outputs.formats.timed_transcript import TimedTranscript


def render(transcript: TimedTranscript) -> str:
    """Renders the header and a cue for each caption."""

    def block(cue: captions.Cue) -> str:
        text = "\n".join(cue.lines)
        text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        start, end = captions.clock(cue.start, "."), captions.clock(cue.end, ".")
        return f"{start} --> {end}\n{text}\n\n"

    return "WEBVTT\n\n" + "".join(map(block, transcript.cues))


FORMAT = TranscriptFormat(name="vtt", extension="vtt", render=render)
