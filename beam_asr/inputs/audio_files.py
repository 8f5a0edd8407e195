"""Makes a row of each audio file that is itself an input."""

from __future__ import annotations

from collections.abc import Iterator

from beam_asr.inputs.readers import FileRange, Reader
from beam_asr.records.row import Row
from beam_asr.storage.file_kinds import AUDIO_EXTENSIONS
from beam_asr.storage.storage import Storage


def read_file(
    storage: Storage,  # noqa: ARG001
    file_range: FileRange,
    filepath_key: str,
) -> Iterator[Row]:
    """Yields the row of an audio file, which is not opened."""
    yield Row.of({filepath_key: file_range.file})


READER = Reader(suffixes=AUDIO_EXTENSIONS, read=read_file, is_row=True)
