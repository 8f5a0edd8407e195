"""What a format is: of a file for each transcript, for each shard, or of lines of its own."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from beam_asr.outputs.formats.file_names import HASH_DIGITS
from beam_asr.outputs.formats.timed_transcript import TimedTranscript
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import join


class FieldKeys(NamedTuple):
    """The fields of a record that hold the audio, the text and the language."""

    audio: str = "audio_filepath"
    text: str = "pred_text"
    language: str = "lang"


@dataclass(frozen=True, kw_only=True)
class Format(ABC):
    """A format of output files, in a folder of its name.

    Attributes:
        name: of the format, as the setting `formats` takes it.
        extension: of its files, without the dot.
        needs_words: whether it needs the times of words.
        needs_duration: whether it needs the ``duration`` of each row.
        needs_origin: whether it needs to know the manifest that each row comes from.
    """

    name: str
    extension: str
    needs_words: bool = False
    needs_duration: bool = False
    needs_origin: bool = False

    @abstractmethod
    def is_own(self, file_name: str) -> bool:
        """Whether a file in its folder has a name that this format gives."""


@dataclass(frozen=True, kw_only=True)
class TranscriptFormat(Format):
    """A format of which each transcript is a file.

    Attributes:
        render: gives the content of a file. A transcript without words makes a valid file too.
    """

    needs_words: bool = True
    render: Callable[[TimedTranscript], str]

    def is_own(self, file_name: str) -> bool:
        pattern = rf".+-[0-9a-f]{{{HASH_DIGITS}}}\.{re.escape(self.extension)}"
        return re.fullmatch(pattern, file_name) is not None


@dataclass(frozen=True, kw_only=True)
class _NumberedFormat(Format):
    """A format of files that are numbered as shards are: ``STEM-00000-of-00001.EXTENSION``."""

    needs_duration: bool = True
    stem: str

    def path(self, shard: int, shards: int) -> str:
        """Returns the path of a shard's file, relative to the output folder."""
        return join(self.name, f"{self.stem}-{shard:05d}-of-{shards:05d}.{self.extension}")

    def is_own(self, file_name: str) -> bool:
        pattern = rf"{re.escape(self.stem)}-\d{{5}}-of-\d{{5}}\.{re.escape(self.extension)}"
        return re.fullmatch(pattern, file_name) is not None


@dataclass(frozen=True, kw_only=True)
class ShardFormat(_NumberedFormat):
    """A format of which each shard of transcripts is a file.

    Attributes:
        stem: what the names of its files begin with.
        encode_shard: gives the content of a file, of the lines of a shard of transcripts: records
            as JSON. The same lines give the same bytes, in every retry.
    """

    encode_shard: Callable[[Iterable[bytes], FieldKeys], Iterable[bytes]]


class FormatLine(NamedTuple):
    """What a record is in a format of lines.

    Attributes:
        line: with its end; None if the record has none.
        left_out: why the record is not used, for the summary; empty if it is.
        shard: in a tarred set, the number of the tar that the line is about; else None.
    """

    line: bytes | None
    left_out: str = ""
    shard: int | None = None


@dataclass(frozen=True, kw_only=True)
class LineFormat(_NumberedFormat):
    """A format whose files hold lines of its own, in shards of its own; ``summary.json`` counts
    them under the format's name.

    Attributes:
        stem: what the names of its files begin with.
    """

    @abstractmethod
    def to_line(
        self,
        record: Mapping[str, Any],
        keys: FieldKeys,
        manifest: str,
        tarred: bool,
        transcribed: bool,
    ) -> FormatLine:
        """Returns the line of a record.

        Args:
            manifest: path or URI of the manifest that the row comes from; empty if it is unknown.
            tarred: whether the rows are those of a tarred data set of NeMo's. Then failures and
                filtered rows get lines too.
            transcribed: whether the record is a transcript, and neither of those.
        """

    @abstractmethod
    def path_of_tar(self, number: int) -> str:
        """Returns the path of the file about a tar, relative to the output folder."""

    @abstractmethod
    def finish(
        self,
        storage: Storage,
        folder: str,
        written: set[str],
        tarred: bool,
        tars_without_rows: int,
    ) -> None:
        """Writes the files that no line is in, so that a reader finds the folder whole.

        Args:
            folder: the output folder.
            written: the paths of the files that are there, relative to it.
            tarred: whether the rows are those of a tarred data set of NeMo's.
            tars_without_rows: how many tars of the data set no row is about.
        """
