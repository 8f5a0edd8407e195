"""Renders TextGrid by Praat's manual.

https://www.fon.hum.uva.nl/praat/manual/TextGrid_file_formats.html
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from beam_asr.outputs.formats import captions
from beam_asr.outputs.formats.base import TranscriptFormat
from beam_asr.outputs.formats.timed_transcript import TimedTranscript, sentences

OPENING = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\n'


def render(transcript: TimedTranscript) -> str:
    """Renders tiers ``words`` and ``segments`` (sentences), from 0 to the end of the row's audio.

    What no word or sentence covers is an interval without text. Praat knows neither empty nor
    overlapping intervals, so one of no length lasts a millisecond.
    """
    words = transcript.words
    spans = captions.separate([(word.start, word.end) for word in words])
    tiers = {
        "words": [(*span, word.text) for span, word in zip(spans, words, strict=True)],
        "segments": list(sentences(words)),
    }
    known = round(1000 * (transcript.end or 0.0))
    if transcript.seconds is not None:  # a model counts frames, the last of which may be longer
        tiers = {name: _within(intervals, known) for name, intervals in tiers.items()}
    ends = [end for intervals in tiers.values() for _, end, _ in intervals[-1:]]
    last = max(known, 1, *ends)
    head = (
        f"xmin = 0 \nxmax = {last / 1000:.3f} \ntiers? <exists> \nsize = {len(tiers)} \nitem []: \n"
    )
    return (
        OPENING
        + head
        + "".join(
            _tier(number, name, _without_gaps(intervals, last), last)
            for number, (name, intervals) in enumerate(tiers.items(), 1)
        )
    )


def _tier(number: int, name: str, intervals: Sequence[tuple[int, int, str]], last: int) -> str:
    lines = [
        f"    item [{number}]:",
        '        class = "IntervalTier" ',
        f'        name = "{name}" ',
        "        xmin = 0 ",
        f"        xmax = {last / 1000:.3f} ",
        f"        intervals: size = {len(intervals)} ",
    ]
    for index, (start, end, text) in enumerate(intervals, 1):
        quoted = text.replace('"', '""')
        lines += [
            f"        intervals [{index}]:",
            f"            xmin = {start / 1000:.3f} ",
            f"            xmax = {end / 1000:.3f} ",
            f'            text = "{quoted}" ',
        ]
    return "\n".join(lines) + "\n"


def _within(intervals: Sequence[tuple[int, int, str]], last: int) -> list[tuple[int, int, str]]:
    """Returns intervals, in milliseconds, that end at the last or before, if there is room."""
    within: list[tuple[int, int, str]] = []
    for start, end, text in reversed(intervals):
        end = min(end, last)
        start = min(start, end - 1)
        within.append((start, end, text))
        last = start
    return within[::-1] if last >= 0 else list(intervals)


def _without_gaps(
    intervals: Iterable[tuple[int, int, str]], last: int
) -> list[tuple[int, int, str]]:
    """Returns intervals, in milliseconds, with empty ones in the gaps from 0 to the last."""
    complete: list[tuple[int, int, str]] = []
    covered = 0
    for start, end, text in intervals:
        if start > covered:
            complete.append((covered, start, ""))
        complete.append((start, end, text))
        covered = end
    if covered < last:
        complete.append((covered, last, ""))
    return complete


FORMAT = TranscriptFormat(name="textgrid", extension="TextGrid", render=render)
