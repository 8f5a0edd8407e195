"""What is fuzzed: functions of bytes, each with an oracle of what may come of them.

The first `HEADER` bytes choose how the rest, the file, is read. A target raises, as an exception
of any kind, what users must never meet; it returns how the input ended, so that the engine can
tell a way that is new from one that it has seen.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import json
import lzma
import os
import tempfile
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from beam_asr.audio.reading import AudioRequest, read_audio
from beam_asr.errors import (
    AudioError,
    DamagedInputError,
    ManifestError,
    NoInputError,
    TableError,
    TarError,
)
from beam_asr.inputs import json_documents, json_lines, nemo_tarred, readers, webdataset
from beam_asr.inputs.readers import FileRange
from beam_asr.inputs.tar_clips import TarClip, TarReader, UnreadRow
from beam_asr.outputs import shards
from beam_asr.records import parsing
from beam_asr.records.events import SampleFound
from beam_asr.records.record import Transcript, failure
from beam_asr.records.row import Row
from beam_asr.records.work import WebDatasetTar
from beam_asr.storage.file_kinds import HEAD_BYTES, content_kind
from beam_asr.storage.storage import Storage

HEADER = 4

MANIFEST_NAMES = (
    "m.jsonl",
    "m.csv",
    "m.tsv",
    "m.parquet",
    "m.jsonl.gz",
    "m.jsonl.zst",
    "m.jsonl.bz2",
    "m.jsonl.xz",
    "m.csv.gz",
)
AUDIO_NAMES = ("a.wav", "a.g722", "a.mp3", "a")
OFFSETS = (0.0, 0.05, 0.0123, 0.5, 3.0, 1e6, 1e300)
DURATIONS = (None, 0.05, 0.0001, 0.6, 1e6, 1e300)
CHANNELS = (None, 0, 1, 70_000)
SAMPLE_RATES = (16_000, 8_000)
ROW_NAMES = (
    "a.wav",
    "./a.wav",
    "folder/b.flac",
    "b.flac",
    "a-sub1.wav",
    "a-sub2.wav",
    "missing.wav",
    "",
)
READ_SIZES = (1 << 20, 1, 7, 511, 513)
RUNNER_FRAMES = 60  # by which the stack may be deeper where a record is made than where it is read

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": partial(gzip.compress, compresslevel=1, mtime=0),
    ".bz2": partial(bz2.compress, compresslevel=1),
    ".xz": partial(lzma.compress, preset=0),
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}
DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    ".gz": partial(zlib.decompressobj, wbits=31),
    ".bz2": bz2.BZ2Decompressor,
    ".xz": lzma.LZMADecompressor,
    ".zst": zstandard.ZstdDecompressor().decompressobj,
}


def manifest_file(data: bytes) -> Hashable:
    """A manifest or table gives its rows, each of which ends as one line of JSON."""
    header, content = _split(data)
    name = MANIFEST_NAMES[header[0] % len(MANIFEST_NAMES)]
    ending = Path(name).suffix
    if header[1] % 2 and ending in COMPRESS:
        content = COMPRESS[ending](content)
    path = _written(name, content)
    try:
        rows = [row for piece in readers.split_file(Storage(), path) for row in _rows(piece)]
    except (DamagedInputError, TableError, NoInputError) as error:
        _check_may_fail(name, content, error)
        return _place(error)
    text = None
    if name.startswith("m.jsonl"):
        text = content if name == "m.jsonl" else _decompressed(ending, content)
        assert text is not None, f"damaged {ending} was read as if it were whole"
    if text is not None and (kind := content_kind(text[:HEAD_BYTES])) is not None:
        assert len(rows) == 1, f"{kind} is {len(rows)} rows"
        assert b'\n{"audio_filepath":' not in text[:HEAD_BYTES], f"a row is in {kind}"
        return name, kind
    is_document = text is not None and _is_document(text)
    if text is not None and not is_document:
        assert len(rows) == _count_lines(text), "rows are not as many as lines"
    if name == "m.jsonl" and not is_document:
        cut = int.from_bytes(header[2:4], "big") % (len(content) + 1)
        before = json_lines.count_lines(Storage(), path, 0, cut) if cut else 0
        pieces = FileRange(path, 0, cut), FileRange(path, cut, len(content), before)
        assert [*_rows(pieces[0]), *_rows(pieces[1])] == rows, f"other rows if cut at {cut}"
    return name, frozenset(map(_end_of_row, rows[:100]))


def audio_file(data: bytes) -> Hashable:
    """A file of audio, on a disk or in memory, gives samples or an `AudioError`."""
    header, content = _split(data)
    name = AUDIO_NAMES[header[0] % len(AUDIO_NAMES)]
    read = partial(
        read_audio,
        request=AudioRequest(
            sample_rate=SAMPLE_RATES[header[3] // 16 % len(SAMPLE_RATES)],
            offset=OFFSETS[header[1] % len(OFFSETS)],
            duration=DURATIONS[header[2] % len(DURATIONS)],
            channel=CHANNELS[header[3] % len(CHANNELS)],
        ),
    )
    on_disk, place = _samples_or_error(read, _written(name, content), None)
    in_memory, _ = _samples_or_error(read, name, content)
    assert type(on_disk) is type(in_memory), f"{on_disk!r} on disk, {in_memory!r} in memory"
    if isinstance(on_disk, np.ndarray):
        assert np.array_equal(on_disk, in_memory), "other samples in memory than on disk"
    return name, place


def tar_file(data: bytes) -> Hashable:
    """A tar gives each row of a NeMo shard once, and each WebDataset sample once."""
    header, content = _split(data)
    packing = header[2] % 8
    if 1 <= packing <= 3:
        content = COMPRESS[(".gz", ".bz2", ".xz")[packing - 1]](content)
    rows = [(name, place) for place, name in enumerate(ROW_NAMES) if header[0] >> place & 1]
    rows += rows[: header[3] % 2]  # a name twice
    read_size = READ_SIZES[header[1] % len(READ_SIZES)]
    whole, in_parts = (
        list(nemo_tarred.nemo_members(partial(_opened, content, size), "t.tar", rows))
        for size in (1 << 20, read_size)
    )
    assert repr(whole) == repr(in_parts), f"other members if read by {read_size} bytes"
    return _end_of_members(whole, rows), _end_of_samples(content)


TARGETS: dict[str, Callable[[bytes], Hashable]] = {
    "manifest": manifest_file,
    "audio": audio_file,
    "tar": tar_file,
}


def _split(data: bytes) -> tuple[bytes, bytes]:
    return data[:HEADER].ljust(HEADER, b"\0"), data[HEADER:]


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="fuzz-")


def _written(name: str, content: bytes) -> str:
    path = os.path.join(_folder().name, name)
    with open(path, "wb") as file:
        file.write(content)
    return path


def _place(error: BaseException) -> tuple[Hashable, ...]:
    """An error's class and the lines that it came through, which tell causes apart."""
    frames = traceback.extract_tb(error.__traceback__)
    return type(error).__name__, *(frame.lineno for frame in frames)


