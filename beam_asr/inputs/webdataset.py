"""Reads the samples of WebDataset tars."""

from __future__ import annotations

import itertools
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from beam_asr.errors import (
    BadRecordError,
    ManifestError,
    MissingMemberError,
    NotJsonError,
    TarError,
)
from beam_asr.inputs.readers import FileRange, Reader
from beam_asr.inputs.tar_stream import TarStream, has_content, printable
from beam_asr.records.json_objects import parse_object
from beam_asr.records.work import WebDatasetTar
from beam_asr.storage.file_kinds import AUDIO_EXTENSIONS
from beam_asr.storage.storage import Storage

MAX_BYTES = 16 << 20  # of a .json or .txt member
# base_plus_ext and skip_meta of webdataset/tariterators.py.
KEY_AND_EXTENSION = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")
META = re.compile(r"__[^/]*__($|/)")


@dataclass(frozen=True)
class Sample:
    """A WebDataset sample.

    Attributes:
        key: the common part of its members' names, up to the first dot after the last slash.
        fields: those of its ``.json``, and ``text`` from its ``.txt`` if the json has none; with a
            problem, those that could be read.
        audio_name: the name of its audio member; None if it has none, or several.
        content: the audio's bytes; None if there is a problem.
        problem: the error if the sample cannot be used.
    """

    key: str
    fields: dict[str, Any]
    audio_name: str | None
    content: bytes | None = field(repr=False)
    problem: ManifestError | None


def webdataset_samples(file: BinaryIO, name: str) -> Iterator[Sample]:
    """Yields the samples of a WebDataset tar, in its order.

    As in WebDataset, consecutive members with one key are a sample, so the same key later in the
    tar is another; directories, members named ``__like this__`` and names without a dot are
    skipped. Of a sample, the audio, ``key.json`` and ``key.txt`` are read; the audio is the
    member whose last extension is one of audio, such as ``key.flac`` or ``key.mic1.flac``.

    Args:
        file: the tar, from its start.
        name: the tar's path or URI, for messages.

    Yields:
        Each sample; one that cannot be used has a problem.

    Raises:
        TarError: after the samples before the damage. The sample in which the tar breaks off, which
            may lack members, comes last, with this error as its problem.
    """
    tar = TarStream(file, name)
    for key, members in itertools.groupby(_keyed(tar), lambda keyed: keyed[0]):
        yield from _sample(tar, key, members)
    tar.check_end()


def read_tar(
    storage: Storage,  # noqa: ARG001
    file_range: FileRange,
    filepath_key: str,  # noqa: ARG001
) -> Iterator[WebDatasetTar]:
    """Yields the tar itself, whose samples are read with their audio."""
    yield WebDatasetTar(file_range.file)


def member_uri(tar_uri: str, member: str) -> str:
    """Returns the URI by which fsspec opens one member alone: ``tar://{member}::{tar_uri}``.

    The name is inserted unchanged, with its ``./``, spaces, ``#``, ``?`` or ``%`` if it has any. A
    compressed tar's name must show the compression, as ``.tar.gz``.

    Raises:
        BadRecordError: fsspec would split the member's name.
    """
    if "::" in member or member.startswith("tar://"):
        raise BadRecordError(
            f"the member {member!r} of {tar_uri} has no URI, for fsspec reads its '::' or 'tar://' "
            "as its own; rename the member"
        )
    return f"tar://{member}::{tar_uri}"


def _keyed(tar: TarStream) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    """Yields the members that belong to samples, with key and extension in lower case."""
    for member in tar:
        if (
            has_content(member)
            and not META.match(member.name)
            and (parts := KEY_AND_EXTENSION.match(member.name))
        ):
            yield parts[1], parts[2].lower(), member


def _sample(
    tar: TarStream, key: str, members: Iterator[tuple[str, str, tarfile.TarInfo]]
) -> Iterator[Sample]:
    """Yields one sample; then raises `TarError` if the tar breaks off in it."""
    fields: dict[str, Any] = {}
    text: str | None = None
    texts_read: set[str] = set()
    audio: list[str] = []
    content: bytes | None = None
    problem: ManifestError | None = None
    damage: TarError | None = None
    try:
        for _, extension, member in members:
            try:
                if "." + extension.rpartition(".")[2] in AUDIO_EXTENSIONS:
                    audio.append(printable(member.name))
                    content = tar.read(member) if len(audio) == 1 and not problem else None
                elif extension in ("json", "txt"):
                    if extension in texts_read:
                        raise BadRecordError(f"{tar.at(member)} comes twice; keep one of them")
                    texts_read.add(extension)
                    if extension == "json":
                        fields = _fields(tar, member)
                    else:
                        text = _text(tar, member)
            except ManifestError as error:
                problem, content = problem or error, None
    except TarError as error:
        damage, content = error, None
        problem = problem or BadRecordError(f"the sample may lack members: {error}")
    if text is not None:
        fields.setdefault("text", text)
    named = f"the sample {printable(key)!r} of {tar.name}"
    if len(audio) > 1:
        problem = problem or BadRecordError(
            f"{named} has {len(audio)} audio members, {', '.join(audio)}; leave one in a sample"
        )
    elif not audio:
        problem = problem or MissingMemberError(
            f"{named} has no audio; its member would be {printable(key)}.wav, .flac or the like"
        )
    yield Sample(printable(key), fields, audio[0] if len(audio) == 1 else None, content, problem)
    if damage:
        raise damage


def _fields(tar: TarStream, member: tarfile.TarInfo) -> dict[str, Any]:
    """Reads the fields of a ``.json``; raises `ManifestError`."""
    content = _text_bytes(tar, member)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotJsonError(f"{tar.at(member)} is not JSON, since not UTF-8 ({error})") from None
    return parse_object(text, tar.at(member))


def _text(tar: TarStream, member: tarfile.TarInfo) -> str:
    """Reads a ``.txt``; raises `BadRecordError`."""
    content = _text_bytes(tar, member)
    try:
        return content.decode("utf-8-sig").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise BadRecordError(f"{tar.at(member)} is not UTF-8 ({error}); convert it") from None


def _text_bytes(tar: TarStream, member: tarfile.TarInfo) -> bytes:
    """Reads a member of limited size; raises `BadRecordError`."""
    if member.size > MAX_BYTES:
        raise BadRecordError(
            f"{tar.at(member)} has {member.size} bytes; of a .json or .txt {MAX_BYTES} are read, "
            "which is ample for one clip"
        )
    return tar.read(member)


READER = Reader(suffixes=(".tar", ".tgz"), read=read_tar, may_be_compressed=True)
