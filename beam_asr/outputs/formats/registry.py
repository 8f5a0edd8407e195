"""A transcript as a file of another program: subtitles, scoring, phonetics, plain text.

Sources of the formats: SubRip as its players read it; WebVTT by the W3C
(https://www.w3.org/TR/webvtt1/); CTM and STM by the NIST Scoring Toolkit's "infmts"
(https://github.com/usnistgov/SCTK); TextGrid by Praat's manual
(https://www.fon.hum.uva.nl/praat/manual/TextGrid_file_formats.html).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from beam_asr.outputs.formats import captions
from beam_asr.outputs.formats.captions import Spoken
from beam_asr.outputs.formats.file_names import Audio, audio_of, stem_of
from beam_asr.transcripts.words import PAUSE_SECONDS, SENTENCE_ENDS, ends_with_any

Record = Mapping[str, Any]

UNKNOWN_SPEAKER = "unknown"
LABEL = "<O>"  # of a line of STM whose text would be taken for one
OPENING = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\n'


class _Transcript(NamedTuple):
    """A record, read for a format."""

    record: Record
    audio: Audio
    text: str

    @property
    def words(self) -> list[Spoken]:
        return captions.spoken(self.record.get("words") or [], self.text)

    @property
    def file(self) -> str:
        """The recording's name in CTM and STM: the audio's, without folders and extension."""
        return _token(stem_of(self.audio.name).lstrip(";"), "audio")  # ;; is a comment there

    @property
    def channel(self) -> int:
        """The channel in CTM and STM, from 1."""
        return 1 + (self.audio.channel or 0)


def render(
    format: str,
    record: Record,
    filepath_key: str = "audio_filepath",
    pred_text_key: str = "pred_text",
) -> str:
    """The content of a file of a format, one of `FORMATS`.

    A transcript without words is a valid file: nothing in SRT, CTM, STM and text, the header in
    WebVTT, an empty interval in a TextGrid.

    Args:
        record: a row with its text and, for all formats of `TIMED`, its ``words``: ``word``,
            ``start`` and ``end``, in seconds from the start of the file, and maybe ``confidence``.

    Raises:
        KeyError: no such format.
    """
    audio = audio_of(record, filepath_key)
    return _RENDERERS[format](_Transcript(record, audio, record.get(pred_text_key) or ""))


def _txt(transcript: _Transcript) -> str:
    return f"{transcript.text}\n" if transcript.text else ""


def _srt(transcript: _Transcript) -> str:
    def block(number: int, cue: captions.Cue) -> str:
        text = "\n".join(cue.lines).replace("-->", "->")  # which only times may hold
        return f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{text}\n\n"

    return "".join(block(number, cue) for number, cue in enumerate(_cues(transcript), 1))


def _vtt(transcript: _Transcript) -> str:
    def block(cue: captions.Cue) -> str:
        text = "\n".join(cue.lines)
        text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        return f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{text}\n\n"

    return "WEBVTT\n\n" + "".join(map(block, _cues(transcript)))


def _ctm(transcript: _Transcript) -> str:
    """``<file> <channel> <start> <duration> <word> [<confidence>]``, a word a line.

    Spaces in a word are written as ``_``; the first channel is 1.
    """
    before = f"{transcript.file} {transcript.channel}"
    lines = []
    for word in transcript.record.get("words") or []:
        text = _token(word["word"])
        if not text:
            continue
        start = round(1000 * word["start"])
        duration = max(round(1000 * word["end"]) - start, 0)
        confidence = word.get("confidence")
        known = isinstance(confidence, (int, float)) and math.isfinite(confidence)
        tail = f" {confidence:.3f}" if known else ""
        lines.append(f"{before} {start / 1000:.3f} {duration / 1000:.3f} {text}{tail}\n")
    return "".join(lines)


def _stm(transcript: _Transcript) -> str:
    """``<file> <channel> <speaker> <start> <end> [<label>] <text>``, a sentence a line.

    A transcript without words has no line: to have it left out of a scoring would hide that the
    model heard nothing. The label, which not every reader knows, is only there where the text
    begins as one. Marks that NIST's tools read in a text, as ``{a / b}``, stay as they are.
    """
    speaker = transcript.record.get("speaker")
    speaker = UNKNOWN_SPEAKER if speaker is None else _token(str(speaker), UNKNOWN_SPEAKER)
    before = f"{transcript.file} {transcript.channel} {speaker.lstrip(';') or UNKNOWN_SPEAKER}"
    return "".join(
        f"{before} {start / 1000:.3f} {end / 1000:.3f} {f'{LABEL} ' if text[0] == '<' else ''}"
        f"{text}\n"
        for start, end, text in _sentences(transcript.words)
    )


def _textgrid(transcript: _Transcript) -> str:
    """Tiers ``words`` and ``segments``, the sentences, from 0 to the end of the row's audio.

    What no word or sentence covers is an interval without text. Praat knows neither empty nor
    overlapping intervals, so one of no length lasts a millisecond.
    """
    words = transcript.words
    spans = captions.apart([(word.start, word.end) for word in words])
    tiers = {
        "words": [(*span, word.text) for span, word in zip(spans, words, strict=True)],
        "segments": list(_sentences(words)),
    }
    audio = transcript.audio
    known = 0.0 if audio.duration is None else audio.offset + audio.duration
    ends = [end for intervals in tiers.values() for _, end, _ in intervals[-1:]]
    last = max(round(1000 * known), *ends, 1) if ends else max(round(1000 * known), 1)
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
    for place, (start, end, text) in enumerate(intervals, 1):
        quoted = text.replace('"', '""')
        lines += [
            f"        intervals [{place}]:",
            f"            xmin = {start / 1000:.3f} ",
            f"            xmax = {end / 1000:.3f} ",
            f'            text = "{quoted}" ',
        ]
    return "\n".join(lines) + "\n"


def _without_gaps(
    intervals: Iterable[tuple[int, int, str]], last: int
) -> list[tuple[int, int, str]]:
    """Intervals, in milliseconds, with empty ones where there is none from 0 to the last."""
    whole: list[tuple[int, int, str]] = []
    covered = 0
    for start, end, text in intervals:
        if start > covered:
            whole.append((covered, start, ""))
        whole.append((start, end, text))
        covered = end
    if covered < last:
        whole.append((covered, last, ""))
    return whole


def _sentences(words: Sequence[Spoken]) -> list[tuple[int, int, str]]:
    """Start and end in milliseconds, and the text, of what ends in a full stop or a pause."""
    if not words:
        return []
    firsts = [0]
    for number in range(1, len(words)):
        before = words[number - 1]
        full_stop = ends_with_any(before.text, SENTENCE_ENDS)
        if full_stop or words[number].start - before.end >= PAUSE_SECONDS:
            firsts.append(number)
    parts = [words[first:end] for first, end in zip(firsts, [*firsts[1:], len(words)])]
    spans = captions.apart([(part[0].start, part[-1].end) for part in parts])
    return [(*span, captions.joined(part)) for span, part in zip(spans, parts, strict=True)]


def _cues(transcript: _Transcript) -> list[captions.Cue]:
    return captions.cues(transcript.record.get("words") or [], transcript.text)


def _token(text: str, otherwise: str = "") -> str:
    """A text without spaces."""
    return captions.one_line(text).replace(" ", "_") or otherwise


def _clock(seconds: float, mark: str) -> str:
    """Hours, of two digits or more, minutes, seconds and, after a mark, milliseconds."""
    rest, milliseconds = divmod(round(1000 * seconds), 1000)
    rest, second = divmod(rest, 60)
    hour, minute = divmod(rest, 60)
    return f"{hour:02}:{minute:02}:{second:02}{mark}{milliseconds:03}"


_RENDERERS: dict[str, Callable[[_Transcript], str]] = {
    "srt": _srt,
    "vtt": _vtt,
    "ctm": _ctm,
    "stm": _stm,
    "txt": _txt,
    "textgrid": _textgrid,
}
FORMATS = tuple(_RENDERERS)
TIMED = tuple(format for format in FORMATS if format != "txt")
EXTENSIONS = {format: format for format in FORMATS} | {"textgrid": "TextGrid"}
