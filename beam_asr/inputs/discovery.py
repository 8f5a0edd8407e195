"""Finds the files of an input: manifests, tables, tars or audio files; counts what it ignores."""

from __future__ import annotations

import os
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from beam_asr.errors import NoInputError
from beam_asr.inputs import contents
from beam_asr.inputs.readers import DEFAULT_READER, READERS, find_reader, has_reader
from beam_asr.records.statistics import EXAMPLES, Statistics, add_counts
from beam_asr.storage import file_kinds, patterns, same_files
from beam_asr.storage.listing import Entry, fixed_folder
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import (
    extension,
    is_glob,
    is_local,
    local_path,
    split_chain,
    without_query,
)

HIDDEN = "hidden"
NO_EXTENSION = "without extension"
MAX_SHOWN_KINDS = 8  # in a message
_HIDDEN_NAME = re.compile(r"(?:^|/)\.[^/]")
_EXTENSION = re.compile(r"\.[\w~+-]{1,12}")


class FoundFiles(NamedTuple):
    """Holds the files of an input, and counts what a folder or glob leaves out.

    Attributes:
        files: paths or URIs, sorted.
        ignored: the number of others, by extension or by the reason.
        examples: some of them.
        versions: of the content of the files, where the listing states them.
    """

    files: list[str]
    ignored: Counter[str]
    examples: list[str]
    versions: dict[str, str]

    @property
    def statistics(self) -> Statistics:
        """Returns the counts."""
        return Statistics(
            input_files=len(self.files),
            audio_files=sum(find_reader(file).is_row for file in self.files),
            ignored_files=add_counts(self.ignored, {}),
            examples_ignored=tuple(self.examples),
        )


def find_files(storage: Storage, pattern: str) -> list[str]:
    """Finds the files of a path, a glob, a folder, or several of them in braces.

    A folder stands for the audio files and the tars below it, and for the files of other readers
    whose ``is_in_folders`` is set. So does a glob that matches audio files, for which it also
    includes the files of the other readers. Hidden files, as ``._a.mp3`` of macOS, are left out.

    Raises:
        NoInputError: no file matches, or one that is named in braces is missing.
        PatternError: the braces are wrong.
        StorageError: the storage is unknown, or its package is missing.
    """
    return find(storage, pattern).files


def find(storage: Storage, pattern: str) -> FoundFiles:
    """Finds as `find_files`, and what is left out."""
    names = patterns.expand(pattern)
    if len(names) > 1 and not any(is_glob(name) for name in names):
        missing = [name for name, exists in zip(names, storage.exist_many(names)) if not exists]
        if missing:
            shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
            raise NoInputError(
                f"the input {pattern!r} stands for {len(names)} files, of which {len(missing)} "
                f"are missing: {shown}"
            )
        return FoundFiles(names, Counter(), [], {})
    found = [_find(storage, name) for name in names]
    return FoundFiles(
        [file for part in found for file in part.files],
        sum((part.ignored for part in found), Counter()),
        [example for part in found for example in part.examples][:EXAMPLES],
        {file: version for part in found for file, version in part.versions.items()},
    )


