"""Turns transcripts into documents, as a PTransform."""

from __future__ import annotations

from typing import Any

import apache_beam as beam
from apache_beam import coders
from apache_beam.pvalue import PCollection

from beam_asr.outputs.formats.documents import Document, to_document
from beam_asr.records.record import Record, Transcript, to_record, with_duration
from beam_asr.transforms.results import Transcribed

# It gives a PCollection of documents a schema, as SqlTransform, Select and WriteToParquet need.
coders.registry.register_coder(Document, coders.RowCoder)


class ToDocuments(beam.PTransform):
    """Makes each transcript a `Document`, as NeMo Curator's ``AudioToDocumentStage`` does.

    Takes the transcripts of a ``Transcribed``, or any PCollection of transcripts. Returns one
    document for each, also for one without text.

    Args:
        filepath_key: the field of the audio.
        pred_text_key: the field of the text.
        lang_key: the field of the language.
    """

    def __init__(
        self,
        filepath_key: str = "audio_filepath",
        pred_text_key: str = "pred_text",
        lang_key: str = "lang",
    ):
        super().__init__()
        self._keys = (filepath_key, pred_text_key, lang_key)

    def expand(self, records: Transcribed | PCollection[dict[str, Any]]) -> PCollection[Document]:
        if isinstance(records, Transcribed):
            records = records.typed.transcripts
        documents = beam.Map(_to_document, *self._keys).with_output_types(Document)
        return records | "ToDocument" >> documents


def _to_document(transcript: Transcript | Record, *keys: str) -> Document:
    return to_document(to_record(with_duration(transcript)), *keys)
