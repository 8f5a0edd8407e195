"""Parses paths and URIs: storage, extension, glob, and whether a name is audio's."""

from __future__ import annotations

import os
import posixpath

from beam_asr.storage import protocols

# The usual extensions of the formats that libsndfile and FFmpeg read.
AUDIO_EXTENSIONS = frozenset(
    ".3gp .aac .aif .aifc .aiff .amr .asf .au .avi .awb .caf .flac .g722 .m4a .m4b .m4v .mka .mkv "
    ".mov .mp2 .mp3 .mp4 .mpga .nist .oga .ogg .opus .rf64 .snd .sph .voc .w64 .wav .wave "
    ".webm .wma".split()
)


def extension(uri: str) -> str:
    """Returns the extension of a path or URI, in lower case, with its dot, without a query."""
    return posixpath.splitext(uri.partition("?")[0])[1].lower()


def is_audio(uri: str) -> bool:
    """Returns whether a file is audio by its name."""
    return extension(uri) in AUDIO_EXTENSIONS


GLOB_CHARACTERS = frozenset("*?[")


def is_local(uri: str) -> bool:
    """Returns whether a path or URI is a local file, not in a chain."""
    return "::" not in uri and protocol_of(uri) == "file"


def protocol_of(uri: str) -> str:
    """Returns the storage of a path or URI by its canonical name: ``file``, ``gs``, ``s3``, ...

    That of a chain (``zip://a.wav::s3://b/c.zip``) is its first link's.
    """
    scheme, separator, _ = uri.partition("::")[0].partition("://")
    if not separator:
        scheme = uri.partition("::")[0] if "::" in uri else "file"
    return protocols.find_protocol(scheme.lower()).name


def local_path(uri: str) -> str:
    """Returns the path of a local URI or path."""
    return os.path.expanduser(uri.partition("://")[2] if "://" in uri else uri)


def is_glob(pattern: str) -> bool:
    """Returns whether a path or URI is a glob; a local file that exists is not."""
    if protocol_of(pattern) == "http":  # where ? begins the query
        return not frozenset("*[").isdisjoint(pattern.partition("?")[0])
    if is_local(pattern) and os.path.exists(local_path(pattern)):
        return False
    return not GLOB_CHARACTERS.isdisjoint(pattern)


def join(folder: str, *names: str) -> str:
    """Joins a folder's path or URI with names."""
    return posixpath.join(folder, *names)
