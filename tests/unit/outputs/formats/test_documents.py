"""Documents: what becomes of each field, ids, and pipelines that work on them."""

import json

import apache_beam as beam
import pyarrow.parquet as pq
import pytest
from apache_beam.coders import RowCoder, registry
from apache_beam.portability.api import schema_pb2
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.typehints.schemas import schema_from_element_type
from hypothesis import given
from hypothesis import strategies as st

from beam_asr.outputs.formats.documents import Document, to_document, to_line
from beam_asr.transforms.results import Transcribed
from beam_asr.transforms.to_documents import ToDocuments

RECORD = {
    "audio_filepath": "gs://b/a.flac",
    "duration": 3,
    "text": "the reference",
    "lang": "cs",
    "speaker": {"name": "Řehoř"},
    "pred_text": "co slyšel",
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
HALF = "\ud800"  # of a surrogate pair


def test_each_field_has_its_place():
    document = to_document({**RECORD, "model": "m", "wer": 0.5})
    assert document[1:6] == ("co slyšel", "gs://b/a.flac", "cs", 3.0, "m")
    rest = {"text": "the reference", "speaker": {"name": "Řehoř"}, "wer": 0.5}
    assert json.loads(document.metadata) == rest
    assert "Řehoř" in document.metadata


def test_names_of_fields_are_those_that_were_requested():
    record = {
        "path": "a.wav",
        "recognized": "yes",
        "language": "en",
        "pred_text": "no",
        "lang": "de",
    }
    document = to_document(record, "path", "recognized", "language")
    assert (document.source, document.text, document.language) == ("a.wav", "yes", "en")
    assert json.loads(document.metadata) == {"pred_text": "no", "lang": "de"}


def test_an_id_is_that_of_the_row_whatever_was_made_of_it():
    first = to_document(RECORD).id
    words = [{"word": "a", "start": 0.0, "end": 0.1}]
    other = {**dict(reversed(RECORD.items())), "pred_text": "another", "words": words, "wer": 1.0}
    assert to_document(other).id == first
    assert to_document({**RECORD, "offset": 1.0}).id != first
    assert to_document({**RECORD, "audio_filepath": "gs://b/b.flac"}).id != first
    assert len(first) == 24


@pytest.mark.parametrize(
    ("field", "value"),
    [("lang", 5), ("lang", HALF), ("duration", "3"), ("duration", 10**400), ("model", [1])],
)
def test_a_value_that_does_not_fit_is_metadata(field, value):
    document = to_document({**RECORD, field: value})
    assert getattr(document, {"lang": "language"}.get(field, field)) is None
    assert json.loads(document.metadata)[field] == value


def test_half_of_a_surrogate_pair_does_not_break_a_document():
    document = to_document({**RECORD, "audio_filepath": HALF, "pred_text": f"a{HALF}"})
    assert (document.source, document.text) == ("?", "a?")
    assert json.loads(document.metadata)["audio_filepath"] == HALF


def test_a_cut_is_named_by_its_audio():
    source = {"type": "file", "channels": [0], "source": "/a.wav"}
    cut = {"type": "MonoCut", "id": "c", "start": 1.0, "duration": 2.0, "channel": 0}
    document = to_document({**cut, "recording": {"sources": [source]}, "pred_text": "yes"})
    assert (document.source, document.duration) == ("/a.wav", 2.0)
    assert json.loads(document.metadata)["start"] == 1.0


@given(st.dictionaries(st.sampled_from([*RECORD, "model", "words", "other"]), JSON))
def test_any_record_is_a_document_that_a_coder_and_a_file_can_hold(record):
    document = to_document(record)
    coder = registry.get_coder(Document)
    assert isinstance(coder, RowCoder)
    assert Document(*coder.decode(coder.encode(document))) == document
    assert json.loads(to_line(record)) == document._asdict()
    taken = {"pred_text", "audio_filepath", "lang", "duration", "model"}
    rest = json.loads(document.metadata)
    assert {key: record[key] for key in record.keys() - taken} == {
        key: rest[key] for key in rest.keys() - taken
    }


def test_the_schema_has_types_that_other_languages_know():
    schema = schema_from_element_type(Document)
    types = {each.name: (each.type.atomic_type, each.type.nullable) for each in schema.fields}
    text, number = schema_pb2.STRING, schema_pb2.DOUBLE
    nullable = {"language": (text, True), "duration": (number, True), "model": (text, True)}
    assert types == {**dict.fromkeys(Document._fields, (text, False)), **nullable}


def test_a_pipeline_counts_words():
    records = [{**RECORD, "pred_text": text} for text in ("one two", "two", "")]
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        documents = pipeline | beam.Create(records) | ToDocuments()
        words = documents | beam.FlatMap(lambda document: document.text.split())
        counts = words | beam.combiners.Count.PerElement()
        assert_that(documents | beam.combiners.Count.Globally(), equal_to([3]), "Documents")
        assert_that(counts, equal_to([("one", 1), ("two", 2)]), "Words")


def test_documents_have_a_schema_and_come_from_what_transcribe_gives(tmp_path):
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        transcripts = pipeline | beam.Create([RECORD])
        others = [pipeline | name >> beam.Create([]) for name in Transcribed._fields[1:]]
        documents = Transcribed(transcripts, *others) | ToDocuments()
        documents | beam.io.WriteToParquet(str(tmp_path / "documents"))
        chosen = documents | beam.Select("text", "language", seconds=lambda each: each.duration)
        shown = chosen | beam.Map(lambda row: (row.text, row.language, row.seconds))
        assert_that(shown, equal_to([("co slyšel", "cs", 3.0)]))
    (file,) = tmp_path.iterdir()
    assert pq.read_table(file).to_pylist() == [to_document(RECORD)._asdict()]
