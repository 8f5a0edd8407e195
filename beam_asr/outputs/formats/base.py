"""Defines formats with a file for each transcript, for each shard, or with their own lines."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from beam_asr.outputs.formats.file_names import HASHED
from beam_asr.outputs.formats.timed_transcript import TimedTranscript
from beam_asr.outputs.shards import numbered
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import join


class FieldKeys(NamedTuple):
    """Names the fields of a record that hold the audio, the text, the language and the channel."""

    audio: str = "audio_filepath"
    text: str = "pred_text"
    language: str = "lang"
    channel: str = "channel"


@dataclass(frozen=True, kw_only=True)
class Format(ABC):
    """Describes a format of output files, in a folder of its name.

    Attributes:
        name: the name, as the setting `formats` takes it.
        extension: the extension of its files, without the dot.
        needs_words: whether it needs the times of words.
        needs_origin: whether it needs to know the manifest that each row comes from.
    """

    name: str
    extension: str
    needs_words: bool = False
    needs_origin: bool = False

    @abstractmethod
    def is_own(self, file_name: str) -> bool:
        """Returns whether a file in its folder has a name that only this format uses."""


@dataclass(frozen=True, kw_only=True)
class TranscriptFormat(Format):
    """Describes a format with a file for each transcript.

    Attributes:
        render: returns the content of a file. A transcript without words makes a valid file too.
    """

    needs_words: bool = True
    render: Callable[[TimedTranscript], str]

    def is_own(self, file_name: str) -> bool:
        # Files with a plain name may be somebody else's: `exports_index` knows those of the job.
        name = self.name_in(file_name)
        return name is not None and HASHED.fullmatch(name) is not None

    def name_in(self, file_name: str) -> str | None:
        """Returns the name in that of a file, as `path` takes it; None with another extension."""
        name = file_name.removesuffix(f".{self.extension}")
        return None if name == file_name else name

    def path(self, name: str) -> str:
        """Returns the path of a transcript's file, relative to the output folder."""
        return join(self.name, f"{name}.{self.extension}")


@dataclass(frozen=True, kw_only=True)
class NumberedFormat(Format):
    """Describes a format with numbered files, as shards: ``STEM-00000-of-00001.EXTENSION``."""

    stem: str

    def path(self, shard: int, shards: int, part: int = 0) -> str:
        """Returns the path of a shard's file, relative to the output folder.

        Args:
            part: the number of the run, of those that append; 0 for the first.
        """
        return join(self.name, f"{numbered(self.stem, shard, shards, part)}.{self.extension}")

    def is_own(self, file_name: str) -> bool:
        return self.part_of(file_name) is not None

    def part_of(self, file_name: str) -> int | None:
        """Returns the number of the run that has written a file; None if its name is another."""
        pattern = (
            rf"{re.escape(self.stem)}(?:-append(\d{{5}}))?-\d{{5}}-of-\d{{5}}"
            rf"\.{re.escape(self.extension)}"
        )
        match = re.fullmatch(pattern, file_name)
        return None if match is None else int(match[1] or 0)


@dataclass(frozen=True, kw_only=True)
class ShardFormat(NumberedFormat):
    """Describes a format with a file for each shard of transcripts.

    Attributes:
        stem: what the names of its files begin with.
        encode_shard: returns the content of a file from the lines of a shard of transcripts:
            records as JSON. The same lines yield the same bytes, in every attempt.
    """

    encode_shard: Callable[[Iterable[bytes], FieldKeys], Iterable[bytes]]


class FormatLine(NamedTuple):
    """Holds the line of a record in a `LineFormat`.

    Attributes:
        line: the line with its end; None if the record has none.
        left_out: why the record is not used, for the summary; empty if it is used.
        shard: in a tarred data set, the number of the line's tar; else None.
    """

    line: bytes | None
    left_out: str = ""
    shard: int | None = None


@dataclass(frozen=True, kw_only=True)
class LineFormat(NumberedFormat):
    """Describes a format whose files hold its own lines, in its own shards.

    ``summary.json`` counts the lines under the format's name.

    Attributes:
        stem: what the names of its files begin with.
        in_one_file: whether all lines of a run are in one file, whatever their number.
    """

    in_one_file: bool = False

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
            manifest: path or URI of the manifest that the row comes from; empty if unknown.
            tarred: whether the rows are those of a NeMo tarred data set. Then failures and
                filtered rows get lines too.
            transcribed: whether the record is a transcript, and neither of those.
        """

    def encode_lines(self, lines: Iterable[bytes]) -> Iterable[bytes]:
        """Returns the content of a file from its lines, which can be iterated more than once."""
        return lines

    def counted(self, reasons: Counter[str]) -> Counter[str]:
        """Returns the numbers of a run's records, by why they are omitted; "" is for the others.

        Args:
            reasons: the same, by the ``left_out`` of each `FormatLine`.
        """
        return reasons

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
        """Writes the files without lines, so that a reader finds a complete folder.

        Args:
            folder: the output folder.
            written: the paths of the existing files, relative to the output folder.
            tarred: whether the rows are those of a NeMo tarred data set.
            tars_without_rows: the number of tars of the data set without rows.
        """


@dataclass(frozen=True, kw_only=True)
class ReviewFormat(LineFormat):
    """Describes a format for a program that opens the files of the audio, so none of a tar."""

    needs_origin: bool = True

    def path_of_tar(self, number: int) -> str:
        raise NotImplementedError(f"{self.name} is not written of tar {number}")

    def finish(
        self,
        storage: Storage,
        folder: str,
        written: set[str],
        tarred: bool,  # noqa: ARG002
        tars_without_rows: int,  # noqa: ARG002
    ) -> None:
        """Writes a file without lines if there is no other."""
        if not written:
            storage.write(join(folder, self.path(0, 1)), self.encode_lines([]))
