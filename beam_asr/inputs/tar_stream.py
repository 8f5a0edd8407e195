"""Audio in tars, each read once from start to end: NeMo's tarred data sets, and WebDataset's.

A tar (POSIX ustar and pax, GNU) may be plain or compressed with gzip, bzip2 or xz. It comes as an
open binary file, which need not be seekable and is not closed. One member at a time is in memory;
nothing is extracted, and links are not followed: a link, a device or a sparse file counts as a
member without content. What the file object itself raises goes to the caller as it is, for that is
the storage's error; whatever else goes wrong in reading is the tar's, a `TarError`.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import itertools
import lzma
import posixpath
import re
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Generic, TypeVar

from beam_asr.manifest_errors import (
    BadRecordError,
    ManifestError,
    MissingMemberError,
    NotJsonError,
)
from beam_asr.records.json_objects import parse_object
from beam_asr.storage.uris import AUDIO_EXTENSIONS

CHUNK = 1 << 16  # bytes asked of the file, and copied, at a time
TEXT_LIMIT = 16 << 20  # bytes of a .json or .txt that are still read
EXTENDED_HEADER_LIMIT = 1 << 20  # bytes; tarfile reads these whole, on the word of their size
EXTENDED_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)

# LazyNeMoTarredIterator's offset_pattern (nemo/collections/common/data/lhotse/nemo_adapters.py).
SUB = re.compile(r"^(.+)-sub\d+(\.\w+)?$")
# base_plus_ext and skip_meta of webdataset/tariterators.py.
KEY_AND_EXTENSION = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")
META = re.compile(r"__[^/]*__($|/)")

T = TypeVar("T")


class TarError(ValueError):
    """A file that is no tar, or a tar that is damaged or breaks off."""


@dataclass(frozen=True)
class Member(Generic[T]):
    """A member that rows are about.

    Attributes:
        name: its name in the tar; bytes of the name that are not UTF-8 show as escapes.
        content: its bytes.
        rows: in the order they were given; not empty.
    """

    name: str
    content: bytes = field(repr=False)
    rows: list[T]


@dataclass(frozen=True)
class MemberWithoutRow:
    """A member, other than a directory, that no row is about, or that has no content."""

    name: str


@dataclass(frozen=True)
class RowsWithoutMember(Generic[T]):
    """The end of a tar that left something open.

    Attributes:
        rows: those that met no member, in the order they were given; empty if only the tar is bad.
        cause: what is wrong with the tar; None if it is whole, and the members are not in it.
    """

    rows: list[T]
    cause: TarError | None


@dataclass(frozen=True)
class Sample:
    """A WebDataset sample.

    Attributes:
        key: what the names of its members share, up to the first dot after the last slash.
        fields: those of its ``.json``, and ``text`` from its ``.txt`` if the json has none; with a
            problem, what of them could be read.
        audio_name: the name of its audio member; None if it has none, or several.
        content: the audio's bytes; None if there is a problem.
        problem: why the sample cannot be used.
    """

    key: str
    fields: dict[str, Any]
    audio_name: str | None
    content: bytes | None = field(repr=False)
    problem: ManifestError | None


def nemo_members(
    file: BinaryIO, name: str, rows: Sequence[tuple[str, T]]
) -> Iterator[Member[T] | MemberWithoutRow | RowsWithoutMember[T]]:
    """The members of one shard's tar, in its order, with their rows; every row comes out once.

    A row is about the first member in the tar that either has

    - the row's name, or the row's name without a ``-subN`` before its extension, which is how NeMo
      names the segments of one recording; a leading ``./`` does not count on either side; or
    - a name that no row has in that sense, and the row's file id (its name without folder and
      extension, with or without ``-subN``), where one of the two names has a folder and the other
      has none, so that they cannot be the same. If rows of several names share that file id, it
      does not say which is meant, and none is taken.

    What is first depends on the tar alone, so a tar and its rows always give the same. If it holds
    both ``x.wav`` and ``x-sub1.wav``, the row ``x-sub1.wav`` goes with the one that comes first. A
    second member of a name has no row, the first took them all.

    Args:
        file: the tar, from its start.
        name: the tar's path or URI, for messages.
        rows: each with the name its manifest uses.

    Yields:
        Each member but directories; last, if rows are left over or the tar is bad, those rows.
    """
    places: dict[str | tuple[str, bool], list[int]] = {}
    for place, (row_name, _) in enumerate(rows):
        for key in _row_keys(row_name):
            places.setdefault(key, []).append(place)
    waiting = {place: row for place, (_, row) in enumerate(rows)}

    def rows_about(member: tarfile.TarInfo) -> list[int]:
        bare = member.name.removeprefix("./")
        found = places.get(bare)
        if found is None:
            found = places.get((_file_id(bare), "/" not in bare), [])
            if len({_without_sub(rows[place][0]) for place in found}) > 1:
                found = []
        return [place for place in found if place in waiting]

    cause = None
    try:
        tar = _Tar(file, name)
        for member in tar:
            about = rows_about(member) if _has_content(member) else []
            if about:
                content = tar.read(member)
                met = [waiting.pop(place) for place in about]
                yield Member(_printable(member.name), content, met)
                del content, met  # before the next member is read
            elif not member.isdir():
                yield MemberWithoutRow(_printable(member.name))
        tar.check_end()
    except TarError as error:
        cause = error
    if waiting or cause:
        yield RowsWithoutMember(list(waiting.values()), cause)


def webdataset_samples(file: BinaryIO, name: str) -> Iterator[Sample]:
    """The samples of a tar in the form of WebDataset, in its order.

    As in WebDataset, consecutive members with one key are a sample, so a key that comes again
    later is another; directories, members named ``__like this__`` and names without a dot are
    passed over. Of a sample, the audio, ``key.json`` and ``key.txt`` are read; the audio is the
    member whose last extension is known for audio, such as ``key.flac`` or ``key.mic1.flac``.

    Args:
        file: the tar, from its start.
        name: the tar's path or URI, for messages.

    Yields:
        Each sample; one that cannot be used with its problem.

    Raises:
        TarError: after the samples before the damage. The sample in which the tar broke off, which
            may lack members, comes last and has it as its problem.
    """
    tar = _Tar(file, name)
    for key, members in itertools.groupby(_keyed(tar), lambda keyed: keyed[0]):
        yield from _sample(tar, key, members)
    tar.check_end()


def member_uri(tar_uri: str, member: str) -> str:
    """The URI by which fsspec opens one member alone: ``tar://{member}::{tar_uri}``.

    The name goes in as it is in the tar, with its ``./``, spaces, ``#``, ``?`` or ``%`` if it has
    any. A compressed tar must show it in its name, such as ``.tar.gz``.

    Raises:
        BadRecordError: fsspec would take the member's name apart.
    """
    if "::" in member or member.startswith("tar://"):
        raise BadRecordError(
            f"the member {member!r} of {tar_uri} has no URI, for fsspec reads its '::' or 'tar://' "
            "as its own; rename the member"
        )
    return f"tar://{member}::{tar_uri}"


def _row_keys(name: str) -> set[str | tuple[str, bool]]:
    """By what a row is found: names, and file ids with whether the row's name has a folder."""
    names = {name.removeprefix("./"), _without_sub(name)}
    return names | {(_file_id(n), "/" in n) for n in names}


