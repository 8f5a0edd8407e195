"""Puts the audio of rows into a page, up to a limit, or a link to it."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from beam_asr.audio.excerpt import read_excerpt
from beam_asr.outputs.report.run_fields import RunFields
from beam_asr.records.record import Record
from beam_asr.records.work import Clip
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import is_local, local_path, protocol_of, without_secrets

MAX_BYTES = 6_000_000  # of all audio in a page, as base64 has it
MAX_SECONDS = 60.0  # of a row's audio
TIMEOUT = 60.0  # seconds to read a row's audio
THREADS = 4
READ_AHEAD = 16  # rows


class Excerpt(NamedTuple):
    """The audio of a row, for a page.

    Attributes:
        media: MP3 in base64; empty if there is none in the page.
        link: a URL to the whole file; empty without one.
        is_cut: whether ``media`` is the beginning of a longer row.
        problem: why there is no audio; empty if there is some, or no room for it.
    """

    media: str = ""
    link: str = ""
    is_cut: bool = False
    problem: str = ""


def excerpts(records: Iterable[Record], fields: RunFields, storage: Storage) -> Iterator[Excerpt]:
    """Yields the excerpt of each record, in order, and links alone once the room is used up."""
    room = MAX_BYTES
    with ThreadPoolExecutor(THREADS) as pool:
        waiting = list(records)
        for start in range(0, len(waiting), READ_AHEAD):
            part = waiting[start : start + READ_AHEAD]
            read = partial(_excerpt, fields=fields, storage=storage, may_read=room > 0)
            for excerpt in pool.map(read, part):
                if len(excerpt.media) > room:
                    room = 0
                    excerpt = excerpt._replace(media="", is_cut=False)
                room -= len(excerpt.media)
                yield excerpt


def _excerpt(record: Record, fields: RunFields, storage: Storage, may_read: bool) -> Excerpt:
    problem: Any = "the row does not name audio that can be read here"
    for clip in fields.clips_of(record):
        link = _link(clip.audio, storage)
        if not may_read:
            return Excerpt(link=link)
        try:
            return _read(clip, storage)._replace(link=link)
        except Exception as error:  # of a file that was moved, a storage, a decoder
            problem = error
    return Excerpt(problem=without_secrets(" ".join(str(problem).split()))[:300])


def _read(clip: Clip, storage: Storage) -> Excerpt:
    content, is_cut = read_excerpt(
        clip.audio,
        offset=clip.offset,
        duration=clip.duration,
        channel=clip.channel if isinstance(clip.channel, int) else None,
        max_seconds=MAX_SECONDS,
        storage=storage,
        deadline=time.monotonic() + TIMEOUT,
    )
    return Excerpt(base64.b64encode(content).decode(), is_cut=is_cut)


def _link(audio: str, storage: Storage) -> str:
    """Returns a URL to a file that a browser opens; empty if there is none without secrets."""
    if is_local(audio):
        return Path(local_path(audio)).absolute().as_uri()
    if protocol_of(audio) == "http":
        return audio if without_secrets(audio) == audio else ""
    return storage.sign(audio)
