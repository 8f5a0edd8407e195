"""What an input stands for: manifests, or the audio files themselves."""

from __future__ import annotations

from collections.abc import Iterator

from beam_asr import storage
from beam_asr.audio_names import is_audio
from beam_asr.manifest import Row


class NoInputError(FileNotFoundError):
    """An input stands for no file."""


def files_of(pattern: str) -> list[str]:
    """The manifests or audio files that an input stands for. A folder stands for its audio files.

    Raises:
        NoInputError: there are none.
    """
    found = storage.find(pattern)
    if storage.is_folder(pattern):
        found = [file for file in found if is_audio(file)]
        if not found:
            raise NoInputError(
                f"the input folder {pattern!r} holds no audio files; name a manifest's file itself"
            )
    if not found:
        raise NoInputError(f"the input {pattern!r} matches no file")
    return found


def rows_of(file: str, filepath_key: str) -> Iterator[Row]:
    """The rows of a manifest, one for each line that is not blank; for audio, the one of itself."""
    if is_audio(file):
        yield Row.of({filepath_key: file})
        return
    for number, line in enumerate(storage.read_lines(file), 1):
        if line.strip():
            yield Row(line, file, number)
