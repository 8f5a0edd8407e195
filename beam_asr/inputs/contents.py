"""Looks at the first bytes of inputs, so that only text is read as lines of a manifest."""

from __future__ import annotations

from beam_asr.errors import DamagedInputError
from beam_asr.inputs import compression
from beam_asr.storage import file_kinds
from beam_asr.storage.file_kinds import HEAD_BYTES, RECORDING, UTF_16, content_kind
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import extension

SOURCE_CODE = "source code"
COMPRESSED_RECORDING = "a compressed recording"
REMEDIES = {
    UTF_16: "save it as UTF-8",
    COMPRESSED_RECORDING: "decompress it",
    SOURCE_CODE: "name a recording",
    "a Parquet file": "end its name in .parquet",
    "a tar archive": "end its name in .tar",
    "gzip-compressed data": "end its name in .gz",
    "bzip2-compressed data": "end its name in .bz2",
    "xz-compressed data": "end its name in .xz",
    "zstd-compressed data": "end its name in .zst",
}
REMEDY = (
    "name a manifest, a table, or a recording in a format that shows itself in the file; convert "
    "samples without a header, for example to WAV"
)


def kind_of(storage: Storage, file: str) -> str | None:
    """Names what a file holds that is to be read as a manifest; None if it may be one.

    A file without content may be one. Of compressed data, what they hold counts.

    Raises:
        Exception: of the storage.
    """
    if extension(file) not in compression.SUFFIXES:
        return content_kind(_head(storage, file))
    try:
        with compression.open_decompressed(storage, file) as content:
            kind = content_kind(content.read(HEAD_BYTES))
    except DamagedInputError:
        return None  # the reader says where
    return COMPRESSED_RECORDING if kind == RECORDING else kind


def is_source_code(storage: Storage, file: str) -> bool:
    """Returns whether a file that is named as audio is TypeScript, which may end in .ts too.

    One that cannot be read is a row, whose failure says why.
    """
    if extension(file) not in file_kinds.SOURCE_CODE_EXTENSIONS:
        return False
    try:
        head = _head(storage, file)
    except Exception:
        return False
    return bool(head) and not file_kinds.is_media(head) and file_kinds.is_text(head)


def problem(kind: str) -> str:
    """Returns what to say of a file of a kind that holds no rows."""
    return f"is {kind}, and no manifest; {REMEDIES.get(kind, REMEDY)}"


def _head(storage: Storage, file: str) -> bytes:
    with storage.open(file, first_block=HEAD_BYTES) as content:
        return content.read(HEAD_BYTES)
