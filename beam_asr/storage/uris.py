"""Which file names say audio: what libsndfile and FFmpeg read, by the usual extensions."""

import posixpath

AUDIO_EXTENSIONS = frozenset(
    ".3gp .aac .aif .aifc .aiff .amr .asf .au .avi .awb .caf .flac .g722 .m4a .m4b .m4v .mka .mkv "
    ".mov .mp2 .mp3 .mp4 .mpga .nist .oga .ogg .opus .rf64 .snd .sph .voc .w64 .wav .wave "
    ".webm .wma".split()
)


def extension(uri: str) -> str:
    """The extension of a path or URI, in lower case, with its dot; a query does not count."""
    return posixpath.splitext(uri.partition("?")[0])[1].lower()


def is_audio(uri: str) -> bool:
    """Whether a file is audio by its name."""
    return extension(uri) in AUDIO_EXTENSIONS
