"""Parses JSON objects, and refuses those that could not be written again as read."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any

from beam_asr.errors import (
    BadFieldError,
    DuplicateKeyError,
    ManifestError,
    NotAnObjectError,
    NotJsonError,
    for_message,
)
from beam_asr.records import json_numbers
from beam_asr.records.json_numbers import WrittenNumber, read_float, read_integer

MAX_SHOWN = 40  # characters of a value in a message
MAX_LEVELS = 100  # of objects and lists within each other; a row has two or three
ONE_OBJECT = "it must be one JSON object"
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
FRAGMENTS = frozenset(["{", "}", "},", "[", "]", "],", "[{", "}]"])
KINDS: dict[type, str] = {dict: "an object", list: "a list", str: "a string", type(None): "null"}
KINDS |= {int: "a number", float: "a number", WrittenNumber: "a number", bool: "a boolean"}


def parse_object(text: str, name: str) -> dict[str, Any]:
    """Parses a text as one JSON object.

    Numbers that Python would write in another way are of `json_numbers`. Values that could not be
    written again as read are refused, at any depth: duplicate keys, numbers beyond the limits of a
    float (1e400) or of Python's integers, halves of surrogate pairs. So is nesting of more than
    `MAX_LEVELS`, far below the limit of ``json``, which depends on the depth of the stack: a text
    that is read in one place must be written in another. ``NaN`` and ``Infinity``, which ``json``
    reads and writes, are accepted.

    Args:
        name: of the text, for messages.

    Raises:
        NotJsonError: it is not JSON, or nests too deep.
        NotAnObjectError: it is JSON of another kind.
        DuplicateKeyError, BadFieldError: it holds a refused value.
    """
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise NotJsonError(f"{name} is not JSON ({_reason(error)}); {ONE_OBJECT}") from None
    except RecursionError:
        raise _too_deep(name) from None
    except ManifestError as error:
        raise type(error)(f"{name} {error}") from None
    except ValueError:  # of int, which has a limit
        raise BadFieldError(f"{name} holds a number of too many digits; put it in quotes") from None
    if text.count("[") + text.count("{") > MAX_LEVELS and _nests_deeper(value, MAX_LEVELS):
        raise _too_deep(name)
    if "\\u" in text and SURROGATE.search(text) and not _is_unicode(value):
        raise BadFieldError(
            f"{name} holds half of a surrogate pair, as \\ud800 is, which no text can; correct it"
        )
    if not isinstance(value, dict):
        raise NotAnObjectError(f"{name} is JSON, but {kind(value)}; {ONE_OBJECT}")
    return value


def kind(value: Any) -> str:
    """Describes a value for messages, as in ``a number (3)``."""
    shown = for_message(json_numbers.dumps(value, _ENCODER.encode), MAX_SHOWN)
    return f"{KINDS[type(value)]} ({shown})"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        ((key, times),) = Counter(key for key, _ in pairs).most_common(1)
        raise DuplicateKeyError(
            f"has the key {for_message(json.dumps(key), MAX_SHOWN)} {times} times in one object, "
            "where only one value could be kept; name each key once"
        )
    return fields


def _float(text: str) -> float:
    number = read_float(text)
    if math.isinf(number):
        raise BadFieldError(
            f"holds the number {for_message(text, MAX_SHOWN)}, beyond what a float can; put it in "
            "quotes"
        )
    return number


_ENCODER = json.JSONEncoder(ensure_ascii=False)
_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_float, parse_int=read_integer)


def _reason(error: json.JSONDecodeError) -> str:
    if "\0" in error.doc:
        return "it holds NUL characters, as UTF-16 and binary files do; save it as UTF-8"
    if error.doc.startswith("\ufeff"):
        return "it begins with a byte order mark, as only a file may"
    if error.doc.strip() in FRAGMENTS:
        return "it is a part of JSON over several lines whose beginning is damaged"
    return f"{error.msg} at character {error.pos + 1}"


def _nests_deeper(value: Any, levels: int) -> bool:
    """Returns whether objects and lists are nested deeper, without recursion."""
    layer: list[Any] = [[value]]
    for _ in range(levels + 1):
        layer = [
            inner
            for outer in layer
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) is dict or type(inner) is list
        ]
        if not layer:
            return False
    return True


def _too_deep(name: str) -> NotJsonError:
    return NotJsonError(
        f"{name} is not JSON of a row (it nests objects and lists more than {MAX_LEVELS} deep)"
    )


def _is_unicode(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
