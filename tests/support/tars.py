"""Tars, and what comes of them."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import tarfile
import tracemalloc

import numpy as np
import soundfile

from beam_asr.errors import TarError
from beam_asr.inputs.nemo_tarred import MemberWithoutRow, nemo_members
from beam_asr.inputs.webdataset import Sample, webdataset_samples

PACK = {"plain": bytes, "gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}


FORMATS = [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]


END = 1024  # bytes of zeros that end a tar


def tar_of(*members, fmt=tarfile.PAX_FORMAT):
    """A tar of (name, content) or `TarInfo`, without the padding to a record that follows its end.

    A header with a size gets no content.
    """
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=fmt) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                header = tarfile.TarInfo(member[0])
                header.size = len(member[1])
                tar.addfile(header, io.BytesIO(member[1]))
        end = tar.offset + END
    return made.getvalue()[:end]


def special(name, kind, target="x.wav"):
    header = tarfile.TarInfo(name)
    header.type = kind
    header.linkname = target
    return header


class Pipe:
    """A file that can only be read, forwards; it counts, and fails at a chosen place."""

    def __init__(self, parts, fail_at=None, error=None):
        self._parts = iter([parts] if isinstance(parts, bytes) else parts)
        self._left = b""
        self._fail_at, self._error = fail_at, error
        self.reads, self.bytes, self.largest = 0, 0, 0

    def read(self, size=-1):
        assert size > 0
        if self.reads == self._fail_at:
            raise self._error
        if not self._left:
            self._left = next(self._parts, b"")
        data, self._left = self._left[:size], self._left[size:]
        self.reads, self.bytes = self.reads + 1, self.bytes + len(data)
        self.largest = max(self.largest, size)
        return data


def opening(file):
    """Opens a tar, which is its bytes, or a file that can be read once."""
    return lambda: contextlib.nullcontext(Pipe(file) if isinstance(file, bytes) else file)


def events(tar, *names, done=()):
    """What comes of a tar whose rows are their own names."""
    return list(nemo_members(opening(tar), "T.tar", [(name, name) for name in names], done))


def samples(tar):
    """The samples of a tar, and the error that they end with."""
    found = []
    try:
        for sample in webdataset_samples(Pipe(tar), "T.tar"):
            if isinstance(sample, Sample):
                found.append(sample)
    except TarError as error:
        return found, error
    return found, None


def rows_in(found):
    return [row for event in found if not isinstance(event, MemberWithoutRow) for row in event.rows]


def flac(seconds):
    made = io.BytesIO()
    soundfile.write(made, np.zeros(int(16000 * seconds)), 16000, format="FLAC")
    return made.getvalue()


def peak_of(consume):
    tracemalloc.start()
    consume()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def header_of(name, size):
    header = tarfile.TarInfo(name)
    header.size = size
    return header.tobuf(tarfile.GNU_FORMAT)
