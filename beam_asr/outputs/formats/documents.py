"""Turns transcripts into documents: a text, its source, and all other fields as metadata."""

# Beam reads the types of a schema as objects, so `from __future__ import annotations`, which makes
# them text, is not used; and it reads a type that may be None as Optional only. Any other type
# silently becomes its type of anything.
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Optional

from beam_asr.outputs import shards
from beam_asr.outputs.formats.base import FieldKeys, ShardFormat
from beam_asr.records import fields, json_numbers, row_ids
from beam_asr.records.fields import as_json, as_unicode, is_float, is_text
from beam_asr.transcripts.job_fields import input_fields


class Document(NamedTuple):
    """Holds a transcript for pipelines that work on texts.

    Attributes:
        id: 24 hexadecimal digits: a hash of the row's input fields. It is the same in every run,
            whatever model transcribes the row and whatever is requested beside its text. Equal rows
            share an id; so do equal rows of two manifests with a relative path. A ``duration`` that
            the job has measured counts as the row's.
        text: the recognized text; empty without speech.
        source: path or URI of the audio, as the row has it.
        language: the row's language, or None.
        duration: the length of the row's audio, in seconds, or None if the row has none.
        model: which of several models transcribed the row; None if there was only one.
        metadata: all other fields of the record, unchanged, as a JSON object.
    """

    id: str
    text: str
    source: str
    language: Optional[str]  # noqa: UP045
    duration: Optional[float]  # noqa: UP045
    model: Optional[str]  # noqa: UP045
    metadata: str


def to_document(
    record: Mapping[str, Any],
    filepath_key: str = "audio_filepath",
    pred_text_key: str = "pred_text",
    lang_key: str = "lang",
) -> Document:
    """Returns the document of a transcript.

    A field whose value has another type than the document's (a ``lang`` of 5), or that UTF-8 cannot
    encode, is among the metadata, unchanged.

    Args:
        record: a row with its text, as `Transcribe` returns it.
        filepath_key: the field of the audio.
        pred_text_key: the field of the text.
        lang_key: the field of the language.
    """
    remaining = dict(record)

    def take(key: str, fits: Callable[[Any], bool]) -> Any:
        return remaining.pop(key) if fits(remaining.get(key)) else None

    row_fields = input_fields(record, pred_text_key)
    text = _encodable(take(pred_text_key, is_text), record.get(pred_text_key))
    cut = fields.cut_audio(record, filepath_key)
    source = cut.audio if cut else take(filepath_key, is_text)
    source = _encodable(source, record.get(filepath_key))
    duration = take("duration", is_float)
    return Document(
        id=row_ids.group_of(row_fields, source),
        text=text,
        source=source,
        language=take(lang_key, is_text),
        duration=None if duration is None else float(duration),
        model=take("model", is_text),
        metadata=as_json(remaining),
    )


def to_line(
    record: Mapping[str, Any],
    filepath_key: str = "audio_filepath",
    pred_text_key: str = "pred_text",
    lang_key: str = "lang",
) -> bytes:
    """Returns the document of a transcript as a line of JSON, always with the same seven fields.

    ``metadata`` is text here too, so that readers that infer a schema always find the same one.
    """
    document = to_document(record, filepath_key, pred_text_key, lang_key)
    return shards.encode(document._asdict())


def encode_shard(lines: Iterable[bytes], keys: FieldKeys) -> Iterator[bytes]:
    """Encodes the transcripts of a shard as lines of documents."""
    for line in lines:
        yield to_line(json_numbers.loads(line), keys.audio, keys.text, keys.language)


def _encodable(value: str | None, otherwise: Any) -> str:
    """Returns a text; without one, what UTF-8 can encode of another value that is text."""
    if value is not None:
        return value
    return as_unicode(otherwise) if isinstance(otherwise, str) else ""


FORMAT = ShardFormat(
    name="documents", extension="jsonl", stem="documents", encode_shard=encode_shard
)
