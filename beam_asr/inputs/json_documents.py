"""Reads JSON over several lines, and lists in JSON, as rows; one row at a time is in memory.

A list may be a value of an object, as in ``{"version": 1, "data": [{"audio_filepath": ...}]}``.
The first element of the list names a file, and the object names none: so it is no row.
"""

from __future__ import annotations

import codecs
import contextlib
import itertools
import json
import re
from collections.abc import Iterator
from typing import BinaryIO

from beam_asr.errors import TableError

HEAD_BYTES = 2**16  # by which a document is distinguished from lines
BLOCK_BYTES = 2**16
SPACE = re.compile(r"[ \t\r\n]*")
SHORTEST_RESERVE = 12  # characters: an error nearer to the end may be due to what is not read yet

_FILE_NAME = re.compile(r"audio|path|file|wav|ur[il]", re.IGNORECASE)  # of a field that names one

# The values are parsed again, as rows; here only their ends count.
_DECODER = json.JSONDecoder(parse_float=str, parse_int=str)


def is_document(head: bytes, is_whole: bool) -> bool:
    """Returns whether a file is a list of objects, or objects over several lines.

    It is not if its first object ends on its own line, as in JSON lines, or is damaged; unless it
    is the only one, and has the list.

    Args:
        head: the file's beginning, of `HEAD_BYTES`.
        is_whole: whether that is the whole file.
    """
    text = head.decode("utf-8-sig", "replace")
    start = SPACE.match(text).end()  # type: ignore[union-attr]  # it matches nothing, too
    is_list = text.startswith("[", start)
    if is_list:
        start = SPACE.match(text, start + 1).end()  # type: ignore[union-attr]
    if not text.startswith("{", start):
        return False
    try:
        _, end = _DECODER.raw_decode(text, start)
        rest = text[end:].strip()
    except json.JSONDecodeError as error:
        if is_whole or not _is_cut(error):
            return False
        end, rest = error.pos, ""
    except RecursionError:
        return False
    if is_list or "\n" in text[start:end]:
        return True
    try:
        return not rest and _list_in_object(text, start) is not None
    except (json.JSONDecodeError, RecursionError):
        return False


def read_objects(content: BinaryIO, name: str, max_bytes: int) -> Iterator[tuple[int, str]]:
    """Yields the objects of a list, or those over several lines, each as JSON of one line.

    The list may be a value of an object; what else is in that object is left out.

    Args:
        name: the file's, for messages.
        max_bytes: the longest value, in characters.

    Yields:
        A number, from 1, and the JSON. The number is that of the line on which the object starts;
        if the first two start on the same line, its place among the objects.

    Raises:
        TableError: the file is not JSON from some line on; the message has the line.
    """
    objects = _objects(_Text(content, name, max_bytes))
    first_two = list(itertools.islice(objects, 2))
    counts_lines = len({line for line, _ in first_two}) == len(first_two)
    for place, (line, text) in enumerate(itertools.chain(first_two, objects), 1):
        one_line = " ".join(map(str.strip, text.split("\n"))) if "\n" in text else text
        yield (line if counts_lines else place), one_line


def _objects(text: _Text) -> Iterator[tuple[int, str]]:
    """Yields the values, and in place of a list its elements; with the lines where they start."""
    if text.next_character() == "{" and (key := text.skip_to_list()) is not None:
        yield from _elements(text)
        _skip_rest_of_object(text, key)
        if text.next_character():
            raise text.error(f"something follows the object of which {key!r} is the list of rows")
    while start := text.next_character():
        if start == "[":
            yield from _elements(text)
        else:
            yield text.take_value()


def _elements(text: _Text) -> Iterator[tuple[int, str]]:
    text.skip_character()
    if text.next_character() == "]":
        text.skip_character()
        return
    while True:
        yield text.take_value()
        following = text.next_character()
        if not following or following not in ",]":
            raise text.error("a ',' or the end of the list is missing")
        text.skip_character()
        if following == "]":
            break


def _skip_rest_of_object(text: _Text, key: str) -> None:
    """Skips what follows the list of rows in its object, up to the object's end."""
    while (following := text.next_character()) == ",":
        text.skip_character()
        if text.next_character() != '"':
            raise text.error("a name is missing")
        other = json.loads(text.take_value()[1])
        if text.next_character() != ":":
            raise text.error("a ':' is missing")
        text.skip_character()
        value = json.loads(text.take_value()[1])
        if _names_file(other, value) or _is_list_of_objects(value):
            raise text.error(f"its object has {other!r} beside {key!r}, the list of rows")
    if following != "}":
        raise text.error("a ',' or the end of the object is missing")
    text.skip_character()