def distinct(named: Iterable[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """Separates the names of one file (`same_files.target_of`) to read from those to leave out.

    A manifest that is named by itself and by links is read once, under its own name. Of a recording
    a link beside it is a row of its own, unless another pattern matches it. Links to a file that is
    no input itself may be views of a store whose equal files are one, so each is read.

    Args:
        named: the patterns, each with a name that it matches.

    Returns:
        The names to read, and the others.
    """
    patterns_of: dict[str, set[str]] = {}
    names: dict[str, str] = {}
    all_names = []
    for pattern, name in sorted(named):
        place = same_files.place_of(name)
        patterns_of.setdefault(place, set()).add(pattern)
        names.setdefault(place, name)
        all_names.append(name)
    target = same_files.target_of(all_names[0])
    if target in names:
        own = patterns_of[target]
        is_row = find_reader(names[target]).is_row
        names = {
            place: name
            for place, name in names.items()
            if place == target or (is_row and not own.isdisjoint(patterns_of[place]))
        }
    kept = sorted(names.values())
    others = Counter(all_names) - Counter(kept)
    return kept, sorted(others.elements())


def check(storage: Storage, pattern: str) -> list[str]:
    """Checks that an input has files that can be read; raises as ``find_files``.

    Looks only for the first file of a folder, which may hold millions, and at no glob of audio.

    Returns:
        The files; none of a folder or of a glob of audio.

    Raises:
        NoInputError: also if a file that is named by itself is neither rows nor audio.
    """
    names = patterns.expand(pattern)
    for name in names:
        storage.check(name)
        if is_glob(name) and find_reader(name).is_row:
            continue  # the workers look, and fail the job
        if storage.is_folder(name):
            is_hidden = _hidden_in(name, is_folder=True)
            if all(_why_ignored(entry, is_hidden) for entry in storage.walk(name)):
                raise _empty_folder(name)
        else:
            files = find_files(storage, pattern)
            if files == [name]:
                _check_content(storage, name)
            return files
    return []


def _check_content(storage: Storage, file: str) -> None:
    """Checks that a file that is an input by itself holds rows, or is a recording."""
    kind = None
    if find_reader(file) is READERS[DEFAULT_READER]:
        kind = contents.kind_of(storage, file)
    elif contents.is_source_code(storage, file):
        kind = contents.SOURCE_CODE
    if kind is not None and kind != file_kinds.RECORDING:
        raise NoInputError(f"the input {without_query(file)!r} {contents.problem(kind)}")


def describe_ignored(counts: Mapping[str, int]) -> str:
    """Returns the numbers of ignored files by kind, for a message: ``.jpg 1, .txt 3``."""
    by_count = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = sorted(by_count[:MAX_SHOWN_KINDS])
    rest = sum(count for _, count in by_count[MAX_SHOWN_KINDS:])
    parts = [*shown, *([("others", rest)] if rest else [])]
    return ", ".join(f"{kind} {count:,}" for kind, count in parts)


def _find(storage: Storage, name: str) -> FoundFiles:
    is_folder = storage.is_folder(name)
    if not is_folder and not storage.is_glob(name):
        if not storage.exists(name):
            raise NoInputError(f"the input {name!r} matches no file")
        return FoundFiles([name], Counter(), [], {})
    found = _sort_out(storage.list_entries(name), _hidden_in(name, is_folder), is_folder)
    if found.files:
        return found
    if is_folder:
        raise _empty_folder(name, found.ignored)
    raise NoInputError(f"the input {name!r} matches no file{_note(found.ignored)}")


def _sort_out(
    entries: Iterable[Entry], is_hidden: Callable[[str], bool], is_folder: bool
) -> FoundFiles:
    """Sorts the entries of a folder or glob out, into those that are inputs and others."""
    found = FoundFiles([], Counter(), [], {})
    unknown: list[str] = []  # of a glob, whose files may have any ending if they are manifests
    has_audio = False
    for entry in entries:
        why = _why_ignored(entry, is_hidden)
        if entry.version:
            found.versions[entry.name] = entry.version
        if not why:
            has_audio = True
        elif not is_folder and not entry.problem and why != HIDDEN:
            if not has_reader(entry.name):
                unknown.append(entry.name)
                continue
            why = ""  # a manifest or table
        if why:
            _ignore(found, entry.name, why)
        else:
            found.files.append(entry.name)
    if has_audio:
        for name in unknown:
            _ignore(found, name, _kind_of(name))
    else:
        found.files.extend(unknown)
    found.files.sort()
    return found


def _ignore(found: FoundFiles, name: str, why: str) -> None:
    found.ignored[why] += 1
    if len(found.examples) < EXAMPLES:
        found.examples.append(without_query(name))


def _why_ignored(entry: Entry, is_hidden: Callable[[str], bool]) -> str:
    """Returns why a folder leaves an entry out; empty if it does not."""
    if is_hidden(entry.name):
        return HIDDEN
    if entry.problem:
        return entry.problem
    return "" if find_reader(entry.name).is_in_folders else _kind_of(entry.name)


def _kind_of(name: str) -> str:
    suffix = extension(name)
    return suffix if _EXTENSION.fullmatch(suffix) else NO_EXTENSION


def _hidden_in(name: str, is_folder: bool) -> Callable[[str], bool]:
    """Returns a function that tells whether a file below a folder, or in a glob, is hidden.

    Only what is below the folder counts, or what a wildcard stands for: ``.cache/calls`` and
    ``calls/.new/*.wav`` are requested.
    """
    link = split_chain(name)[0]
    if is_local(name):
        path = os.path.join(os.getcwd(), local_path(name).removeprefix("./"))
    else:
        path = link.partition("://")[2]
    fixed = f"{path.rstrip('/')}/" if is_folder else fixed_folder(path)
    asked_for = not is_folder and bool(_HIDDEN_NAME.search(path[len(fixed) :]))

    def is_hidden(file: str) -> bool:
        at = file.find(fixed)
        below = posixpath.basename(file) if at < 0 else file[at + len(fixed) :]
        return not asked_for and bool(_HIDDEN_NAME.search(below))

    return is_hidden


def _empty_folder(name: str, ignored: Counter[str] | None = None) -> NoInputError:
    return NoInputError(
        f"the input folder {name!r} holds no audio files{_note(ignored)}; name a manifest's file "
        "itself"
    )


def _note(ignored: Mapping[str, int] | None) -> str:
    return f", only others: {describe_ignored(ignored)}" if ignored else ""
