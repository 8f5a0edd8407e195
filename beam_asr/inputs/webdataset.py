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
from beam_asr.inputs.tar_stream import TarStream, has_content, is_apple_double, printable
from beam_asr.records.json_objects import parse_object
from beam_asr.records.work import WebDatasetTar
from beam_asr.storage.file_kinds import AUDIO_EXTENSIONS, is_audio
from beam_asr.storage.storage import Storage

MAX_BYTES = 16 << 20  # of a .json or .txt member
MAX_HELD_BYTES = 64 << 20  # of one key's members, beside the last recording
# base_plus_ext and skip_meta of webdataset/tariterators.py.
KEY_AND_EXTENSION = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")
META = re.compile(r"__[^/]*__($|/)")
TEXT_KINDS = ("json", "txt")


@dataclass(frozen=True)
class Sample:
    """A WebDataset sample.

    Attributes:
        key: the common part of its members' names, up to the first dot after the last slash; of a
            recording that shares it with others, up to the last dot.
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


@dataclass(frozen=True)
class SkippedMember:
    """A member that is in no sample though it may seem to be a recording, or a part of one.

    That is a link or another member without content, a recording whose name begins with a dot, and
    what macOS stored beside a file (`is_apple_double`).
    """

    name: str


def webdataset_samples(file: BinaryIO, name: str) -> Iterator[Sample | SkippedMember]:
    """Yields the samples of a WebDataset tar, in its order.

    As in WebDataset, consecutive members with one key are a sample, so the same key later in the
    tar is another; directories, members named ``__like this__`` and names without a dot are
    skipped. Of a sample, the audio, ``key.json`` and ``key.txt`` are read; the audio is the
    member whose last extension is one of audio, such as ``key.flac`` or ``key.mic1.flac``.

    Names with dots, which WebDataset does not allow, are read where they are plain: ``X.json``
    and ``X.txt`` are those of ``X.flac`` whatever X is, and recordings whose names differ behind
    their first dot are a sample each. What may belong to several of them is a problem of those.

    Args:
        file: the tar, from its start.
        name: the tar's path or URI, for messages.

    Yields:
        Each sample; one that cannot be used has a problem. Members that are in none.

    Raises:
        TarError: after the samples before the damage. The sample in which the tar breaks off, which
            may lack members, comes last, with this error as its problem.
    """
    tar = TarStream(file, name)
    skipped: list[SkippedMember] = []
    for key, members in itertools.groupby(_keyed(tar, skipped), lambda keyed: keyed[0]):
        yield from _Key(tar, key).samples(member for _, member in members)
        yield from skipped
        skipped.clear()
    yield from skipped
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


def _keyed(tar: TarStream, skipped: list[SkippedMember]) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """Yields the members that belong to samples, with their keys."""
    for member in tar:
        if member.isdir():
            continue
        parts = KEY_AND_EXTENSION.match(member.name)
        if is_apple_double(member.name) or not has_content(member):
            skipped.append(SkippedMember(printable(member.name)))
        elif META.match(member.name):
            continue
        elif parts:
            yield parts[1], member
        elif is_audio(member.name):
            skipped.append(SkippedMember(printable(member.name)))


@dataclass
class _Part:
    """The members of a key with the same name up to the last dot.

    Attributes:
        stem: that name.
        audio: the names of its recordings.
        content: the bytes of the only recording; None if it is not needed.
        texts: the bytes of its json and txt, by these kinds, or why they cannot be read.
        names: of the same, for messages.
        problem: the error if the part cannot be used.
    """

    stem: str
    audio: list[str] = field(default_factory=list)
    content: bytes | None = None
    texts: dict[str, bytes | BadRecordError] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    problem: ManifestError | None = None

    def borrow(self, other: _Part) -> None:
        """Takes the texts of another part that it lacks itself."""
        self.texts = {**other.texts, **self.texts}
        self.names = {**other.names, **self.names}
        self.problem = self.problem or other.problem

    def size(self) -> int:
        """Returns the number of bytes in memory."""
        texts = sum(len(text) for text in self.texts.values() if isinstance(text, bytes))
        return len(self.content or b"") + texts

    def fields(self) -> tuple[dict[str, Any], ManifestError | None]:
        """Returns the fields of the texts that can be read, and the error of one that cannot."""
        fields: dict[str, Any] = {}
        problem: ManifestError | None = None
        for kind, parse in (("json", _json_fields), ("txt", _txt_fields)):
            content = self.texts.get(kind)
            try:
                if isinstance(content, BadRecordError):
                    raise content
                if content is not None:
                    fields = {**fields, **parse(content, self.names[kind]), **fields}
            except ManifestError as error:
                problem = problem or error
        return fields, problem


class _Key:
    """Makes samples of the members with one key, which are several where names have dots."""

    def __init__(self, tar: TarStream, key: str):
        self._tar = tar
        self._own = _Part(key)  # what has no other name than the key
        self._parts: dict[str, _Part] = {key: self._own}
        self._recordings = 0
        self._held_bytes = 0
        self._ended: set[str] = set()  # the stems of recordings that are yielded
        self._is_borrowed = False  # what the own json and txt say
        self._own_kinds: set[str] = set()  # of texts that recordings with dots have

    def samples(self, members: Iterator[tarfile.TarInfo]) -> Iterator[Sample]:
        """Yields the samples; then raises `TarError` if the tar breaks off in one."""
        damage: TarError | None = None
        try:
            for member in members:
                stem, _, extension = member.name.rpartition(".")
                self._add(member, stem, extension.lower())
                if self._recordings > 1 and self._held_bytes > MAX_HELD_BYTES:
                    yield from self._end_recordings(but=stem)
                    self._held_bytes = sum(part.size() for part in self._parts.values())
        except TarError as error:
            damage = error
            lacking = BadRecordError(f"the sample may lack members: {error}")
            for part in self._parts.values():
                part.problem = part.problem or lacking
        yield from self._end_recordings()
        yield from self._end_texts()
        if damage:
            raise damage

    def _add(self, member: tarfile.TarInfo, stem: str, kind: str) -> None:
        is_recording = f".{kind}" in AUDIO_EXTENSIONS
        if not is_recording and kind not in TEXT_KINDS:
            return
        part = self._parts.setdefault(stem, _Part(stem))
        if is_recording:
            self._recordings += not part.audio
            part.audio.append(printable(member.name))
            part.content = self._tar.read(member) if len(part.audio) == 1 else None
            self._held_bytes += len(part.content or b"")
            return
        at = self._tar.at(member)
        if kind in part.texts:
            part.problem = part.problem or BadRecordError(f"{at} comes twice; keep one of them")
            return
        part.names[kind] = at
        if member.size <= MAX_BYTES:
            part.texts[kind] = self._tar.read(member)
            self._held_bytes += member.size
        else:
            part.texts[kind] = BadRecordError(
                f"{at} has {member.size} bytes; of a .json or .txt {MAX_BYTES} are read, which is "
                "ample for one clip"
            )

    def _end_recordings(self, but: str | None = None) -> Iterator[Sample]:
        """Yields the samples with recordings, except one that may go on."""
        own = self._own
        for part in [part for part in self._parts.values() if part.audio and part.stem != but]:
            if part is not own:
                self._own_kinds |= part.texts.keys()
                if self._recordings == 1 and own.texts.keys().isdisjoint(part.texts):
                    self._is_borrowed = True
                    part.borrow(own)
                elif self._recordings > 1 and own.texts.keys() - part.texts.keys():
                    self._is_borrowed = True
                    part.problem = part.problem or self._ambiguous()
                    part.borrow(own)
                del self._parts[part.stem]
            self._ended.add(part.stem)
            sample = self._sample(part)
            part.content, part.audio = None, []
            yield sample
            del sample  # before the next member is read

    def _end_texts(self) -> Iterator[Sample]:
        """Yields what has no recording: a sample, or a json and txt beside those of recordings."""
        if not self._recordings:
            with_texts = [part for part in self._parts.values() if part.texts]
            yield self._sample(with_texts[0] if len(with_texts) == 1 else self._own)
            return
        for part in self._parts.values():
            if part is self._own:
                is_lost = part.stem not in self._ended and not self._is_borrowed
            else:
                is_lost = part.stem in self._ended or not self._own_kinds.isdisjoint(part.texts)
            if part.texts and is_lost:
                yield self._sample(part)

    def _ambiguous(self) -> BadRecordError:
        return BadRecordError(
            f"{' and '.join(self._own.names.values())} may be of any of the {self._recordings} "
            f"recordings whose names begin with {printable(self._own.stem)!r}, since WebDataset "
            "ends a name at its first dot; leave dots to extensions"
        )

    def _sample(self, part: _Part) -> Sample:
        name = printable(part.stem)
        named = f"the sample {name!r} of {self._tar.name}"
        fields, problem = part.fields()
        problem = part.problem or problem
        if len(part.audio) > 1:
            problem = problem or BadRecordError(
                f"{named} has {len(part.audio)} audio members, {', '.join(part.audio)}; leave one "
                "in a sample"
            )
        elif not part.audio:
            beside = ", but recordings beside it whose names have dots" if self._recordings else ""
            problem = problem or MissingMemberError(
                f"{named} has no audio{beside}; its member would be {name}.wav, .flac or the like"
            )
        audio = part.audio[0] if len(part.audio) == 1 else None
        return Sample(name, fields, audio, None if problem else part.content, problem)


def _json_fields(content: bytes, at: str) -> dict[str, Any]:
    """Returns the fields of a ``.json``; raises `ManifestError`."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotJsonError(f"{at} is not JSON, since not UTF-8 ({error})") from None
    return parse_object(text, at)


def _txt_fields(content: bytes, at: str) -> dict[str, Any]:
    """Returns the text of a ``.txt`` as a field; raises `BadRecordError`."""
    try:
        text = content.decode("utf-8-sig").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise BadRecordError(f"{at} is not UTF-8 ({error}); convert it") from None
    return {"text": text}


READER = Reader(suffixes=(".tar", ".tgz"), read=read_tar, may_be_compressed=True)
