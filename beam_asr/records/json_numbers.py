"""Reads numbers of JSON as floats and writes them again as they were written, to the digit."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from typing import Any

_TOKEN = uuid.uuid4().hex  # no text of a row holds it
_MARKED = re.compile(rf'"{_TOKEN}([^"]*)"')


class WrittenNumber(float):
    """A number that Python would write in another way: ``0.10``, ``1E5``, ``1e-400``, ``-0``.

    Attributes:
        text: as it was written.
    """

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> WrittenNumber:
        number = super().__new__(cls, text)
        number.text = text
        return number

    def __reduce__(self) -> tuple[type[WrittenNumber], tuple[str]]:
        return WrittenNumber, (self.text,)


def read_float(text: str) -> float:
    """Reads a number with a fraction or an exponent, for a decoder of `json`."""
    number = float(text)
    return number if repr(number) == text else WrittenNumber(text)


def read_integer(text: str) -> float:
    """Reads a whole number, for a decoder of `json`; -0, which an integer cannot be, as a float.

    Raises:
        ValueError: it has more digits than Python converts.
    """
    return WrittenNumber(text) if text == "-0" else int(text)


def loads(text: str | bytes) -> Any:
    """Parses JSON as `json.loads`, with `WrittenNumber` where they are needed."""
    return json.loads(text, parse_float=read_float, parse_int=read_integer)


def dumps(value: Any, encode: Callable[[Any], str] = json.dumps) -> str:
    """Returns JSON in which each `WrittenNumber` is as it was written.

    Args:
        encode: returns the JSON of a value without any.
    """
    if not _holds_written(value):
        return encode(value)
    return _MARKED.sub(r"\1", encode(_marked(value)))


def _holds_written(value: Any) -> bool:
    kind = type(value)
    if kind is dict:
        return any(map(_holds_written, value.values()))
    if kind is list:
        return any(map(_holds_written, value))
    return kind is WrittenNumber


def _marked(value: Any) -> Any:
    """Returns a value with a text in place of each `WrittenNumber`, for `_MARKED` to find."""
    if isinstance(value, dict):
        return {key: _marked(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_marked(item) for item in value]
    return f"{_TOKEN}{value.text}" if isinstance(value, WrittenNumber) else value
