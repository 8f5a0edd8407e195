"""Transcripts as lines of a manifest that NeMo trains on, with what was heard as their text.

NeMo 3.0.0 reads such manifests by Lhotse (``LazyNeMoIterator`` and ``LazyNeMoTarredIterator`` in
``nemo/collections/common/data/lhotse/nemo_adapters.py``), which need ``audio_filepath``,
``duration`` and ``text``, and of a tarred set ``shard_id``, and pass over lines with ``_skipme``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from beam_asr.outputs import shards
from beam_asr.records import fields as record_fields
from beam_asr.records import parsing
from beam_asr.records.fields import is_float, is_integer, is_text
from beam_asr.storage import patterns, uris

# Why a row is left out.
NO_TEXT = "no_text"
NO_DURATION = "no_duration"
NO_FILE = "no_file"
NO_SHARD = "no_shard"
PARTIAL = "partial"
SKIPPED = "skipped"

SKIP = "_skipme"
REFERENCE = "reference"
# Of a cut of Lhotse's: what says where its audio is, which the line says in NeMo's way.
OF_CUTS = frozenset("type id start channel recording supervisions features".split())
RATES = ("sampling_rate", "sample_rate")


class Label(NamedTuple):
    """What becomes of a transcript.

    Attributes:
        line: of the manifest, with its end; None if it has none.
        left_out: why nothing is learnt from it; empty if it is trained on.
        shard: in a tarred set, the number of the tar that it is about; else None.
    """

    line: bytes | None
    left_out: str = ""
    shard: int | None = None


def label(
    record: Mapping[str, Any],
    filepath_key: str = "audio_filepath",
    pred_text_key: str = "pred_text",
    manifest_path: str = "",
) -> Label:
    """The line of a transcript whose audio is a file of its own.

    ``audio_filepath`` is absolute, or a URI; ``text`` is what was heard, and the row's own ``text``
    its ``reference``, unless it has a field of that name. The row's other fields follow; those that
    the job has made do not.

    There is always an ``offset``, for without one NeMo reads the whole file whatever the
    ``duration``. Then there is no ``sampling_rate``: NeMo would take the file to be as long as the
    ``duration``. Only a row that has that rate and no offset, and so is a whole file, stays so.

    Left out is a row without text (`NO_TEXT`) or duration (`NO_DURATION`), one of which segments
    failed (`PARTIAL`), whose audio is in an archive or in the row itself (`NO_FILE`), or that says
    ``_skipme`` (`SKIPPED`).

    Args:
        record: a row with its text, as `Transcribe` gives it; its ``duration`` may be measured.
        filepath_key: the field of the audio.
        pred_text_key: the field of the text.
        manifest_path: path or URI of the manifest that the row comes from; without it a relative
            path is one of the working folder, as for the job.
    """
    fields = _fields(record, filepath_key, pred_text_key)
    audio = fields["audio_filepath"]
    if not audio or "::" in audio or audio.startswith("data:"):
        return Label(None, NO_FILE)
    if problem := _problem(record, fields):
        return Label(None, problem)
    fields["audio_filepath"] = _located(audio, manifest_path)
    rate = fields.get("sampling_rate", fields.get("sample_rate"))
    if fields["offset"] is None and type(rate) is int and rate > 0:
        del fields["offset"]
    else:
        fields = {key: value for key, value in fields.items() if key not in RATES}
        fields["offset"] = fields["offset"] or 0.0
    return Label(shards.encode(fields))


def tarred_label(
    record: Mapping[str, Any],
    filepath_key: str = "audio_filepath",
    pred_text_key: str = "pred_text",
    manifest_path: str = "",
) -> Label:
    """The line of a transcript of a tarred set of NeMo's, or of a row of it that has none.

    As `label`, but ``audio_filepath`` stays the name in the tar, and ``shard_id`` is the tar's
    number. NeMo stops at a file in a tar of which the manifest says nothing, unless it is told
    ``skip_missing_manifest_entries=true``. So a row that is left out has a line too, with
    ``_skipme``; give this function the failures and the filtered rows as well. Without a line is
    what names no file (`NO_FILE`), or no tar (`NO_SHARD`).

    Args:
        manifest_path: path or URI of the manifest that the row comes from, whose name has the tar's
            number if the row has no ``shard_id``.
    """
    fields = _fields(record, filepath_key, pred_text_key)
    if not fields["audio_filepath"]:
        return Label(None, NO_FILE)
    shard = record.get("shard_id")
    if not is_integer(shard):
        shard = patterns.shard_number(manifest_path)
    if shard is None:
        return Label(None, NO_SHARD)
    if not fields["offset"]:
        del fields["offset"]
    if problem := _problem(record, fields):
        kept = {"audio_filepath", "offset", "duration"}
        fields = {key: value for key, value in fields.items() if key in kept and value is not None}
        line = shards.encode({**fields, "text": "", "shard_id": shard, SKIP: True})
        return Label(line, problem, shard)
    return Label(shards.encode({**fields, "shard_id": shard}), shard=shard)


def _fields(record: Mapping[str, Any], filepath_key: str, pred_text_key: str) -> dict[str, Any]:
    """The fields of a line; what the row does not say is None, or of texts empty."""
    own = record_fields.input_fields(record, pred_text_key)
    audio, offset, duration = own.pop(filepath_key, None), own.pop("offset", None), None
    if cut := record_fields.cut_audio(record, filepath_key):
        audio, offset, duration = cut.audio, cut.offset, cut.duration
        own = {key: value for key, value in own.items() if key not in OF_CUTS}
    elif is_float(own.get("duration")):
        duration = own["duration"]
    reference = own.pop("text", None)
    text = record.get(pred_text_key)
    made = {
        "audio_filepath": audio if is_text(audio) else "",
        "offset": offset if is_float(offset) else None,
        "duration": duration,
        "text": text if is_text(text) else "",
    }
    kept = {key: value for key, value in own.items() if key not in made}
    if reference is not None:
        kept.setdefault(REFERENCE, reference)
    return {**made, **kept}


def _problem(record: Mapping[str, Any], fields: Mapping[str, Any]) -> str:
    """Why a row cannot be trained on; empty if it can."""
    if fields.get(SKIP):
        return SKIPPED
    if "segments_failed" in record:
        return PARTIAL
    if not fields["text"].strip():
        return NO_TEXT
    if not fields["duration"]:
        return NO_DURATION
    return ""


def _located(audio: str, manifest_path: str) -> str:
    """Where audio is, whatever the folder of the manifest that is written."""
    found = parsing.resolve(audio, manifest_path)
    if not uris.is_local(found):
        return found
    return os.path.abspath(uris.local_path(found))
