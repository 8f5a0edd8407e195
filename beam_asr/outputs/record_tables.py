"""Makes tables of records, for pandas and for ``datasets``, whose whole numbers keep their digits.

Records need not have the same fields, nor a field values of one type. In a table, a field that a
record lacks is missing; in a dataset, a field whose values have no type in common is their JSON.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from beam_asr.records import json_numbers
from beam_asr.records.fields import is_integer, is_text
from beam_asr.records.record import Record

if TYPE_CHECKING:
    import datasets
    import pandas as pd

LARGEST_OF_FLOAT = 2**53  # the float of a larger whole number may be that of another one

# Types of values: one of these names, ("list", type) or ("struct", {name: type}).
Type = str | tuple[str, Any]
NULL: Type = "null"
BOOL, SMALL, INTEGER, FLOAT, TEXT, JSON = "bool small int64 float64 string json".split()
COMMON = {
    frozenset([SMALL, INTEGER]): INTEGER,
    frozenset([SMALL, FLOAT]): FLOAT,
}
DATA_TYPES = {SMALL: INTEGER, JSON: TEXT}  # of datasets, where it has another name


def to_frame(records: Sequence[Record]) -> pd.DataFrame:
    """Returns a table of records, in their order, with a column for each field of any."""
    import pandas as pd

    names = dict.fromkeys(name for record in records for name in record)
    columns = {name: _column([record.get(name) for record in records]) for name in names}
    return pd.DataFrame(columns, index=range(len(records)))


def _column(values: list[Any]) -> pd.Series:
    """Returns values as a column, which pandas alone would turn into floats if one is missing."""
    import pandas as pd

    common = functools.reduce(merged, {_scalar_type(value) for value in values}, NULL)
    if common in (SMALL, INTEGER) and None in values:
        return pd.Series(values, dtype="Int64")
    return pd.Series(values, dtype=object if common == JSON else None)


def _scalar_type(value: Any) -> Type:
    return TEXT if isinstance(value, (list, dict)) else type_of(value)


def type_of(value: Any) -> Type:
    """Returns the type of a value of JSON."""
    if value is None:
        return NULL
    if isinstance(value, bool):
        return BOOL
    if isinstance(value, int):
        small = abs(value) <= LARGEST_OF_FLOAT
        return SMALL if small else INTEGER if is_integer(value) else JSON
    if isinstance(value, float):
        return FLOAT
    if isinstance(value, str):
        return TEXT if is_text(value) else JSON
    if isinstance(value, list):
        return "list", functools.reduce(merged, map(type_of, value), NULL)
    if not value or not all(map(is_text, value)):
        return JSON
    return "struct", {name: type_of(each) for name, each in value.items()}


def merged(one: Type, other: Type) -> Type:
    """Returns the type that values of two types have in common."""
    if one == other or other == NULL:
        return one
    if one == NULL:
        return other
    if isinstance(one, str) and isinstance(other, str):
        return COMMON.get(frozenset([one, other]), JSON)
    if isinstance(one, str) or isinstance(other, str):
        return JSON
    (kind, inner), (other_kind, other_inner) = one, other
    if kind != other_kind:
        return JSON
    if kind == "list":
        return kind, merged(inner, other_inner)
    names = dict.fromkeys([*inner, *other_inner])
    return kind, {
        name: merged(inner.get(name, NULL), other_inner.get(name, NULL)) for name in names
    }


def types_of(records: Iterable[Record]) -> dict[str, Type]:
    """Returns the type of each field of records, of which it holds one at a time."""
    types: dict[str, Type] = {}
    for record in records:
        for name, value in record.items():
            types[name] = merged(types.get(name, NULL), type_of(value))
    return types


def fitted(records: Iterable[Record], types: Mapping[str, Type]) -> Iterator[Record]:
    """Yields records with a value of its type, or None, for each field of `types_of`."""
    for record in records:
        yield {name: _fitted(record.get(name), kind) for name, kind in types.items()}


def _fitted(value: Any, kind: Type) -> Any:
    if value is None:
        return None
    if isinstance(kind, tuple):
        inner = kind[1]
        if kind[0] == "list":
            return [_fitted(each, inner) for each in value]
        return {name: _fitted(value.get(name), each) for name, each in inner.items()}
    if kind == JSON:
        return json_numbers.dumps(value)
    return float(value) if kind == FLOAT else value


def features(types: Mapping[str, Type]) -> datasets.Features:
    """Returns types as ``datasets`` has them."""
    import datasets

    return datasets.Features({name: _feature(kind) for name, kind in types.items()})


def _feature(kind: Type) -> Any:
    import datasets

    if isinstance(kind, str):
        return datasets.Value(DATA_TYPES.get(kind, kind))
    if kind[0] == "list":
        return [_feature(kind[1])]
    return {name: _feature(each) for name, each in kind[1].items()}
