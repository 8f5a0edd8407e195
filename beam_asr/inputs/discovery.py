"""Finds the files of an input: manifests, tables, tars or audio files."""

from __future__ import annotations

from beam_asr.errors import NoInputError
from beam_asr.inputs.readers import find_reader
from beam_asr.storage import patterns
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import is_glob


def find_files(storage: Storage, pattern: str) -> list[str]:
    """Finds the files of a path, a glob, a folder, or several of them in braces.

    A folder stands for the audio files and the tars below it, and for the files of other readers
    whose ``is_in_folders`` is set.

    Raises:
        NoInputError: no file matches, or one that is named in braces is missing.
        PatternError: the braces are wrong.
        StorageError: the storage is unknown, or its package is missing.
    """
    names = patterns.expand(pattern)
    if len(names) > 1 and not any(is_glob(name) for name in names):
        missing = [name for name, exists in zip(names, storage.exist_many(names)) if not exists]
        if missing:
            shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
            raise NoInputError(
                f"the input {pattern!r} stands for {len(names)} files, of which {len(missing)} "
                f"are missing: {shown}"
            )
        return names
    return [file for name in names for file in _find_files(storage, name)]


def check(storage: Storage, pattern: str) -> None:
    """Checks that an input has files; raises as ``find_files``.

    Looks only for the first file of a folder, which may hold millions, and at no glob of audio.
    """
    for name in patterns.expand(pattern):
        storage.check(name)
        if is_glob(name) and find_reader(name).is_row:
            continue  # the workers look, and fail the job
        if storage.is_folder(name):
            if storage.find_first(name, _is_in_folders) is None:
                raise _empty_folder(name)
        else:
            find_files(storage, pattern)
            return


def _find_files(storage: Storage, name: str) -> list[str]:
    if storage.is_folder(name):
        files = [file for file in storage.find(name) if _is_in_folders(file)]
        if not files:
            raise _empty_folder(name)
        return files
    files = storage.find(name)
    if not files:
        raise NoInputError(f"the input {name!r} matches no file")
    return files


def _is_in_folders(file: str) -> bool:
    return find_reader(file).is_in_folders


def _empty_folder(name: str) -> NoInputError:
    return NoInputError(
        f"the input folder {name!r} holds no audio files; name a manifest's file itself"
    )
