"""Checks that a model file is complete and safe to unpack and load.

NeMo unpacks a ``.nemo`` file into a temporary folder, makes objects of the classes that its
configuration names, and reads its weights, which are a pickle. Anything that could do harm is
refused here, before NeMo sees the file; ``docs/models.md`` says what NeMo 3.0 would refuse itself.
"""

from __future__ import annotations

import gzip
import importlib.machinery
import os
import pickle
import posixpath
import re
import shutil
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, BinaryIO, cast

import yaml  # which OmegaConf, and so NeMo, also reads with

from beam_asr.errors import (
    DamagedModelError,
    ModelFileError,
    ModelTooLargeError,
    UnsafeModelError,
    for_message,
)

# A multitask model may hold a second model, for its timestamps, with a prefix to these names.
CONFIG = "model_config.yaml"
WEIGHTS = "model_weights.ckpt"

MAX_HEADER_BYTES = 2**24  # a model has some dozen members, of 512 bytes of header each
MAX_CONFIG_BYTES = 2**21  # a vocabulary of 8192 tokens takes 0.1 MB
MAX_CONFIG_NODES = 10**6
# Weights hardly compress. A file that grows by more than this is not a model, unless it is small.
MAX_GROWTH = 20
SMALL_BYTES = 2**27

_DRIVE = re.compile(r"[A-Za-z]:")
_KINDS = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a character device",
    tarfile.BLKTYPE: "a block device",
    tarfile.FIFOTYPE: "a FIFO",
}
_CODE = (*importlib.machinery.all_suffixes(), ".pkl", ".pickle", ".joblib")
_MAGIC_MEANINGS = {
    b"version https://git-lfs": "is a pointer of Git LFS and not the model; run 'git lfs pull'",
    b"<": "is a page of HTML or XML and not a model; a browser shows what it says",
    b"PK": "is a zip, perhaps a checkpoint that is not in a .nemo file yet",
}

# A configuration names classes by _target_, older ones also by these.
_OLD_CLASS_KEYS = ("target", "cls")
# NeMo also allows functions, some of which write files; this one makes the decoder of Canary.
_FUNCTION = "get_nemo_transformer"
_PART = re.compile(
    r"(nemo\.collections\.(asr|common)|nemo\.core|torch\.(nn|optim))(\.[a-z_0-9]+)*"
    rf"\.([A-Z]\w*|{_FUNCTION})"
)
# They fetch what the configuration names: code from Hugging Face (trust_remote_code), models.
_FETCHING = re.compile(r".*\.(AutoTokenizer|\w*Diarizer)")
_REFERENCE = re.compile(r"\$\{[\w.]+\}")


def check_archive(path: str) -> None:
    """Refuses a ``.nemo`` file that is damaged, or that would do harm when it is loaded.

    It is read whole once, which takes a second or so for each GB. A tar.gz, as NeMo wrote them
    before 1.7, is decompressed into a temporary file, which is deleted afterwards.

    Args:
        path: of a local file.

    Raises:
        ModelFileError: it is damaged, unsafe or too large; see the classes.
        OSError: the file cannot be read.
    """
    try:
        with _plain_tar(path) as file:
            members = _checked_members(file)
            _check_space(sum(member.size for member in members.values()))
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for name, member in members.items():
                    if name.endswith(CONFIG):
                        _check_config(_content(tar, member), member)
                    elif name.endswith(WEIGHTS):
                        _check_weights(_content(tar, member), member)
    except ModelFileError as error:
        raise type(error)(f"{path}: {error}. {error.remedy}") from error.__cause__


# ------------------------------------------------------------------------------------- the tar


@contextmanager
def _plain_tar(path: str) -> Iterator[BinaryIO]:
    """Yields the file, or its decompressed content; NeMo too tries a plain tar first."""
    with open(path, "rb") as file:
        beginning = file.read(tarfile.BLOCKSIZE)
        if not beginning.startswith(b"\x1f\x8b") or _is_header(beginning):
            yield file
        else:
            with tempfile.TemporaryFile() as plain:
                file.seek(0)
                _decompress(file, plain)
                yield cast(BinaryIO, plain)


