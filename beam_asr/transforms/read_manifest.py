"""Inputs to rows: a PTransform."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import PCollection

from beam_asr.errors import SetupError
from beam_asr.inputs import discovery, readers
from beam_asr.inputs.readers import FileRange
from beam_asr.records.row import Row
from beam_asr.records.work import WebDatasetTar
from beam_asr.storage import patterns
from beam_asr.storage.storage import Storage
from beam_asr.transforms import streaming


class ReadManifest(beam.PTransform):
    """Reads the rows of manifests and tables; finds audio files, and tars of them.

    Rows are not judged here: a line that is not right is a row too, which ``Transcribe`` fails.

    Args:
        pattern: path, URI, glob, folder or brace expansion (``manifest__OP_0..127_CL_.json``,
            ``m_{0..127}.json``), or several, also as one comma-separated string. ``.csv``,
            ``.tsv`` and ``.parquet`` are tables whose columns are the fields; ``.tar`` is a
            WebDataset; audio files (``bucket/audio/**/*.flac``), and those of a folder, are a row
            each; anything else holds one JSON object a line. ``.gz``, ``.bz2``, ``.xz`` and
            ``.zst`` are decompressed.
        filepath_key: the field that names the audio, in the rows made of audio files.
        storage_options: for each protocol what its fsspec file system is opened with.
        watch: seconds between two looks for new files, for ever; None looks once. A row's time is
            then that at which its file was found. The rows of Pub/Sub messages
            (``pubsub://projects/PROJECT/subscriptions/NAME``) have no end either.
        resumed: with ``watch``, an output folder, of whose whole windows the files are left out.

    Raises:
        SetupError: an input is empty, or Pub/Sub is not alone.
    """

    def __init__(
        self,
        pattern: str | Iterable[str],
        filepath_key: str = "audio_filepath",
        storage_options: Mapping[str, Mapping[str, Any]] | None = None,
        watch: float | None = None,
        resumed: str | None = None,
    ):
        super().__init__()
        self._filepath_key = filepath_key
        self._storage = Storage(storage_options or {})
        several = [pattern] if isinstance(pattern, str) else list(pattern)
        self._patterns = [part for each in several for part in patterns.split_commas(each)]
        if not all(self._patterns):
            raise SetupError(f"the input {pattern!r} holds an empty path")
        self._watch = watch
        self._resumed = resumed
        self._messages = [
            streaming.ReadPubSub(each) for each in self._patterns if streaming.is_pubsub(each)
        ]
        if self._messages and len(self._patterns) > 1:
            raise SetupError(f"the input {pattern!r} is more than one topic or subscription")

    def expand(self, pbegin: Any) -> PCollection[Row | WebDatasetTar]:
        if self._messages:
            return pbegin | "PubSub" >> self._messages[0]
        named = pbegin | "Patterns" >> beam.Create(self._patterns, reshuffle=False)
        if self._watch is None:
            files = named | "FindFiles" >> beam.FlatMap(_files_of, self._storage).with_output_types(
                str
            )
        else:
            files = named | "WatchFiles" >> streaming.WatchFiles(
                self._storage, self._watch, self._resumed
            )
        return (
            files
            | "SpreadFiles" >> beam.Reshuffle()
            | "Split" >> beam.FlatMap(_pieces_of, self._storage).with_output_types(FileRange)
            | "SpreadPieces" >> beam.Reshuffle()
            | "ReadRows"
            >> beam.FlatMap(_rows_of, self._storage, self._filepath_key).with_output_types(
                Row | WebDatasetTar
            )
        )


def _files_of(pattern: str, storage: Storage) -> list[str]:
    return discovery.find_files(storage, pattern)


def _pieces_of(file: str, storage: Storage) -> list[FileRange]:
    return readers.split_file(storage, file)


def _rows_of(
    piece: FileRange, storage: Storage, filepath_key: str
) -> Iterator[Row | WebDatasetTar]:
    return readers.read_rows(storage, piece, filepath_key)
