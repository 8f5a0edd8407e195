"""Every error that a user can meet, as one tree, with how a message is worded.

::

    BeamAsrError
        UsageError                      the command line; exit status 2
        SetupError                      what a job was asked for cannot be
            NoInputError OutputExistsError FolderBusyError ResumeError ResourceError
            PatternError ShardError ExpressionError StorageOptionsError
        InputError
            DamagedInputError TableError TarError PromptError
            ManifestError
                LineTooLongError NotJsonError NotAnObjectError DuplicateKeyError MissingAudioError
                BadFieldError BadRecordError MissingMemberError UnmappedRowError
        AudioError
            AudioNotFoundError AudioAccessError AudioTimeoutError AudioMemoryError EmptyAudioError
            NotAudioError (WrongExtensionError) CorruptAudioError (TruncatedAudioError)
            ZeroLengthAudioError TooLongAudioError OffsetBeyondEndError ChannelError
            SilentAudioError NotAllowedError
            BelowMinDurationError AboveMaxDurationError SampleRateError ChannelCountError
        ModelError
            NotFiniteError ClipTooLongError
        SegmentsFailedError
        ModelLoadError
            AttentionError
            ModelFileError (DamagedModelError UnsafeModelError ModelTooLargeError)
        StorageError
            DeadlineError ShortReadError
        JobError
            LostRowsError TooManyFailuresError FolderTakenError TextStepError

Two are elsewhere: ``RequestNotAllowedError`` (`storage.allow_list`), which is an error of aiohttp's
too, and ``StalledError`` (`audio.read_pool`), which never leaves its file's callers.

A message names a setting in backticks, with its value where that matters: `name` or `name=value`.
The command line makes flags of them (`with_flags`).
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Collection, Iterator


class BeamAsrError(Exception):
    """The root of all errors of this package.

    Attributes:
        stage: of the job, as the failure record of a row names it, unless it was caught at another
            one; empty if it fails no single row.
        is_refusal: whether audio was refused by the job's checks, so that its row can be taken for
            filtered, and not for failed.
        explained: whether the message alone tells a user what to do, so that a traceback is noise.
    """

    stage: str = ""
    is_refusal: bool = False
    explained: bool = False


class UsageError(BeamAsrError, ValueError):
    """The command line asks for something that cannot be; nothing has been started."""


class SetupError(BeamAsrError, ValueError):
    """What a job was asked for cannot be; nothing has been transcribed."""


class NoInputError(SetupError, FileNotFoundError):
    """An input stands for no file."""

    explained = True


class OutputExistsError(SetupError):
    """The output folder is not empty, and nobody said what to do with what is there."""


class FolderBusyError(SetupError, RuntimeError):
    """Another run that lives writes into the folder."""


class ResumeError(SetupError):
    """A run cannot be gone on with by this one."""

    explained = True


class ResourceError(SetupError, RuntimeError):
    """A worker has less than what was asked for; the message says of what, and what to do."""


class PatternError(SetupError):
    """Braces that cannot be expanded."""


class ShardError(SetupError):
    """Tars that do not make one data set."""


class ExpressionError(SetupError):
    """An expression is not one of those allowed; the message has the place and what is."""


class StorageOptionsError(SetupError):
    """Storage options that cannot be."""


class InputError(BeamAsrError, ValueError):
    """An input, or a row of it, cannot be read as what it should be."""


class DamagedInputError(InputError):
    """An input's compressed data is damaged or cut short, so rows of it are lost."""

    explained = True


class TableError(InputError):
    """A defect of a whole table: none of its records can be told for certain."""

    explained = True


class TarError(InputError):
    """A file that is no tar, or a tar that is damaged or breaks off."""

    stage = "audio"


class PromptError(InputError):
    """The prompt of a clip is none that the model takes; says which field, and what is allowed."""

    stage = "manifest"


class ManifestError(InputError):
    """A line that cannot become a row; each subclass is one cause.

    Attributes:
        line: what was read and is to be shown of it, where that is no row's line.
    """

    stage = "manifest"

    def __init__(self, message: str, line: str = ""):
        super().__init__(message)
        self.line = line


class LineTooLongError(ManifestError):
    """The line, or the record of a table, is above 16 MiB; ``line`` is its beginning."""


class NotJsonError(ManifestError):
    """The line is not JSON in UTF-8, or nests more than 100 deep."""


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
    """A sample without audio, or a row (then of the stage ``audio``) whose audio is in no tar."""


class UnmappedRowError(ManifestError):
    """No model takes the row, and there is none for all others."""


class AudioError(BeamAsrError, ValueError):
    """A clip cannot be read; the message names the file, what is wrong, and what to do."""

    stage = "audio"


class AudioNotFoundError(AudioError, FileNotFoundError):
    """There is no file at this path."""


class AudioAccessError(AudioError, PermissionError):
    """The storage system knows the file but refuses to hand it out."""


