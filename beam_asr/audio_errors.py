"""Why a clip could not be read: one family, `AudioError`, for everything that is the clip's fault.

A storage system that is down, or credentials that are missing, are not the clip's fault: those
errors leave `beam_asr.audio.reading` as they came, so that the caller can retry them.
"""


class AudioError(ValueError):
    """A clip cannot be read; the message names the file, what is wrong, and what to do."""


class AudioNotFoundError(AudioError, FileNotFoundError):
    """There is no file at this path."""


class AudioAccessError(AudioError, PermissionError):
    """The storage system knows the file but refuses to hand it out."""


class AudioTimeoutError(AudioError, TimeoutError):
    """The file could not be read within the time that a file may take."""


class AudioMemoryError(AudioError, MemoryError):
    """The worker had no memory for the clip, nor when it read it again."""


class EmptyAudioError(AudioError):
    """The file has zero bytes."""


class NotAudioError(AudioError):
    """Nothing recognises the content as audio."""


class WrongExtensionError(NotAudioError):
    """The name says audio; the content is another kind of file, which the message names."""


class CorruptAudioError(AudioError):
    """The content is audio, but its header is impossible or its samples cannot be decoded."""


class TruncatedAudioError(CorruptAudioError):
    """The header, or the manifest row, promises more samples than the file holds."""


class ZeroLengthAudioError(AudioError):
    """The header is valid and no samples follow it."""


class TooLongAudioError(AudioError):
    """The clip holds more audio than one waveform may."""


class SilentAudioError(AudioError):
    """Every sample is exactly zero: digital silence, which no microphone gives."""


class OffsetBeyondEndError(AudioError, IndexError):
    """The offset is at or after the end of the file."""


class ChannelError(AudioError, IndexError):
    """The file lacks the chosen channel."""


class BelowMinDurationError(AudioError):
    """The audio is shorter than was asked for."""


class AboveMaxDurationError(AudioError):
    """The audio is longer than was asked for."""


class SampleRateError(AudioError):
    """The file has another sample rate than was asked for."""


class ChannelCountError(AudioError):
    """The file has more or fewer channels than was asked for."""