def _without_sub(name: str) -> str:
    return SUB.sub(r"\1\2", name.removeprefix("./"))


def _file_id(name: str) -> str:
    """As the loaders in nemo/collections/asr/data/audio_to_text.py have it."""
    return posixpath.splitext(posixpath.basename(name))[0]


def _has_content(member: tarfile.TarInfo) -> bool:
    return member.isreg() and not member.issparse()  # a sparse file is as large as it claims


def _printable(name: str) -> str:
    """A member's name as text that can be written; tarfile makes bytes that are none surrogates."""
    return name.encode("utf-8", "backslashreplace").decode()


def _keyed(tar: _Tar) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    """The members that belong to samples, each after its key and its extension in lower case."""
    for member in tar:
        if (
            _has_content(member)
            and not META.match(member.name)
            and (parts := KEY_AND_EXTENSION.match(member.name))
        ):
            yield parts[1], parts[2].lower(), member


def _sample(
    tar: _Tar, key: str, members: Iterator[tuple[str, str, tarfile.TarInfo]]
) -> Iterator[Sample]:
    """One sample; then raises `TarError` if the tar broke off in it."""
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
                    audio.append(_printable(member.name))
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
    named = f"the sample {_printable(key)!r} of {tar.name}"
    if len(audio) > 1:
        problem = problem or BadRecordError(
            f"{named} has {len(audio)} audio members, {', '.join(audio)}; leave one in a sample"
        )
    elif not audio:
        problem = problem or MissingMemberError(
            f"{named} has no audio; its member would be {_printable(key)}.wav, .flac or the like"
        )
    yield Sample(_printable(key), fields, audio[0] if len(audio) == 1 else None, content, problem)
    if damage:
        raise damage


def _fields(tar: _Tar, member: tarfile.TarInfo) -> dict[str, Any]:
    """Raises `ManifestError`."""
    content = _text_bytes(tar, member)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotJsonError(f"{tar.at(member)} is not JSON, since not UTF-8 ({error})") from None
    return parse_object(text, tar.at(member))


