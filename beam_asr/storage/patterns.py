"""Parses NeMo's names of many files: comma-separated lists, braces, shard numbers."""

from __future__ import annotations

import re
import string

from beam_asr.errors import PatternError

MAX_NAMES = 1_000_000
STAND_INS = {"_OP_": "{", "_CL_": "}"}

_MARK = re.compile(r"[{},]|_OP_|_CL_")
_INTEGERS = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.-?(\d+))?")
_LETTERS = re.compile(r"([A-Za-z])\.\.([A-Za-z])(?:\.\.-?(\d+))?")
_ALPHABET = string.ascii_uppercase + string.ascii_lowercase  # braceexpand's order
_SHARD = re.compile(r"manifest[^/]*_(\d+)[^/]*\.json|audio[^/]*_(\d+)[^/]*\.tar")


def split_commas(text: str) -> list[str]:
    """Splits a comma-separated list, and strips its parts; commas within braces do not count.

    Nothing between two commas is an empty part, which the caller may refuse.
    """
    parts, start, depth = [], 0, 0
    for mark in _MARK.finditer(text):
        character = STAND_INS.get(mark[0], mark[0])
        if character == "{":
            depth += 1
        elif character == "}":
            depth = max(0, depth - 1)
        elif depth == 0:
            parts.append(text[start : mark.start()])
            start = mark.end()
    return [part.strip() for part in [*parts, text[start:]]]


def expand(pattern: str) -> list[str]:
    """Expands a pattern to names, as NeMo's ``expand_sharded_filepaths`` does.

    ``{0..127}``, ``{000..127}``, ``{a,b}`` and their products and nestings are expanded, and
    NeMo's stand-ins ``_OP_`` and ``_CL_`` are braces. Its ``(``, ``[`` and ``<`` are not, since
    ``[`` is a glob's. A name whose braces hold neither comma nor range stands for itself.

    Raises:
        PatternError: a brace without its pair, or more than `MAX_NAMES` names.
    """
    from braceexpand import braceexpand

    braced = pattern
    for stand_in, brace in STAND_INS.items():
        braced = braced.replace(stand_in, brace)
    count = _count(braced)
    if count is None:
        raise PatternError(
            f"the input {pattern!r} has a brace without its pair; add it, or, if the file is "
            "called so, put ? in the brace's place"
        )
    if count > MAX_NAMES:
        raise PatternError(
            f"the input {pattern!r} stands for more than {MAX_NAMES:,} names; "
            "check its ranges, or list its parts as inputs of their own"
        )
    try:
        names = list(braceexpand(braced, escape=False))
    except RecursionError:
        raise PatternError(f"the braces of the input {pattern!r} are nested too deeply") from None
    return [pattern] if names == [braced] else names


def shard_number(name: str) -> int | None:
    """Returns the shard number in the name of a manifest or tar; None if it has none.

    The patterns are those of NeMo's ``LazyNeMoTarredIterator``: ``manifest_0.json``,
    ``manifest_0_normalized.jsonl.gz``, ``audio_0.tar``. If folders match too, the last name
    counts.
    """
    numbers = [mark[1] or mark[2] for mark in _SHARD.finditer(name)]
    return int(numbers[-1]) if numbers else None


def _count(pattern: str) -> int | None:
    """Counts the names that ``braceexpand`` would create, all at once; None if unbalanced."""
    # Of each open group its start, the names of its parts up to the last comma, and of the part
    # since then. The outermost is the pattern itself.
    groups = [(0, 0, 1)]
    for mark in re.finditer("[{},]", pattern):
        start, before, since = groups[-1]
        if mark[0] == "{":
            groups.append((mark.end(), 0, 1))
        elif len(groups) == 1:
            if mark[0] == "}":
                return None
        elif mark[0] == ",":
            groups[-1] = (start, before + since, 1)
        else:
            groups.pop()
            inside = _range_length(pattern[start : mark.start()]) or before + since
            start, before, since = groups[-1]
            groups[-1] = (start, before, since * inside)
    return groups[0][2] if len(groups) == 1 else None


def _range_length(group: str) -> int | None:
    """Counts the names of ``0..127``, ``a..f`` or ``0..100..5``; None for other text."""
    try:
        if integers := _INTEGERS.fullmatch(group):
            first, last, step = (int(text or 1) for text in integers.groups())
        elif letters := _LETTERS.fullmatch(group):
            first, last = (_ALPHABET.index(letter) for letter in letters.groups()[:2])
            step = int(letters[3] or 1)
        else:
            return None
    except ValueError:  # Python refuses to read thousands of digits, and so would braceexpand
        return MAX_NAMES + 1
    return abs(last - first) // (step or 1) + 1
