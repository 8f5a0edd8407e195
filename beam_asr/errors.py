"""Every error that a user can meet, as one tree."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Iterator


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


class SetupError(ValueError):
    """What a job was asked for cannot be; nothing has been transcribed."""


class UsageError(ValueError):
    """The command line asks for something that cannot be; nothing has been started."""


class ManifestError(ValueError):
    """A line that cannot become a row; each subclass is one cause.

    Attributes:
        line: what was read and is to be shown of it, where that is no row's line.
    """

    def __init__(self, message: str, line: str = ""):
        super().__init__(message)
        self.line = line


class LineTooLongError(ManifestError):
    """The line, or the record of a table, is longer than any row."""


class NotJsonError(ManifestError):
    """The line is not JSON in UTF-8, or nests deeper than any row."""


class NotAnObjectError(ManifestError):
    """The line is JSON, but not an object."""


class DuplicateKeyError(ManifestError):
    """An object in the line has a key more than once, so that not all of it could be kept."""


class MissingAudioError(ManifestError):
    """The row does not name its audio."""


class BadFieldError(ManifestError):
    """A field that the job reads has a value it cannot have, or any field one that is not kept."""


class BadRecordError(ManifestError):
    """A record of a table, or a cut, that its own format does not allow or the job cannot read."""


class MissingMemberError(ManifestError):
    """A row of a tarred data set whose audio is in no tar."""


class UnmappedRowError(ManifestError):
    """No model takes the row, and there is none for all others."""


logger = logging.getLogger(__name__)
MAX_CHARACTERS = 500  # of a message
# What is looked at of a message; some hold a whole tensor, or a whole program.
_MAX_READ = 10_000
_ARRAY = re.compile(r"\b(tensor|array)\((?:[^()]|\([^()]*\))*(?:\)|$)")


class ModelError(RuntimeError):
    """A clip that the model cannot transcribe; the message says why, and what to do."""


class NotFiniteError(ModelError):
    """What the model computed of the clip holds NaN or infinity."""

    def __init__(self) -> None:
        super().__init__(
            "what the model computed of this clip holds NaN or infinity, so that a text would mean "
            "nothing. Listen to the audio; if many clips fail so, the model or its precision is to "
            "blame: try --precision=fp32"
        )


class ClipTooLongError(ModelError):
    """The clip does not fit into the memory, even alone."""

    @classmethod
    def of(
        cls, seconds: float, memory: float | None, cause: BaseException, less_precision: bool
    ) -> ClipTooLongError:
        """The error of a clip that was alone when the memory was exhausted.

        Args:
            seconds: of the clip.
            memory: bytes of the device; None if that is not known.
            less_precision: whether the model could take less memory with rounded weights.
        """
        of_memory = "" if memory is None else f" of {memory / 2**30:.1f} GiB"
        remedies = (
            "Give a smaller --max_segment_seconds, with which it is cut, or the worker more memory"
        )
        if less_precision:
            remedies += ", or choose --precision=bf16"
        error = cls(
            f"this clip of {seconds:.1f} s does not fit into the memory{of_memory}, even alone. "
            f"{remedies}. The cause: {type(cause).__name__}: {shortened(cause)}"
        )
        error.__cause__ = cause
        return error


def shortened(error: BaseException) -> str:
    """What an error says, in one line of bounded length, without the numbers of tensors."""
    try:
        text = str(error)
    except Exception as unsaid:  # a tensor in it, of a device that gives nothing any more
        text = f"it cannot say what happened, because of {type(unsaid).__name__}"
    line = " ".join(_ARRAY.sub(r"\1(...)", text[:_MAX_READ]).split())
    return line if len(line) <= MAX_CHARACTERS else f"{line[: MAX_CHARACTERS - 3]}..."


def without_tensors(error: Exception) -> Exception:
    """The same error, with a message of one bounded line, and holding no tensors.

    Its class is the same, or one of the same name where that class words its messages itself.
    """
    message = shortened(error)
    if _says(error, message):
        return error
    error.args = (message,)
    if _says(error, message):
        return error
    like: Exception = type(type(error).__name__, (ModelError,), {})(message)
    return like


def release_frames(error: BaseException) -> None:
    """Lets go of what the calls that failed still hold: tensors, of this batch and maybe others.

    Where they failed goes with it, but to the log, for those who debug.
    """
    logger.debug("A forward pass failed", exc_info=error)
    for each in causes(error):
        traceback.clear_frames(each.__traceback__)
        each.__traceback__ = None


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error and those that led to it."""
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        each = left.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            yield each
            left += [each.__context__, each.__cause__]


def _says(error: Exception, message: str) -> bool:
    """Whether it says just that, and holds nothing else to say it of."""
    try:
        return str(error) == message and all(
            isinstance(each, (str, int, float, type(None))) for each in error.args
        )
    except Exception:
        return False


class DeadlineError(TimeoutError):
    """The time that a file may take is over."""


class StorageError(ValueError):
    """A place that no storage here can serve; says why and what to do."""


class StorageOptionsError(ValueError):
    """Storage options that cannot be."""
