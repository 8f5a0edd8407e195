"""A transcript as a file of another program: subtitles, scoring, phonetics, plain text.

Sources of the formats: SubRip as its players read it; WebVTT by the W3C
(https://www.w3.org/TR/webvtt1/); CTM and STM by the NIST Scoring Toolkit's "infmts"
(https://github.com/usnistgov/SCTK); TextGrid by Praat's manual
(https://www.fon.hum.uva.nl/praat/manual/TextGrid_file_formats.html).
"""

from __future__ import annotations

from collections.abc import Callable

from beam_asr.outputs.formats.file_names import audio_of
from beam_asr.outputs.formats.nist import ctm, stm
from beam_asr.outputs.formats.subtitles import srt, vtt
from beam_asr.outputs.formats.textgrid import textgrid
from beam_asr.outputs.formats.timed_transcript import Record, TimedTranscript


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
    return _RENDERERS[format](TimedTranscript(record, audio, record.get(pred_text_key) or ""))


def _txt(transcript: TimedTranscript) -> str:
    return f"{transcript.text}\n" if transcript.text else ""


_RENDERERS: dict[str, Callable[[TimedTranscript], str]] = {
    "srt": srt,
    "vtt": vtt,
    "ctm": ctm,
    "stm": stm,
    "txt": _txt,
    "textgrid": textgrid,
}
FORMATS = tuple(_RENDERERS)
TIMED = tuple(format for format in FORMATS if format != "txt")
EXTENSIONS = {format: format for format in FORMATS} | {"textgrid": "TextGrid"}
