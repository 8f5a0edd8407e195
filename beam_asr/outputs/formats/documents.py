"""Transcripts as documents: a text, where it comes from, and all else beside it."""

# Beam takes the types of a schema as they stand: not as text, which __future__ would make them, and
# of what may be None as Optional alone. All others silently become its type for anything.
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Optional

from beam_asr.outputs import shards
from beam_asr.records import fields, row_ids
from beam_asr.records.fields import as_json, as_unicode, is_float, is_text


class Document(NamedTuple):
    """A transcript for pipelines that work on texts.

    Attributes:
        id: 24 hexadecimal digits: a hash of the row's own fields. It is the same in every run,
            whatever model transcribes the row and whatever is asked for beside its text. Equal rows
            share one; so do rows of two manifests that say the same of a relative path. A
            ``duration`` that the job has measured counts as the row's.
        text: what was heard; empty where nobody speaks.
        source: path or URI of the audio, as the row has it.
        language: of the row, or None.
        duration: of the row's audio, in seconds, or None if the row does not say.
        model: which of several models transcribed the row; None if there was one.
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
    """The document of a transcript.

    A field whose value is of another type than the document's (a ``lang`` of 5), or that no UTF-8
    can hold, is among the metadata, as it is.

    Args:
        record: a row with its text, as `Transcribe` gives it.
        filepath_key: the field of the audio.
        pred_text_key: the field of the text.
        lang_key: the field of the language.
    """
    left = dict(record)

    def taken(key: str, fits: Callable[[Any], bool]) -> Any:
        return left.pop(key) if fits(left.get(key)) else None

    own = fields.input_fields(record, pred_text_key)
    text = _shown(taken(pred_text_key, is_text), record.get(pred_text_key))
    cut = fields.cut_audio(record, filepath_key)
    source = cut.audio if cut else taken(filepath_key, is_text)
    source = _shown(source, record.get(filepath_key))
    duration = taken("duration", is_float)
    return Document(
        id=row_ids.group_of(own, source),
        text=text,
        source=source,
        language=taken(lang_key, is_text),
        duration=None if duration is None else float(duration),
        model=taken("model", is_text),
        metadata=as_json(left),
    )


def to_line(
    record: Mapping[str, Any],
    filepath_key: str = "audio_filepath",
    pred_text_key: str = "pred_text",
    lang_key: str = "lang",
) -> bytes:
    """The document of a transcript as a line of JSON, of the same seven fields in every file.

    ``metadata`` is text here too, so that readers which infer a schema find one and the same.
    """
    document = to_document(record, filepath_key, pred_text_key, lang_key)
    return shards.encode(document._asdict())


def _shown(value: str | None, otherwise: Any) -> str:
    """A text; if there is none that fits, what of another one UTF-8 can hold."""
    if value is not None:
        return value
    return as_unicode(otherwise) if isinstance(otherwise, str) else ""
