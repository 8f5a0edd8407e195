"""Whether a model file can be unpacked without harm."""

from __future__ import annotations

import gzip
import posixpath
import re
import tarfile
import unicodedata
import zlib
from collections.abc import Iterator

_DRIVE = re.compile(r"[A-Za-z]:")
_KINDS = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a character device",
    tarfile.BLKTYPE: "a block device",
    tarfile.FIFOTYPE: "a FIFO",
}
# What tarfile, which NeMo reads with as well, raises at a damaged file.
_UNREADABLE = (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError)


class UnsafeModelError(ValueError):
    """A ``.nemo`` file has a member that must not be unpacked."""


def check_archive(path: str) -> None:
    """Refuses a ``.nemo`` file, a tar or tar.gz, that holds more than plain files and folders.

    Only the headers of the members are read, one after the other; a tar.gz must be decompressed to
    find them. A file that is no tar is left to the loader, which says what is wrong with it.

    NeMo 3.0 (``nemo/utils/tar_utils.py``) leaves out links and names that lead elsewhere, with a
    warning, fails at devices, and takes the last of several members of one name. Older ones unpack
    them all. No model is packed like that, so here the whole file is refused.

    Args:
        path: of a local file.

    Raises:
        UnsafeModelError: a member is not a plain file or folder with a relative name of its own.
        OSError: the file cannot be read.
    """
    seen: set[str] = set()
    for member in _members(path):
        fault = _fault(member)
        # Some file systems take names for the same that differ in case or Unicode form.
        name = unicodedata.normalize("NFC", posixpath.normpath(member.name)).casefold()
        if fault is None and name in seen:
            fault = "has the name of an earlier one, which it would replace"
        if fault is not None:
            raise UnsafeModelError(
                f"{path}: is not safe to unpack: its member {member.name[:100]!r} {fault}. Get the "
                "model from a place that you trust, or pack it again from plain files and folders."
            )
        seen.add(name)


def _members(path: str) -> Iterator[tarfile.TarInfo]:
    """The members that NeMo finds in it, which tries these two modes alone, in this order."""
    try:
        try:
            tar = tarfile.open(path, "r:")  # noqa: SIM115 - closed below
        except tarfile.ReadError:
            tar = tarfile.open(path, "r:gz")  # noqa: SIM115
        with tar:
            yield from tar
    except _UNREADABLE:
        return


def _fault(member: tarfile.TarInfo) -> str | None:
    """What is wrong with a member by itself."""
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
    return None