# Manifests


def _rows(piece: FileRange) -> Iterator[Row]:
    for row in readers.read_rows(Storage(), piece, "audio_filepath"):
        assert isinstance(row, Row)
        yield row


def _check_may_fail(name: str, content: bytes, error: Exception) -> None:
    """Raises the error again if the lines of a file that is whole cannot be read."""
    if isinstance(error, DamagedInputError):
        # No bytes are no stream, to most; how an empty file counts is left to each format.
        if content and _decompressed(Path(name).suffix, content) is not None:
            raise AssertionError(f"{Path(name).suffix} that is whole counts as damaged") from error
    elif name.startswith("m.jsonl"):
        ending = Path(name).suffix
        text = content if name == "m.jsonl" else _decompressed(ending, content)
        if text is None or not _is_document(text):
            raise AssertionError("a manifest of lines fails as a whole") from error


def _is_document(text: bytes) -> bool:
    size = json_documents.HEAD_BYTES
    return json_documents.is_document(text[:size], is_whole=len(text) < size)


def _decompressed(ending: str, content: bytes) -> bytes | None:
    """The content of one or more compressed streams; None unless they are whole to the end."""
    text = []
    try:
        while content:
            stream = DECOMPRESSORS[ending]()
            text.append(stream.decompress(content))
            if not stream.eof:
                return None
            content = stream.unused_data.lstrip(b"\0" if ending in (".gz", ".xz") else b"")
    except (zlib.error, OSError, EOFError, lzma.LZMAError, zstandard.ZstdError):
        return None
    return b"".join(text)


