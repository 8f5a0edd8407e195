"""Transcripts to documents: a PTransform."""

from __future__ import annotations

from typing import Any

import apache_beam as beam
from apache_beam import coders
from apache_beam.pvalue import PCollection

from beam_asr.outputs.formats.documents import Document, to_document
from beam_asr.records.record import Record, Transcript, to_record, with_duration
from beam_asr.transforms.results import Transcribed

# By this a PCollection of documents has a schema: SqlTransform, Select, WriteToParquet, ...
coders.registry.register_coder(Document, coders.RowCoder)


class ToDocuments(beam.PTransform):
    """Makes each transcript a `Document`, as NeMo Curator's ``AudioToDocumentStage`` does.

    Takes what `Transcribe` gives, of which it takes the transcripts, or any PCollection of them.
    Gives one document for each, also for one without text.

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
        made = beam.Map(_to_document, *self._keys).with_output_types(Document)
        return records | "ToDocument" >> made


def _to_document(transcript: Transcript | Record, *keys: str) -> Document:
    return to_document(to_record(with_duration(transcript)), *keys)
