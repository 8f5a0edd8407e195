"""Registers the formats of output files; other packages add formats by entry points."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from beam_asr.errors import SetupError
from beam_asr.outputs.formats import exports_index
from beam_asr.outputs.formats.base import Format, NumberedFormat, ReviewFormat, TranscriptFormat
from beam_asr.outputs.formats.exports_index import INDEX
from beam_asr.outputs.formats.file_names import HASHED
from beam_asr.outputs.formats.timed_transcript import Record, timed_transcript
from beam_asr.records.registry import Registry
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import join

FORMATS: Registry[Format] = Registry(
    "beam_asr.formats",
    {
        "srt": "beam_asr.outputs.formats.srt:FORMAT",
        "vtt": "beam_asr.outputs.formats.vtt:FORMAT",
        "ctm": "beam_asr.outputs.formats.ctm:FORMAT",
        "stm": "beam_asr.outputs.formats.stm:FORMAT",
        "txt": "beam_asr.outputs.formats.txt:FORMAT",
        "textgrid": "beam_asr.outputs.formats.textgrid:FORMAT",
        "parquet": "beam_asr.outputs.formats.parquet:FORMAT",
        "documents": "beam_asr.outputs.formats.documents:FORMAT",
        "nemo": "beam_asr.outputs.formats.nemo:FORMAT",
        "label_studio": "beam_asr.outputs.formats.label_studio:FORMAT",
        "sde": "beam_asr.outputs.formats.sde:FORMAT",
    },
)


def formats_of(names: Iterable[str] | None) -> list[Format]:
    """Returns the formats of these names, each once.

    Raises:
        SetupError: a name is not in `FORMATS`, or the format of another package cannot be used.
    """
    requested = dict.fromkeys(names or ())
    for name in requested:
        if name not in FORMATS:
            raise SetupError(f"formats has {name!r}, which is none of {', '.join(FORMATS)}")
    formats = [FORMATS[name] for name in requested]
    for name, format in zip(requested, formats, strict=True):
        if not isinstance(format, Format) or format.name != name:
            raise SetupError(
                f"{name!r} of {FORMATS.group} is {format!r}, and no Format of this name: update "
                "or uninstall its package"
            )
    return formats


def check_tarred(formats: Iterable[Format]) -> None:
    """Checks that formats can be written of a tarred data set.

    Raises:
        SetupError: a program that opens the audio files is to read one.
    """
    for format in formats:
        if isinstance(format, ReviewFormat):
            raise SetupError(
                f"formats has {format.name!r}, which is for a program that opens each row's audio "
                "file, and the audio is in the tars of `tarred_audio`: leave that format out, or "
                "unpack the tars and transcribe their files"
            )


def render(
    format: str,
    record: Record,
    filepath_key: str = "audio_filepath",
    pred_text_key: str = "pred_text",
    channel_key: str = "channel",
    seconds: float | None = None,
) -> str:
    """Renders the content of a transcript's file.

    Args:
        format: the name of a `TranscriptFormat`.
        record: a row with its text and, for a format that needs them, its ``words``: ``word``,
            ``start`` and ``end``, in seconds from the start of the file, and maybe ``confidence``.
        seconds: the measured length of the row's audio; None if it is not known.

    Raises:
        KeyError: the format is unknown.
    """
    keys = (filepath_key, pred_text_key, channel_key)
    return transcript_format(format).render(timed_transcript(record, *keys, seconds))


def transcript_format(name: str) -> TranscriptFormat:
    """Returns the format of this name, which has a file for each transcript."""
    format = FORMATS[name]
    assert isinstance(format, TranscriptFormat)
    return format


def delete_stale(storage: Storage, folder: str, part: int = 0) -> None:
    """Deletes the files of an earlier run, before the first one of this run is written.

    A run that appends deletes only the files of an earlier attempt at it.

    A folder that holds anything else belongs to somebody else: only files that an index lists, or
    with names that only this package gives, are deleted in it.

    Args:
        part: the number of the run, of those that append; 0 for the first.

    Raises:
        SetupError: the format of another package cannot be used.
    """
    listed = exports_index.files_of_runs(storage, folder, part)
    for format in (*formats_of(FORMATS), INDEX):
        path = join(folder, format.name)
        names = storage.list_names(path)
        ours = [
            name
            for name in names
            if join(format.name, name) in listed or _is_stale(format, name, part)
        ]
        if ours and len(ours) == len(names):
            storage.delete_folder(path)
        else:
            for name in ours:
                storage.delete(join(path, name))
    exports_index.forget_started(storage, folder)


def _is_stale(format: Format, name: str, part: int) -> bool:
    if not part:
        return format.is_own(name)
    return isinstance(format, NumberedFormat) and format.part_of(name) == part


def names_taken(storage: Storage, folder: str, formats: Iterable[str]) -> Iterator[str]:
    """Yields the names, without extension, of files that these formats may not replace.

    Args:
        formats: names of formats with a file for each transcript.
    """
    for format in map(transcript_format, formats):
        files = storage.list_names(join(folder, format.name))
        for name in filter(None, map(format.name_in, files)):
            yield name
            if hashed := HASHED.fullmatch(name):  # a row of this name has come before
                yield hashed[1]
