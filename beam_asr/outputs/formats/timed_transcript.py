"""Reads a record for the formats of one transcript: text, words, captions and sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from beam_asr.outputs.formats import captions
from beam_asr.outputs.formats.captions import CaptionWord
from beam_asr.outputs.formats.file_names import Audio, audio_of, stem_of
from beam_asr.transcripts.post_processing import RECOGNIZED_TEXT
from beam_asr.transcripts.words import PAUSE_SECONDS, SENTENCE_ENDS, ends_with_any

Record = Mapping[str, Any]


class TimedTranscript(NamedTuple):
    """Holds a record as a format needs it.

    Attributes:
        seconds: the measured length of the row's audio; None if it is not known.
    """

    record: Record
    audio: Audio
    text: str
    seconds: float | None = None

    @property
    def end(self) -> float | None:
        """Returns the end of the row's audio, in seconds from the start of its file.

        It is measured if it can be, since a ``duration`` may be rounded, and that of the row if
        not; None if neither is known.
        """
        seconds = self.audio.duration if self.seconds is None else self.seconds
        return None if seconds is None else self.audio.offset + seconds

    @property
    def _text_of_words(self) -> str:
        """Returns the text of the words, which steps on texts do not change."""
        return str(self.record.get(RECOGNIZED_TEXT) or self.text)

    @property
    def words(self) -> list[CaptionWord]:
        return captions.caption_words(self.record.get("words") or [], self._text_of_words)

    @property
    def cues(self) -> list[captions.Cue]:
        """Returns the captions, in the order of time."""
        return captions.cues(self.record.get("words") or [], self._text_of_words)

    @property
    def file(self) -> str:
        """Returns the recording's name in CTM and STM: the audio's, without folders and ending."""
        return token(stem_of(self.audio.name).lstrip(";"), "audio")  # ;; is a comment there

    @property
    def channel(self) -> int:
        """Returns the channel in CTM and STM, from 1."""
        return 1 + (self.audio.channel or 0)


def timed_transcript(
    record: Record,
    filepath_key: str = "audio_filepath",
    pred_text_key: str = "pred_text",
    channel_key: str = "channel",
    seconds: float | None = None,
) -> TimedTranscript:
    """Reads a record for a format; ``seconds`` as in `TimedTranscript`."""
    audio = audio_of(record, filepath_key, channel_key)
    return TimedTranscript(record, audio, record.get(pred_text_key) or "", seconds)


def sentences(words: Sequence[CaptionWord]) -> list[tuple[int, int, str]]:
    """Returns spans that end in a full stop or a pause: start and end in milliseconds, and text."""
    if not words:
        return []
    firsts = [0]
    for number in range(1, len(words)):
        before = words[number - 1]
        full_stop = ends_with_any(before.text, SENTENCE_ENDS)
        if full_stop or words[number].start - before.end >= PAUSE_SECONDS:
            firsts.append(number)
    parts = [words[first:end] for first, end in zip(firsts, [*firsts[1:], len(words)])]
    spans = captions.separate([(part[0].start, part[-1].end) for part in parts])
    return [(*span, captions.join_words(part)) for span, part in zip(spans, parts, strict=True)]


def token(text: str, otherwise: str = "") -> str:
    """Returns a text without spaces."""
    return captions.one_line(text).replace(" ", "_") or otherwise
