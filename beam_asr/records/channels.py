"""Reads the channel that a row names, and makes a row of each channel of one."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from typing import Any

from beam_asr.errors import BadFieldError, ManifestError
from beam_asr.records import lhotse_cuts, row_ids
from beam_asr.records.json_objects import kind
from beam_asr.records.record import with_added
from beam_asr.records.row import Row
from beam_asr.records.work import TakenChannel

EACH = "each"  # of the setting: every channel is a record of its own
AVERAGE = "average"  # of a row, as in NeMo
SPLIT = "split_channels"  # the field with the number of records that a row was split into
NUMBER = re.compile(r"[0-9]{1,9}(\.0+)?")  # tables have texts, and pandas writes 1.0


def named_channel(fields: Mapping[str, Any], channel_key: str) -> int | str | None:
    """Returns the channel that a row in NeMo's format names.

    The values are those of NeMo's ``channel_selector`` that leave one channel: a number from 0, a
    list of one number, and "average" (``select_channels`` in
    nemo/collections/asr/parts/preprocessing/segment.py). A number may be a text, as in tables.

    Returns:
        The number, or `AVERAGE`; None if the row names no channel.

    Raises:
        BadFieldError: the value is another.
    """
    value = fields.get(channel_key)
    if value is None or value == AVERAGE:
        return value
    number = _number(value[0] if isinstance(value, list) and len(value) == 1 else value)
    if number is not None:
        return number
    if isinstance(value, str) and not value.strip():  # an empty cell of a table
        return None
    if isinstance(value, list) and value and all(_number(item) is not None for item in value):
        raise BadFieldError(
            f"{channel_key!r} is {reprlib.repr(value)}, and the job takes one channel, their "
            "'average', or with `channel=each` every channel of a row that names none"
        )
    raise BadFieldError(
        f"{channel_key!r} is {kind(value)}, not a channel's number from 0 or 'average'; if it is "
        "no channel, name another field with `channel_key`, whether or not rows have it"
    )


def _number(value: Any) -> int | None:
    if isinstance(value, str) and NUMBER.fullmatch(value.strip()):
        return int(value.partition(".")[0])
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and value >= 0 else None


def chosen_channel(named: int | str | None, default: int | str | None) -> int | str | None:
    """Returns the channel to read: a number, `EACH`, or None for the average.

    Args:
        named: the one that the row names, as of `named_channel`.
        default: the setting, for a row that names none.
    """
    channel = default if named is None else named
    return None if channel == AVERAGE else channel


def channel_of(
    record: Mapping[str, Any], channel_key: str = "channel", filepath_key: str = "audio_filepath"
) -> int | None:
    """Returns the channel of the file that a record is about, from 0; None for no single one."""
    try:
        if _is_cut(record, filepath_key):
            return lhotse_cuts.audio_of(record).channel
        channel = named_channel(record, channel_key)
    except ManifestError:
        return None
    return None if isinstance(channel, str) else channel


def taken_fields(
    fields: Mapping[str, Any], taken: TakenChannel, channel_key: str, filepath_key: str
) -> dict[str, Any]:
    """Returns the fields by which the record of a row says which channel was read.

    They are the channel, unless the row itself names it; ``file_channels``, unless it is a cut; and
    ``channels_cancel`` where the channel was taken since the average holds next to nothing.
    """
    if _is_cut(fields, filepath_key):
        result: dict[str, Any] = {}
        if lhotse_cuts.audio_of(fields).channel is None:
            number = lhotse_cuts.channel_numbers(fields)[taken.channel]
            result = {"type": "MonoCut", "channel": number}
    else:
        result = {"file_channels": taken.channels}
        if taken.louder or named_channel(fields, channel_key) is None:
            result = {channel_key: taken.channel, **result}
    return {**result, "channels_cancel": True} if taken.louder else result


def split_row(row: Row, channel: int, count: int, channel_key: str, filepath_key: str) -> Row:
    """Returns the row of one channel of a row's file: as if a user had written one for each.

    A row in NeMo's format has the ``channel``, and how many there are in `SPLIT`. A cut is the
    ``MonoCut`` that lhotse's ``with_channels`` makes.

    Args:
        channel: from 0.
        count: of the channels.
    """
    fields = row.fields
    if _is_cut(fields, filepath_key):
        fields = lhotse_cuts.with_channel(fields, channel)
    else:
        fields = with_added(fields, {channel_key: channel, SPLIT: count})
    row_id = row.id and row_ids.id_of_channel(row.id, channel)
    split = Row.of(fields, row.manifest, row.line_number)
    return split._replace(input_number=row.input_number).with_id(row_id)


def has_one_of_several(record: Mapping[str, Any], filepath_key: str) -> bool:
    """Returns whether a record is about one channel of a file that has several."""
    if _is_cut(record, filepath_key):
        try:
            one = lhotse_cuts.audio_of(record).channel is not None
            return one and len(lhotse_cuts.channel_numbers(record)) > 1
        except ManifestError:
            return False
    counts = (record.get("file_channels"), record.get(SPLIT))
    return any(type(count) is int and count > 1 for count in counts)


def is_split(record: Mapping[str, Any]) -> bool:
    """Returns whether a record is one of several of a row, whose text is of all channels."""
    count = record.get(SPLIT)
    return type(count) is int and count > 1


def _is_cut(fields: Mapping[str, Any], filepath_key: str) -> bool:
    return fields.get(filepath_key) is None and lhotse_cuts.is_cut(fields)
