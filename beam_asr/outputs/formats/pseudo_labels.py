"""Turns transcripts into lines of a manifest that NeMo trains on, with the recognized text.

NeMo 3.0.0 reads such manifests by Lhotse (``LazyNeMoIterator`` and ``LazyNeMoTarredIterator`` in
``nemo/collections/common/data/lhotse/nemo_adapters.py``), which need ``audio_filepath``,
``duration`` and ``text``, in a tarred data set ``shard_id``, and skip lines with ``_skipme``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from beam_asr.outputs import shards
from beam_asr.outputs.formats.base import FormatLine
from beam_asr.records import parsing
from beam_asr.records.channels import has_one_of_several
from beam_asr.records.fields import cut_audio, is_float, is_integer, is_text
from beam_asr.storage import patterns, uris
from beam_asr.transcripts.job_fields import input_fields

# Why a row is omitted.
NO_TEXT = "no_text"
NO_DURATION = "no_duration"
NO_FILE = "no_file"
NO_SHARD = "no_shard"
PARTIAL = "partial"
SKIPPED = "skipped"
ONE_CHANNEL = "one_channel"

SKIP = "_skipme"
REFERENCE = "reference"
# Fields of a Lhotse cut that locate its audio, which the line does in NeMo's fields.
CUT_FIELDS = frozenset("type id start channel recording supervisions features".split())
RATES = ("sampling_rate", "sample_rate")


def label(
    record: Mapping[str, Any],
    filepath_key: str = "audio_filepath",
    pred_text_key: str = "pred_text",
    manifest_path: str = "",
) -> FormatLine:
    """Returns the line of a transcript whose audio is a separate file.

    ``audio_filepath`` is absolute, or a URI; ``text`` is the recognized text. The row's ``text``
    becomes its ``reference``, unless it has a field of that name. The row's other fields follow,
    without those of the job.

    There is always an ``offset``, since without one NeMo reads the whole file whatever the
    ``duration``. With it there is no ``sampling_rate``: NeMo would assume that the file is as long
    as the ``duration``. Only a row that has that rate and no offset, which is a whole file, stays
    as it is.

    Omitted is a row without text (`NO_TEXT`) or duration (`NO_DURATION`), with failed segments
    (`PARTIAL`), with audio in an archive or in the row itself (`NO_FILE`), with ``_skipme``
    (`SKIPPED`), or about one channel of a file of several (`ONE_CHANNEL`), for which a manifest has
    no field: unless its ``channel_selector`` is set, NeMo trains on the average of the channels.

    Args:
        record: a row with its text, as `Transcribe` returns it; its ``duration`` may be measured.
        filepath_key: the field of the audio.
        pred_text_key: the field of the text.
        manifest_path: path or URI of the manifest that the row comes from; without it a relative
            path starts at the working folder, as for the job.
    """
    fields = _fields(record, filepath_key, pred_text_key)
    audio = fields["audio_filepath"]
    if not audio or uris.is_chain(audio) or audio.startswith("data:"):
        return FormatLine(None, NO_FILE)
    if problem := _problem(record, fields, filepath_key):
        return FormatLine(None, problem)
    fields["audio_filepath"] = parsing.located(audio, manifest_path)
    rate = fields.get("sampling_rate", fields.get("sample_rate"))
    if fields["offset"] is None and type(rate) is int and rate > 0:
        del fields["offset"]
    else:
        fields = {key: value for key, value in fields.items() if key not in RATES}
        fields["offset"] = fields["offset"] or 0.0
    return FormatLine(shards.encode(fields))


def tarred_label(
    record: Mapping[str, Any],
    filepath_key: str = "audio_filepath",
    pred_text_key: str = "pred_text",
    manifest_path: str = "",
) -> FormatLine:
    """Returns the line of a transcript of a NeMo tarred data set, or of a row without one.

    As `label`, but ``audio_filepath`` stays the name in the tar, and ``shard_id`` is the tar's
    number. NeMo stops at a file in a tar without an entry in the manifest, unless it is run with
    ``skip_missing_manifest_entries=true``. So an omitted row has a line too, with ``_skipme``; pass
    the failures and the filtered rows to this function as well. A row without a file (`NO_FILE`),
    or without a tar (`NO_SHARD`), has no line.

    Args:
        manifest_path: path or URI of the manifest that the row comes from, whose name has the tar's
            number if the row has no ``shard_id``.
    """
    fields = _fields(record, filepath_key, pred_text_key)
    if not fields["audio_filepath"]:
        return FormatLine(None, NO_FILE)
    shard = record.get("shard_id")
    if not is_integer(shard):
        shard = patterns.shard_number(manifest_path)
    if shard is None:
        return FormatLine(None, NO_SHARD)
    if not fields["offset"]:
        del fields["offset"]
    if problem := _problem(record, fields, filepath_key):
        names = {"audio_filepath", "offset", "duration"}
        fields = {key: value for key, value in fields.items() if key in names and value is not None}
        line = shards.encode({**fields, "text": "", "shard_id": shard, SKIP: True})
        return FormatLine(line, problem, shard)
    return FormatLine(shards.encode({**fields, "shard_id": shard}), shard=shard)


def _fields(record: Mapping[str, Any], filepath_key: str, pred_text_key: str) -> dict[str, Any]:
    """Returns the fields of a line; missing ones are None, or empty texts."""
    row_fields = input_fields(record, pred_text_key)
    audio, offset, duration = (
        row_fields.pop(filepath_key, None),
        row_fields.pop("offset", None),
        None,
    )
    if cut := cut_audio(record, filepath_key):
        audio, offset, duration = cut.audio, cut.offset, cut.duration
        row_fields = {key: value for key, value in row_fields.items() if key not in CUT_FIELDS}
    elif is_float(row_fields.get("duration")):
        duration = row_fields["duration"]
    reference = row_fields.pop("text", None)
    text = record.get(pred_text_key)
    line_fields = {
        "audio_filepath": audio if is_text(audio) else "",
        "offset": offset if is_float(offset) else None,
        "duration": duration,
        "text": text if is_text(text) else "",
    }
    other_fields = {key: value for key, value in row_fields.items() if key not in line_fields}
    if reference is not None:
        other_fields.setdefault(REFERENCE, reference)
    return {**line_fields, **other_fields}


def _problem(record: Mapping[str, Any], fields: Mapping[str, Any], filepath_key: str) -> str:
    """Returns why a row cannot be trained on; empty if it can."""
    if fields.get(SKIP):
        return SKIPPED
    if has_one_of_several(record, filepath_key):
        return ONE_CHANNEL
    if "segments_failed" in record:
        return PARTIAL
    if not fields["text"].strip():
        return NO_TEXT
    if not fields["duration"]:
        return NO_DURATION
    return ""
