"""Reads JSON over several lines, and lists in JSON, as rows; one row at a time is in memory."""

from __future__ import annotations

import codecs
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

# The values are parsed again, as rows; here only their ends count.
_DECODER = json.JSONDecoder(parse_float=str, parse_int=str)


def is_document(head: bytes, is_whole: bool) -> bool:
    """Returns whether a file is a list of objects, or objects over several lines.

    It is not if its first object ends on its own line, as in JSON lines, or is damaged.

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
    except json.JSONDecodeError as error:
        if is_whole or not _is_cut(error):
            return False
        end = error.pos
    except RecursionError:
        return False
    return is_list or "\n" in text[start:end]


def read_objects(content: BinaryIO, name: str, max_bytes: int) -> Iterator[tuple[int, str]]:
    """Yields the objects of a list, or those over several lines, each as JSON of one line.

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
    while start := text.next_character():
        if start != "[":
            yield text.take_value()
            continue
        text.skip_character()
        if text.next_character() == "]":
            text.skip_character()
            continue
        while True:
            yield text.take_value()
            following = text.next_character()
            if not following or following not in ",]":
                raise text.error("a ',' or the end of the list is missing")
            text.skip_character()
            if following == "]":
                break


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


def _is_cut(error: json.JSONDecodeError) -> bool:
    """Returns whether an error may be due to the end of what has been read."""
    is_near_end = error.pos >= len(error.doc) - SHORTEST_RESERVE
    return is_near_end or error.msg.startswith("Unterminated string")
