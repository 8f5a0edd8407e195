"""Audio files that are inputs themselves: a row each."""

from __future__ import annotations

from collections.abc import Iterator

from beam_asr.inputs.readers import FileRange, Reader
from beam_asr.records.row import Row
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import AUDIO_EXTENSIONS


def read_file(
    storage: Storage,  # noqa: ARG001
    piece: FileRange,
    filepath_key: str,
) -> Iterator[Row]:
    """Gives the row of an audio file, which is not opened."""
    yield Row.of({filepath_key: piece.file})


READER = Reader(suffixes=AUDIO_EXTENSIONS, read=read_file, is_row=True)