class AudioTimeoutError(AudioError, TimeoutError):
    """The file could not be read within the time that a file may take."""

    @classmethod
    def stalled(cls, name: str, seconds: float | None) -> AudioTimeoutError:
        """The error of a read that does not come back.

        Args:
            seconds: that it might take; None for the reading of a whole recording.
        """
        limit = "to its end" if seconds is None else f"within {seconds:g} s"
        return cls(
            f"{name}: could not be read {limit}, and its storage does not answer. Mend the "
            "storage, or raise `audio_timeout`."
        )

    @classmethod
    def too_slow(cls, name: str, reason: str) -> AudioTimeoutError:
        """The error of a read that came back after the time limit."""
        return cls(
            f"{name}: could not be read within the time limit ({reason}). Its storage stalls, or "
            "`audio_timeout` is too short for a file of its size."
        )


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
    """The clip is longer than one waveform may be: 12 hours, with `segmentation=none`."""

    @classmethod
    def of_file(cls, name: str, seconds: float, limit: float) -> TooLongAudioError:
        """The error of a file that holds more than a clip may; both in seconds."""
        return cls(
            f"{name}: holds at least {seconds:.0f} s ({seconds / 3600:.1f} h) of audio to read, "
            f"and one clip may hold {limit:.0f} s ({limit / 3600:.1f} h) at most. Leave "
            "`segmentation=none` out, or choose parts of it by offset and duration."
        )

    @classmethod
    def of_row(cls, name: str, seconds: float, limit: float) -> TooLongAudioError:
        """The error of a row that says that it is longer than what is read at once."""
        return cls(
            f"{name}: its row of {seconds:g} s is longer than the {limit:g} s that are read in one "
            "piece."
        )


class SilentAudioError(AudioError):
    """Every sample is exactly zero: digital silence, which no microphone gives."""

    @classmethod
    def of(cls, name: str, amount: str, offset: float) -> SilentAudioError:
        """The error of an amount of audio, such as ``3 s``, from an offset in seconds on."""
        return cls(
            f"{name}: all {amount} from {offset:.2f} s on are exactly zero. No microphone gives "
            "that: the recording failed, or the channels cancel each other. Drop the row, or "
            "choose a channel."
        )


class OffsetBeyondEndError(AudioError, IndexError):
    """The offset is at or after the end of the file."""


class ChannelError(AudioError, IndexError):
    """The file lacks the chosen channel."""


class NotAllowedError(AudioError, PermissionError):
    """The manifest points to what `allowed_audio_prefixes` does not name."""


class BelowMinDurationError(AudioError):
    """The audio is shorter than was asked for."""

    is_refusal = True


class AboveMaxDurationError(AudioError):
    """The audio is longer than was asked for."""

    is_refusal = True


class SampleRateError(AudioError):
    """The file has another sample rate than was asked for."""

    is_refusal = True


class ChannelCountError(AudioError):
    """The file has more or fewer channels than was asked for."""

    is_refusal = True


class ModelError(BeamAsrError, RuntimeError):
    """A clip that the model cannot transcribe; the message says why, and what to do."""

    stage = "model"


class NotFiniteError(ModelError):
    """What the model computed of the clip holds NaN or infinity."""

    MESSAGE = (
        "what the model computed of this clip holds NaN or infinity, so that a text would mean "
        "nothing. Listen to the audio; if many clips fail so, the model or its precision is to "
        "blame: try `precision=fp32`"
    )

    def __init__(self, message: str = MESSAGE) -> None:
        super().__init__(message)


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
            "Give a smaller `max_segment_seconds`, with which it is cut, or the worker more memory"
        )
        if less_precision:
            remedies += ", or choose `precision=bf16`"
        error = cls(
            f"this clip of {seconds:.1f} s does not fit into the memory{of_memory}, even alone. "
            f"{remedies}. The cause: {type(cause).__name__}: {shortened(cause)}"
        )
        error.__cause__ = cause
        return error


class SegmentsFailedError(BeamAsrError, RuntimeError):
    """Some of a row's segments could not be transcribed; its stage is that of the first one."""

    def __init__(self, message: str, stage: str = ""):
        super().__init__(message)
        self.stage = stage


class ModelLoadError(BeamAsrError, RuntimeError):
    """A model cannot be loaded; says which, why, and what to do."""

    explained = True


class AttentionError(ModelLoadError, ValueError):
    """A model has no attention that could be changed so; says which model, and what to do."""


class ModelFileError(ModelLoadError, ValueError):
    """A ``.nemo`` file that cannot be used; says which, why, and what to do."""

    remedy = ""


class DamagedModelError(ModelFileError):
    """A ``.nemo`` file is not whole, or is something else."""

    remedy = "Fetch it again, and compare its size or checksum with those of its source"


class UnsafeModelError(ModelFileError):
    """A ``.nemo`` file would do more than give a model."""

    remedy = "Get the model from a place that you trust, as NeMo's save_to() packs it"


class ModelTooLargeError(ModelFileError):
    """A ``.nemo`` file needs more space than there is to unpack it."""

    remedy = "Make room, or set TMPDIR to a folder with more"


