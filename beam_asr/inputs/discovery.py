"""What an input stands for: manifests and tables, tars of audio, or the audio files themselves."""

from __future__ import annotations

from beam_asr.errors import NoInputError
from beam_asr.inputs.readers import reader_of
from beam_asr.storage import patterns
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import is_glob


def find_files(storage: Storage, pattern: str) -> list[str]:
    """The files that an input stands for: of a path, a glob, a folder, or several in braces.

    A folder stands for the audio files and the tars below it, and for the files of other readers
    that say so.

    Raises:
        NoInputError: there are none, or one that is named in braces is missing.
        PatternError: the braces are wrong.
        StorageError: no storage is known for it, or its package is missing.
    """
    names = patterns.expand(pattern)
    if len(names) > 1 and not any(is_glob(name) for name in names):
        found = names
        missing = [name for name, there in zip(names, storage.exist_many(names)) if not there]
        if missing:
            shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
            raise NoInputError(
                f"the input {pattern!r} stands for {len(names)} files, of which {len(missing)} "
                f"are missing: {shown}"
            )
        return found
    return [file for name in names for file in _find_files_of_one(storage, name)]


def check(storage: Storage, pattern: str) -> None:
    """Raises as ``find_files`` does.

    Looks no further than the first file of a folder or of a glob of audio, which may hold millions.
    """
    for name in patterns.expand(pattern):
        storage.check(name)
        if is_glob(name) and reader_of(name).is_row:
            continue  # the workers look, and fail the job
        if storage.is_folder(name):
            if storage.find_first(name, _is_in_folders) is None:
                raise _empty_folder(name)
        else:
            find_files(storage, pattern)
            return


def _find_files_of_one(storage: Storage, name: str) -> list[str]:
    if storage.is_folder(name):
        found = [file for file in storage.find(name) if _is_in_folders(file)]
        if not found:
            raise _empty_folder(name)
        return found
    found = storage.find(name)
    if not found:
        raise NoInputError(f"the input {name!r} matches no file")
    return found


def _is_in_folders(file: str) -> bool:
    return reader_of(file).is_in_folders


def _empty_folder(name: str) -> NoInputError:
    return NoInputError(
        f"the input folder {name!r} holds no audio files; name a manifest's file itself"
    )