class _Text:
    """Reads JSON values from a binary file, by blocks."""

    def __init__(self, content: BinaryIO, name: str, max_characters: int):
        self._content = content
        self._name = name
        self._max_characters = max_characters
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._text = ""
        self._position = 0
        self._line = 1  # at the position
        self._is_at_end = False

    def next_character(self) -> str:
        """Returns the next character that is not white space; empty at the end."""
        while True:
            self._advance(SPACE.match(self._text, self._position).end())  # type: ignore[union-attr]
            if self._position < len(self._text):
                return self._text[self._position]
            if self._is_at_end:
                return ""
            self._read_on()

    def skip_character(self) -> None:
        """Skips what ``next_character`` has returned."""
        self._advance(self._position + 1)

    def skip_to_list(self) -> str | None:
        """Skips to the list of rows in an object; returns its name, or None if there is none."""
        while True:
            try:
                found = _list_in_object(self._text, self._position)
            except json.JSONDecodeError as error:
                known = len(self._text) - self._position >= HEAD_BYTES
                if known or self._is_at_end or not _is_cut(error):
                    return None
            except RecursionError:
                return None
            else:
                if found is None:
                    return None
                self._advance(found[1])
                return found[0]
            self._read_on()

    def take_value(self) -> tuple[int, str]:
        """Returns the next value's line and text, and skips it."""
        self.next_character()
        while True:
            try:
                _, end = _DECODER.raw_decode(self._text, self._position)
            except json.JSONDecodeError as error:
                if self._is_at_end or not _is_cut(error):
                    self._advance(error.pos)
                    raise self.error(error.msg) from None
            except RecursionError:
                raise self.error("it nests too deep") from None
            else:
                is_ended = end < len(self._text) or self._is_at_end  # a number may go on
                if is_ended and end - self._position <= self._max_characters:
                    line, text = self._line, self._text[self._position : end]
                    self._advance(end)
                    return line, text
            if len(self._text) - self._position > self._max_characters:
                raise self.error(f"a row has more than {self._max_characters} characters")
            self._read_on()

    def error(self, reason: str) -> TableError:
        """Returns the error of the file, at the current line."""
        return TableError(
            f"the manifest {self._name!r} is a JSON list, or JSON over several lines, and is not "
            f"valid from line {self._line} on ({reason}); correct it, or write each row as one line"
        )

    def _advance(self, position: int) -> None:
        self._line += self._text.count("\n", self._position, position)
        self._position = position

    def _read_on(self) -> None:
        """Reads at least as much as there is, so that long values are not parsed too often."""
        remaining = self._text[self._position :]
        block = self._content.read(max(BLOCK_BYTES, len(remaining)))
        self._is_at_end = not block
        try:
            self._text = remaining + self._decoder.decode(block, final=self._is_at_end)
        except UnicodeDecodeError as error:
            self._line += remaining.count("\n") + error.object[: error.start].count(b"\n")
            raise self.error(f"it is not UTF-8: {error.reason}; save it as UTF-8") from None
        self._position = 0


def _list_in_object(text: str, start: int) -> tuple[str, int] | None:
    """Returns the name and the place of the list of rows that an object has; None if it has none.

    Raises:
        json.JSONDecodeError: the text ends too early to tell, or is damaged.
    """
    place, mark = start, "{"
    while text.startswith(mark, place):
        name, place = _DECODER.raw_decode(text, _next(text, place + 1))
        place = _next(text, place)
        if not (isinstance(name, str) and text[place] == ":"):
            return None
        value_start = _next(text, place + 1)
        first = _next(text, value_start + 1)
        if text.startswith("[", value_start) and text.startswith("{", first):
            element, _ = _DECODER.raw_decode(text, first)
            if not any(map(_names_file, element, element.values())):
                return None
            with contextlib.suppress(json.JSONDecodeError):  # of an object that is not all here
                whole, _ = _DECODER.raw_decode(text, start)
                if any(map(_names_file, whole, whole.values())):
                    return None
            return name, value_start
        value, place = _DECODER.raw_decode(text, value_start)
        if _names_file(name, value):
            return None
        place, mark = _next(text, place), ","
    return None


def _next(text: str, place: int) -> int:
    """Returns the place of the next character that is not white space."""
    place = SPACE.match(text, place).end()  # type: ignore[union-attr]
    if place == len(text):
        raise json.JSONDecodeError("the text ends", text, place)
    return place


def _is_list_of_objects(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _names_file(name: str, value: object) -> bool:
    return isinstance(value, str) and _FILE_NAME.search(name) is not None


def _is_cut(error: json.JSONDecodeError) -> bool:
    """Returns whether an error may be due to the end of what has been read."""
    is_near_end = error.pos >= len(error.doc) - SHORTEST_RESERVE
    return is_near_end or error.msg.startswith("Unterminated string")