class StorageError(BeamAsrError, ValueError):
    """A place that no storage here can serve; says why and what to do."""

    explained = True


class DeadlineError(StorageError, TimeoutError):
    """The time that a file may take is over."""

    explained = False


class ShortReadError(StorageError, ConnectionError):
    """A store sent fewer bytes of a range than it holds."""

    explained = False


class JobError(BeamAsrError, RuntimeError):
    """The job as a whole has to end."""

    explained = True


class TextStepError(JobError):
    """A step on texts that another package adds fails; the message names the step."""


class LostRowsError(JobError):
    """The records that came out are not as many as the rows that went in."""


class FolderTakenError(JobError):
    """Another run has taken the folder from this one, which must stop."""


class TooManyFailuresError(JobError):
    """So many rows failed that something is wrong with the job rather than with the rows."""

    @classmethod
    def of_manifest(
        cls, invalid: int, rows: int, max_fraction: float, example: str
    ) -> TooManyFailuresError:
        """The error of rows that are not right, before any audio is read."""
        return cls(
            f"{invalid} of {rows} rows are not right, more than {_allowed(max_fraction)}, so no "
            f"audio was read. One of them: {example}"
        )

    @classmethod
    def of_worker(
        cls, failed: int, rows: int, kinds: str, max_fraction: float, last: str
    ) -> TooManyFailuresError:
        """The error of the first rows of a worker, while the job runs."""
        return cls(
            f"{failed} of the first {rows} rows of a worker failed ({kinds}), more than "
            f"{_allowed(max_fraction)}, so the job ends early. The last one: {last} Mend the cause "
            "and go on with `resume`, or raise the fraction if so many are to be expected"
        )

    @classmethod
    def of_job(
        cls, failed: int, rows: int, kinds: str, max_fraction: float
    ) -> TooManyFailuresError:
        """The error of all rows, at the end."""
        return cls(
            f"{failed} of {rows} rows failed ({kinds}), more than {_allowed(max_fraction)}. Read "
            "the failures in the output folder, mend the cause, or raise the fraction if they are "
            "to be expected"
        )


def _allowed(max_fraction: float) -> str:
    return f"`max_failure_fraction={max_fraction:g}` allows"


def tree(root: type[BeamAsrError] = BeamAsrError) -> Iterator[type[BeamAsrError]]:
    """Yields a class of this module's tree and all below it, each before its subclasses."""
    yield root
    for each in root.__subclasses__():
        if each.__module__ == __name__:
            yield from tree(each)


logger = logging.getLogger(__name__)
MAX_CHARACTERS = 500  # of a message
# What is looked at of a message; some hold a whole tensor, or a whole program.
_MAX_READ = 10_000
_ARRAY = re.compile(r"\b(tensor|array)\((?:[^()]|\([^()]*\))*(?:\)|$)")
_SETTING = re.compile(r"`([a-z]\w*)(=[^`\s]+)?`")


def with_flags(text: str, names: Collection[str]) -> str:
    """Returns a message with its settings as flags: ``--name`` and ``--name=value``.

    Args:
        names: of the settings that have a flag; what else is in backticks stays.
    """
    return _SETTING.sub(
        lambda found: f"--{found[1]}{found[2] or ''}" if found[1] in names else found[0], text
    )


def for_message(value: object, limit: int, *, end: int = 0, gap: str = "...") -> str:
    """Returns a value as a message shows it: a text as it is, anything else as Python writes it.

    Args:
        limit: characters that it may have; of more, some are left out.
        end: how many of its last characters stay then.
        gap: stands for those that are left out.
    """
    text = value if isinstance(value, str) else repr(value)
    if len(text) <= limit:
        return text
    return f"{text[: limit - len(gap) - end]}{gap}{text[len(text) - end :]}"


def shortened(error: BaseException) -> str:
    """What an error says, in one line of bounded length, without the numbers of tensors."""
    try:
        text = str(error)
    except Exception as unsaid:  # a tensor in it, of a device that gives nothing any more
        text = f"it cannot say what happened, because of {type(unsaid).__name__}"
    line = " ".join(_ARRAY.sub(r"\1(...)", text[:_MAX_READ]).split())
    return for_message(line, MAX_CHARACTERS)


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
    for each in causes(error, contexts=True):
        traceback.clear_frames(each.__traceback__)
        each.__traceback__ = None


def causes(error: BaseException | None, *, contexts: bool = False) -> Iterator[BaseException]:
    """Yields an error and those that caused it.

    Args:
        contexts: whether those count too that were being handled when it was raised.
    """
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        each = left.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            yield each
            left += [each.__context__ if contexts else None, each.__cause__]


def _says(error: Exception, message: str) -> bool:
    """Whether it says just that, and holds nothing else to say it of."""
    try:
        return str(error) == message and all(
            isinstance(each, (str, int, float, type(None))) for each in error.args
        )
    except Exception:
        return False
