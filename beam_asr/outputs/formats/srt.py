"""Renders SubRip (SRT), as players read it."""

from __future__ import annotations

from beam_asr.outputs.formats import captions
from beam_asr.outputs.formats.base import TranscriptFormat
from beam_asr.outputs.formats.timed_transcript import TimedTranscript


def render(transcript: TimedTranscript) -> str:
    """Renders a numbered cue for each caption; nothing for a transcript without words."""

    def block(number: int, cue: captions.Cue) -> str:
        text = "\n".join(cue.lines).replace("-->", "->")  # which only times may hold
        start, end = captions.clock(cue.start, ","), captions.clock(cue.end, ",")
        return f"{number}\n{start} --> {end}\n{text}\n\n"

    return "".join(block(number, cue) for number, cue in enumerate(transcript.cues, 1))


FORMAT = TranscriptFormat(name="srt", extension="srt", render=render)
