"""BigQuery without BigQuery: rows fit the schema by Beam's and Google's own tools, graphs build."""

import io
import json
import subprocess
import sys

import apache_beam as beam
import fastavro
import pytest
from apache_beam.io.gcp import bigquery_tools
from apache_beam.options.pipeline_options import PipelineOptions
from google.cloud.bigquery import SchemaField
from hypothesis import given
from hypothesis import strategies as st

from beam_asr.outputs.formats.table import columns, row_of
from beam_asr.transforms.bigquery import WriteTranscriptsToBigQuery, table_row, table_schema
from tests.support.result_records import FULL, JSON, PLAIN


def by_avro(row: dict) -> dict:
    """A row, written as file loads in Avro write it, and read again."""
    file = io.BytesIO()
    writer = bigquery_tools.AvroRowWriter(file, table_schema())
    writer.write(row)
    writer.flush()
    file.seek(0)
    return next(fastavro.reader(file))


def by_json(row: dict) -> dict:
    """A row, written as file loads and streaming inserts in JSON write it, and read again."""
    coder = bigquery_tools.RowAsDictJsonCoder()
    return coder.decode(coder.encode(row))


@pytest.mark.parametrize("record", [PLAIN, FULL])
def test_a_row_is_that_of_the_table_with_empty_lists(record):
    row = table_row(record)
    lists = [column.name for column in columns() if column.kind == "list"]
    assert row == {**row_of(record), **{name: row_of(record)[name] or [] for name in lists}}
    assert by_avro(row) == by_json(row) == row


@given(st.dictionaries(st.sampled_from([*FULL, "other_fields", "x"]), JSON))
def test_any_record_is_a_row_that_fits_the_schema(record):
    row = table_row(record)
    assert by_avro(row) == by_json(row) == row


def test_google_takes_the_schema():
    fields = [SchemaField.from_api_repr(field) for field in table_schema()["fields"]]
    assert [field.name for field in fields] == [column.name for column in columns()]
    words = next(field for field in fields if field.name == "words")
    assert (words.field_type, words.mode) == ("RECORD", "REPEATED")
    assert [field.name for field in words.fields] == ["word", "start", "end", "confidence"]
    schema = bigquery_tools.parse_table_schema_from_json(json.dumps(table_schema()))
    assert bigquery_tools.table_schema_to_dict(schema).keys() == {"fields"}


@pytest.mark.parametrize(
    ("method", "write_disposition", "step"),
    [
        ("FILE_LOADS", "WRITE_TRUNCATE", "TriggerLoadJobs"),
        ("STREAMING_INSERTS", "WRITE_APPEND", "StreamInsertRows"),
    ],
)
def test_a_graph_is_built(method, write_disposition, step):
    options = PipelineOptions(project="p", temp_location="gs://b/temp")
    pipeline = beam.Pipeline(options=options)
    write = WriteTranscriptsToBigQuery("d.t", write_disposition=write_disposition, method=method)
    pipeline | beam.Create([PLAIN]) | write
    graph = pipeline.to_runner_api(use_fake_coders=True)
    names = [each.unique_name for each in graph.components.transforms.values()]
    assert any("WriteTranscriptsToBigQuery/ToRow" in name for name in names)
    assert any(step in name for name in names)


def test_a_wrong_disposition_is_refused_at_once():
    with pytest.raises(ValueError, match="WRITE_OVER"):
        WriteTranscriptsToBigQuery("d.t", write_disposition="WRITE_OVER")


def test_without_googles_packages_the_error_names_what_to_install():
    program = """
import sys
sys.modules["google.cloud.bigquery"] = None
from beam_asr.transforms.bigquery import WriteTranscriptsToBigQuery
try:
    WriteTranscriptsToBigQuery("d.t")
except ImportError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "pip install 'beam-asr[gcp]'" in run.stdout, run.stderr