def _is_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _decompress(source: BinaryIO, target: IO[bytes]) -> None:
    """Decompresses a gzip file, unless it grows too much."""
    size = os.fstat(source.fileno()).st_size
    growth = max(SMALL_BYTES, MAX_GROWTH * size)
    with _as_damaged(), gzip.GzipFile(fileobj=source) as stream:
        while block := stream.read(2**20):
            if target.tell() + len(block) > growth:
                raise UnsafeModelError(
                    f"is {size} bytes, but more than {growth} when it is decompressed; no model is"
                )
            target.write(block)
            _check_space(target.tell())


def _check_space(size: int) -> None:
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if size > free:
        raise ModelTooLargeError(
            f"takes {size} bytes or more unpacked, and {tempfile.gettempdir()}, where it is "
            f"unpacked, has {free} bytes free"
        )


class _Headers:
    """Reads only the headers of a tar; they may claim any length."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self._remaining_bytes = MAX_HEADER_BYTES
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        self._remaining_bytes -= size
        if self._remaining_bytes < 0:
            raise UnsafeModelError(f"has more than {MAX_HEADER_BYTES} bytes of headers")
        return self._file.read(size)


def _checked_members(file: BinaryIO) -> dict[str, tarfile.TarInfo]:
    """Returns the members by name; refuses the file if unpacking any of them could do harm.

    NeMo 3.0 (``nemo/utils/tar_utils.py``) leaves out links and names that lead elsewhere, with a
    warning, fails at devices, and takes the last of several members of one name. Older versions
    unpack them all. No model is packed like that, so here the whole file is refused.
    """
    members: dict[str, tarfile.TarInfo] = {}
    for member in _whole_members(file):
        fault = _fault(member)
        # Some file systems treat names that differ only in case or Unicode form as the same.
        name = unicodedata.normalize("NFC", posixpath.normpath(member.name)).casefold()
        if fault is None and name in members:
            fault = "has the name of an earlier one, which it would replace"
        if fault is not None:
            raise UnsafeModelError(
                f"is not safe to unpack: its member {for_message(member.name, 100, gap='')!r} "
                f"{fault}"
            )
        members[name] = member
    for name in (CONFIG, WEIGHTS):
        if name not in members:
            raise DamagedModelError(f"has no {name}, so it is no model, or only a part of one")
    return members


def _whole_members(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """Yields the members of a tar; refuses data after the last one."""
    with _as_damaged():
        file.seek(0)
        try:
            tar = tarfile.open(fileobj=cast(BinaryIO, _Headers(file)), mode="r:")  # noqa: SIM115
        except tarfile.ReadError as error:
            raise DamagedModelError(_describe_content(file)) from error
        yield from tar
        whole = file.seek(0, os.SEEK_END) % tarfile.BLOCKSIZE == 0
        file.seek(tar.offset)
        while whole and (block := file.read(2**20)):
            whole = not block.strip(b"\0")
    if not whole:
        raise DamagedModelError("is cut short or damaged: it does not end as a tar does")


@contextmanager
def _as_damaged() -> Iterator[None]:
    """Raises DamagedModelError for any error that ``tarfile``, as used by NeMo, raises."""
    try:
        yield
    except ModelFileError:
        raise
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError) as error:
        raise DamagedModelError(f"is cut short or damaged: {error}") from error


def _describe_content(file: BinaryIO) -> str:
    file.seek(0)
    beginning = file.read(tarfile.BLOCKSIZE)
    if not beginning:
        return "is empty"
    for start, meaning in _MAGIC_MEANINGS.items():
        if beginning.lstrip().startswith(start):
            return meaning
    return "is neither a tar nor a tar.gz, or is cut short near its beginning"


def _fault(member: tarfile.TarInfo) -> str | None:
    """Returns what is wrong with a member by itself, or None."""
    name = posixpath.normpath(member.name)
    if name.startswith("/"):
        return "has an absolute name"
    if ".." in member.name.split("/"):
        return "has a '..' in its name"
    if "\\" in name:
        return "has a backslash in its name"
    if _DRIVE.match(name):
        return "has the letter of a drive in its name"
    if not (member.isreg() or member.isdir()):
        return f"is {_KINDS.get(member.type, 'of an unknown kind')}"
    # It would be read for ever: CVE-2025-8194.
    if member.size < 0:
        return "has a negative size"
    # NeMo changes into the folder of the members, from which Python may import.
    if name.casefold().endswith(_CODE):
        return "is code or a pickle, which a model has no use for"
    return None


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = tar.extractfile(member)
    if file is None:
        raise DamagedModelError(f"has a folder in the place of {member.name}")
    return file


# --------------------------------------------------------------------------- the configuration


def _check_config(file: IO[bytes], member: tarfile.TarInfo) -> None:
    """Refuses a configuration that names anything but parts of a speech model.

    NeMo's own list also allows functions that write files, and a tokenizer that runs code from
    Hugging Face.
    """
    if member.size > MAX_CONFIG_BYTES:
        raise UnsafeModelError(f"has a {member.name} of {member.size} bytes, too long for one")
    try:
        root = yaml.compose(file.read().decode(), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        cause = for_message(" ".join(str(error).split()), 200, gap="")
        raise DamagedModelError(f"its {member.name} is not YAML: {cause}") from error
    if not isinstance(root, yaml.MappingNode):
        raise DamagedModelError(f"its {member.name} holds no settings")
    for key, node in _walk_nodes(root):
        fault = _config_fault(key, node)
        if fault is not None:
            raise UnsafeModelError(f"is not safe to load: its {member.name} {fault}")


def _walk_nodes(root: Any) -> Iterator[tuple[str | None, Any]]:
    """Yields every node of a YAML document, with its key; aliased nodes once for each alias."""
    waiting: list[tuple[str | None, Any]] = [(None, root)]
    for _ in range(MAX_CONFIG_NODES):
        if not waiting:
            return
        key, node = waiting.pop()
        yield key, node
        if isinstance(node, yaml.MappingNode):
            waiting += [(str(name.value), value) for name, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            waiting += [(None, value) for value in node.value]
    raise UnsafeModelError("its configuration grows without end by its aliases")


def _config_fault(key: str | None, node: Any) -> str | None:
    """Returns what is wrong with one setting, or None."""
    value = node.value if isinstance(node.value, str) else ""
    if "python/" in node.tag and ":pathlib." not in node.tag:
        return f"makes an object of Python ({for_message(node.tag, 100, gap='')})"
    if key == "_target_" or (key in _OLD_CLASS_KEYS and re.search(r"[.$]", value)):
        if not _is_part(value):
            name = for_message(value or node.tag, 100, gap="")
            return f"names {name!r}, which is no part of a speech model"
    elif "${" in value and not _REFERENCE.fullmatch(value):
        return (
            f"has a value that is computed when it is loaded, {for_message(value, 100, gap='')!r}"
        )
    return None


def _is_part(name: str) -> bool:
    """Tells whether a name is that of a speech model or of one of its parts."""
    return bool(_PART.fullmatch(name)) and not _FETCHING.fullmatch(name)


# --------------------------------------------------------------------------------- the weights


def _check_weights(file: IO[bytes], member: tarfile.TarInfo) -> None:
    """Refuses weights that are damaged, or more than tensors.

    torch compares no checksums, and refuses anything but tensors only while
    TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is not set.
    """
    import torch

    if not member.size:
        raise DamagedModelError(f"its {member.name} is empty")
    try:
        if zipfile.is_zipfile(file):
            _check_zip(zipfile.ZipFile(file), member)
        file.seek(0)
        weights = torch.load(file, map_location="meta", weights_only=True)
    except ModelFileError:
        raise
    except pickle.UnpicklingError as error:
        used = re.search(r"GLOBAL (\S+)", str(error))
        raise UnsafeModelError(
            f"is not safe to load: its {member.name} is no pickle of tensors alone"
            + (f", but would use {used[1]}" if used else "")
        ) from error
    except Exception as error:
        cause = for_message(" ".join(f"{type(error).__name__}: {error}".split()), 150, gap="")
        raise DamagedModelError(f"its {member.name} cannot be read: {cause}") from error
    if not isinstance(weights, dict):
        raise DamagedModelError(f"its {member.name} holds no tensors by name")


def _check_zip(archive: zipfile.ZipFile, member: tarfile.TarInfo) -> None:
    unpacked = sum(record.file_size for record in archive.infolist())
    if unpacked > 2 * member.size:
        raise UnsafeModelError(f"its {member.name} grows to {unpacked} bytes in memory")
    damaged = archive.testzip()
    if damaged is not None:
        raise DamagedModelError(f"its {member.name} is damaged: the checksum of {damaged} is wrong")