def _text(tar: _Tar, member: tarfile.TarInfo) -> str:
    """Raises `BadRecordError`."""
    content = _text_bytes(tar, member)
    try:
        return content.decode("utf-8-sig").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise BadRecordError(f"{tar.at(member)} is not UTF-8 ({error}); convert it") from None


def _text_bytes(tar: _Tar, member: tarfile.TarInfo) -> bytes:
    """Raises `BadRecordError`."""
    if member.size > TEXT_LIMIT:
        raise BadRecordError(
            f"{tar.at(member)} has {member.size} bytes; of a .json or .txt {TEXT_LIMIT} are read, "
            "which is ample for one clip"
        )
    return tar.read(member)


class _Tar:
    """A tar that is read once, from start to end.

    Its methods raise `TarError` for what is wrong with the tar.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.name = name
        self._last: str | None = None
        self._source = _Source(file)
        with self._reading():
            # Rather than mode "r|*": that checks no checksums and reads no joined streams.
            stream = _decompressed(io.BufferedReader(self._source, CHUNK))
            self._tar = tarfile.open(  # noqa: SIM115
                fileobj=stream, mode="r|", bufsize=CHUNK, tarinfo=_Header, encoding="utf-8"
            )

    def __iter__(self) -> Iterator[tarfile.TarInfo]:
        while True:
            with self._reading():
                # Opening has read the first header. Python 3.10 cannot go on where there is none.
                first = self._tar.firstmember  # type: ignore[attr-defined]
                empty = self._tar.offset == 0 and first is None
                member = None if empty else self._tar.next()
                self._tar.members.clear()  # type: ignore[attr-defined]  # or all headers are kept
            if member is None:
                return
            self._last = _printable(member.name)
            yield member

    def read(self, member: tarfile.TarInfo) -> bytes:
        """The content of the member that was last iterated to."""
        with self._reading(), io.BytesIO() as content:
            source = self._tar.extractfile(member)
            assert source is not None
            shutil.copyfileobj(source, content, CHUNK)  # by chunks, for a size is only a claim
            if content.tell() != member.size:
                raise tarfile.ReadError(f"{content.tell()} bytes of {member.size}")
            return content.getvalue()

    def check_end(self) -> None:
        """Reads what follows the last member, which are zeros, and compression's checksums."""
        with self._reading():
            assert self._tar.fileobj is not None
            while rest := self._tar.fileobj.read(CHUNK):
                if rest.strip(b"\0"):
                    break
        if rest:
            raise TarError(
                f"{self.name} goes on after the end of a tar, perhaps with a second one, which was "
                "not read; join tars with tar --concatenate"
            )

    def at(self, member: tarfile.TarInfo) -> str:
        return f"{_printable(member.name)!r} of {self.name}"

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except MemoryError:
            raise
        except Exception as error:  # tarfile meets damage with errors of many kinds
            if self._source.error:
                raise self._source.error  # noqa: B904  # the storage's own, unchanged
            if self._last is None:
                raise TarError(
                    f"{self.name} is no tar, or is damaged from its start ({error}); a tar is "
                    "plain or compressed with gzip, bzip2 or xz"
                ) from error
            raise TarError(
                f"{self.name} is damaged or breaks off in or after its member {self._last!r} "
                f"({error}); copy the tar again, or build it again"
            ) from error


class _Source(io.RawIOBase):
    """The file as it was handed in; keeps the error that it raised."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: Exception | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fills all of the buffer unless the file ends."""
        filled = 0
        try:
            while filled < len(buffer) and (data := self._file.read(len(buffer) - filled)):
                buffer[filled : filled + len(data)] = data
                filled += len(data)
        except Exception as error:
            self.error = error
            raise
        return filled


def _decompressed(file: io.BufferedReader) -> io.BufferedIOBase:
    """The file's content, by the first bytes that tarfile, too, tells compressions by."""
    start = file.peek(10)
    if start.startswith(b"\x1f\x8b\x08"):
        return gzip.GzipFile(fileobj=file, mode="rb")
    if start.startswith(b"BZh") and start[4:10] == b"1AY&SY":
        return bz2.BZ2File(file)
    if start.startswith((b"\xfd7zXZ", b"\x5d\0\0\x80")):
        return lzma.LZMAFile(file)
    return file


class _Header(tarfile.TarInfo):
    """A header that is whole; tarfile would take a broken one for the end of the tar."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        if len(buf) < tarfile.BLOCKSIZE:
            raise tarfile.ReadError("it ends where a header should be, or the zeros after the last")
        if not buf.strip(b"\0"):
            return super().frombuf(buf, encoding, errors)  # raises what ends the iteration
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None
        if header.type in EXTENDED_HEADERS and not 0 <= header.size <= EXTENDED_HEADER_LIMIT:
            raise tarfile.ReadError(f"an extended header of {header.size} bytes")
        return header
