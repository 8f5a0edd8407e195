"""Writes transcripts to a BigQuery table, as a PTransform, and defines the table's schema."""

from __future__ import annotations

from typing import Any

import apache_beam as beam
from apache_beam.pvalue import PCollection

from beam_asr.outputs.formats.table import Column, columns, row_of
from beam_asr.records.record import Record, Transcript, to_record, with_duration
from beam_asr.transforms.results import Transcribed

TYPES = {"string": "STRING", "double": "FLOAT", "int64": "INTEGER", "bool": "BOOLEAN"}


def table_schema() -> dict[str, Any]:
    """Returns the table's schema: the columns of Parquet, with lists as REPEATED RECORDs."""
    return {"fields": [_field(column) for column in columns()]}


def table_row(
    record: dict[str, Any],
    filepath_key: str = "audio_filepath",
    pred_text_key: str = "pred_text",
) -> dict[str, Any]:
    """Returns a transcript as a row of the table, which has empty lists instead of null ones.

    The arguments are those of `table.row_of`.
    """
    row = row_of(record, filepath_key, pred_text_key)
    for column in columns():
        if column.kind == "list" and row[column.name] is None:
            row[column.name] = []
    return row


class WriteTranscriptsToBigQuery(beam.PTransform):
    """Writes transcripts into a table by Beam's ``WriteToBigQuery``, whose result it returns.

    Takes the transcripts of a ``Transcribed``, or any PCollection of transcripts.

    Args:
        table: ``PROJECT:DATASET.TABLE`` or ``DATASET.TABLE``.
        filepath_key: the field of the audio.
        pred_text_key: the field of the text.
        create_disposition: ``CREATE_IF_NEEDED`` or ``CREATE_NEVER``.
        write_disposition: ``WRITE_APPEND``, ``WRITE_TRUNCATE`` or ``WRITE_EMPTY``.
        options: other arguments of ``WriteToBigQuery``, such as ``method`` or
            ``custom_gcs_temp_location``.

    Raises:
        ImportError: Beam's packages for Google Cloud are not installed.
        ValueError: a disposition, or the table's name, is invalid.
    """

    def __init__(
        self,
        table: str,
        filepath_key: str = "audio_filepath",
        pred_text_key: str = "pred_text",
        create_disposition: str = "CREATE_IF_NEEDED",
        write_disposition: str = "WRITE_APPEND",
        **options: Any,
    ):
        super().__init__()
        self._keys = (filepath_key, pred_text_key)
        self._write = _write_to_bigquery()(
            table,
            schema=table_schema(),
            create_disposition=create_disposition,
            write_disposition=write_disposition,
            **options,
        )

    def expand(self, records: Transcribed | PCollection[dict[str, Any]]) -> Any:
        if isinstance(records, Transcribed):
            records = records.typed.transcripts
        return records | "ToRow" >> beam.Map(_to_row, *self._keys) | "Write" >> self._write


def _to_row(transcript: Transcript | Record, *keys: str) -> dict[str, Any]:
    return table_row(to_record(with_duration(transcript)), *keys)


def _write_to_bigquery() -> Any:
    try:
        # Without this package Beam's module imports too, and fails when the pipeline is built.
        import google.cloud.bigquery  # noqa: F401
        from apache_beam.io.gcp.bigquery import WriteToBigQuery
    except ImportError as error:
        raise ImportError(
            f"BigQuery needs a package that is not installed ({error}): pip install 'beam-asr[gcp]'"
        ) from error
    return WriteToBigQuery


def _field(column: Column) -> dict[str, Any]:
    field: dict[str, Any] = {"name": column.name, "description": column.description}
    if column.kind == "list":
        fields = [_field(inner) for inner in column.fields]
        return {**field, "type": "RECORD", "mode": "REPEATED", "fields": fields}
    return {**field, "type": TYPES[column.kind], "mode": "NULLABLE"}
