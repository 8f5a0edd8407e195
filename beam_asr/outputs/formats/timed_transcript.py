"""What per-transcript formats render: text, words, sentences, speaker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from beam_asr.outputs.formats import captions
from beam_asr.outputs.formats.captions import CaptionWord
from beam_asr.outputs.formats.file_names import Audio, stem_of
from beam_asr.transcripts.words import PAUSE_SECONDS, SENTENCE_ENDS, ends_with_any

Record = Mapping[str, Any]


class TimedTranscript(NamedTuple):
    """A record, read for a format."""

    record: Record
    audio: Audio
    text: str

    @property
    def words(self) -> list[CaptionWord]:
        return captions.caption_words(self.record.get("words") or [], self.text)

    @property
    def file(self) -> str:
        """The recording's name in CTM and STM: the audio's, without folders and extension."""
        return token(stem_of(self.audio.name).lstrip(";"), "audio")  # ;; is a comment there

    @property
    def channel(self) -> int:
        """The channel in CTM and STM, from 1."""
        return 1 + (self.audio.channel or 0)


def sentences(words: Sequence[CaptionWord]) -> list[tuple[int, int, str]]:
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


def token(text: str, otherwise: str = "") -> str:
    """A text without spaces."""
    return captions.one_line(text).replace(" ", "_") or otherwise
