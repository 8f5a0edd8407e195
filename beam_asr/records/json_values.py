"""Converts values that JSON lacks, such as dates, paths and NumPy's numbers, to those it has."""

from __future__ import annotations

import datetime
import os
import sys
import uuid
from decimal import Decimal
from typing import Any

REMEDY = (
    "give texts, numbers, booleans, None, lists and dicts with texts as keys; paths, dates and "
    "NumPy's numbers are converted"
)


def to_json_value(value: Any) -> Any:
    """Converts a value that ``json`` cannot write, for its argument ``default``.

    Paths and UUIDs become texts; dates and times ISO 8601; lengths of time seconds; decimals
    numbers or, if a float has too few digits, texts; NumPy's scalars what Python's become, and its
    arrays lists. A value that is missing (``NaT``, ``NA``) becomes None.

    Raises:
        TypeError: there is no such value.
    """
    if isinstance(value, os.PathLike):
        try:
            return os.fsdecode(value)
        except Exception as error:  # of a class of anyone
            raise TypeError(f"a path of the type {type(value).__name__}: {error}") from error
    if isinstance(value, Decimal):
        return float(value) if Decimal(repr(float(value))) == value else str(value)
    if isinstance(value, datetime.timedelta):
        seconds = value.total_seconds()
        return None if seconds != seconds else seconds  # of pandas' NaT
    if isinstance(value, (datetime.date, datetime.time)):
        text = value.isoformat()
        return None if text == "NaT" else text
    if isinstance(value, uuid.UUID):
        return str(value)
    if type(value).__name__ == "NAType" and type(value).__module__.startswith("pandas."):
        return None
    numpy = sys.modules.get("numpy")  # whoever has such a value has imported it
    if numpy is not None and isinstance(value, (numpy.generic, numpy.ndarray)):
        return _of_numpy(value, numpy)
    raise TypeError(f"a value of the type {type(value).__name__}")


def _of_numpy(value: Any, numpy: Any) -> Any:
    if isinstance(value, numpy.ndarray):
        return list(value) if value.ndim else value[()]
    if isinstance(value, numpy.datetime64):
        # Not item(), which makes a whole number of what has nanoseconds.
        return None if numpy.isnat(value) else str(value)
    if isinstance(value, numpy.timedelta64):
        return None if numpy.isnat(value) else float(value / numpy.timedelta64(1, "s"))
    if isinstance(value, numpy.bool_):
        return bool(value)
    if isinstance(value, numpy.integer):
        return int(value)
    if isinstance(value, numpy.floating):
        return float(value)
    raise TypeError(f"a value of NumPy's type {type(value).__name__}")