def _count_lines(text: bytes) -> int:
    found = text.removeprefix(json_lines.BYTE_ORDER_MARK).split(b"\n")
    return sum(bool(line.decode("utf-8", "backslashreplace").strip()) for line in found)


def _end_of_row(row: Row) -> Hashable:
    try:
        parsing.parse(row)
    except ManifestError as error:
        record = _deeper(RUNNER_FRAMES, partial(failure, row, error))
        place = _place(error)
        assert record["error"]["message"].startswith(f"{row.manifest}:{row.line_number}: ")
    else:
        record = _deeper(RUNNER_FRAMES, Transcript(row, {"pred_text": "Grüße"}, 1.0).record)
        place = ()
    line = _deeper(RUNNER_FRAMES, partial(shards.encode, record))
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    written = json.loads(line)
    try:
        fields = _strict(row.line)
    except (ValueError, RecursionError):
        return place
    assert _is_strict(line), "JSON became what only Python takes for JSON"
    if isinstance(fields, dict) and written.get("line") != row.line:
        ours = {"pred_text", "error"}
        kept = {key: value for key, value in written.items() if key not in ours}
        wanted = {key: value for key, value in fields.items() if key not in ours}
        assert kept == wanted, "fields are not carried unchanged"
    return place


def _strict(line: str | bytes) -> Any:
    """JSON as RFC 8259 has it, without Python's NaN and Infinity."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    return json.loads(line, parse_constant=refuse)


def _is_strict(line: bytes) -> bool:
    try:
        _strict(line)
    except ValueError:
        return False
    return True


def _deeper(frames: int, function: Callable[[], Any]) -> Any:
    """Calls a function as a runner may, from deeper in the stack."""
    return _deeper(frames - 1, function) if frames else function()


# Audio


def _samples_or_error(
    read: Callable[..., np.ndarray], path: str, content: bytes | None
) -> tuple[np.ndarray | AudioError, Hashable]:
    try:
        samples = read(path, content=content)
    except AudioError as error:
        return error, _place(error)
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert len(samples)
    assert np.isfinite(samples).all(), "samples are NaN or infinite"
    return samples, ("samples", len(samples).bit_length())


# Tars


class _Pipe:
    """A file that can only be read, forwards, and some bytes at a time."""

    def __init__(self, content: bytes, most: int) -> None:
        self._content = io.BytesIO(content)
        self._most = most

    def read(self, size: int = -1) -> bytes:
        assert size > 0, "a stream may not be read whole"
        return self._content.read(min(size, self._most))


def _opened(content: bytes, most: int) -> contextlib.AbstractContextManager[Any]:
    return contextlib.nullcontext(_Pipe(content, most))


def _end_of_members(events: list[Any], rows: list[tuple[str, int]]) -> Hashable:
    last = events[-1] if events and isinstance(events[-1], nemo_tarred.RowsWithoutMember) else None
    given = [row for event in events if hasattr(event, "rows") for row in event.rows]
    assert Counter(given) == Counter(row for _, row in rows), "rows are lost or doubled"
    assert sum(isinstance(event, nemo_tarred.RowsWithoutMember) for event in events) == bool(last)
    cause = last and last.cause
    assert cause is None or type(cause) is TarError
    kinds = frozenset(type(event).__name__ for event in events)
    return kinds, cause and _place(cause.__cause__ or cause)


def _end_of_samples(content: bytes) -> Hashable:
    samples, damage = 0, None
    problems = set()
    try:
        for sample in webdataset.webdataset_samples(_Pipe(content, 1 << 20), "t.tar"):
            if not isinstance(sample, webdataset.Sample):
                continue
            samples += 1
            assert (sample.content is None) == (sample.problem is not None)
            if sample.problem:
                assert isinstance(sample.problem, ManifestError)
                problems.add(_place(sample.problem))
    except TarError as error:
        damage = error
    path = _written("t.tar", content)
    reader = TarReader(Storage(), "audio_filepath")
    events = list(reader.events(WebDatasetTar(path)))
    rows = [event.clip.row for event in events if isinstance(event, TarClip)]
    rows += [event.row for event in events if isinstance(event, UnreadRow)]
    for row in rows:
        json.loads(shards.encode(failure(row, ValueError("?"), stage="audio")))
    assert len(rows) == samples + bool(damage), "samples are lost or doubled"
    assert events.count(SampleFound()) == samples + bool(damage)
    return frozenset(problems), damage and _place(damage.__cause__ or damage)
