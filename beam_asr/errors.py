"""Defines every error that a user can meet, as one tree, and how messages are worded.

::

    BeamAsrError
        UsageError                      the command line; exit status 2
        SetupError                      the settings of a job
            NoInputError WrongInputError OutputExistsError FolderBusyError ResumeError
            UnfinishedError ResourceError PatternError ShardError ExpressionError
            StorageOptionsError
        InputError
            DamagedInputError TableError TarError PromptError
            ManifestError
                LineTooLongError NotJsonError NotAnObjectError DuplicateKeyError MissingAudioError
                BadFieldError BadRecordError MissingMemberError UnmappedRowError
                UnreadableFileError
        AudioError
            AudioNotFoundError AudioAccessError AudioTimeoutError AudioMemoryError EmptyAudioError
            NotAudioError (WrongExtensionError) CorruptAudioError (TruncatedAudioError)
            ZeroLengthAudioError TooLongAudioError OffsetBeyondEndError ChannelError
            CancelledChannelsError SilentAudioError NotAllowedError BelowMinDurationError
            AboveMaxDurationError SampleRateError ChannelCountError
        ModelError (NotFiniteError ClipTooLongError)
        SegmentsFailedError
        ModelLoadError
            AttentionError ModelFileError (DamagedModelError UnsafeModelError ModelTooLargeError)
        StorageError
            DeadlineError ReplacedError ShortReadError StorageReadError UnreachableError WriteError
        JobError
            LostRowsError TooManyFailuresError NothingKeptError FolderTakenError TextStepError

Two are elsewhere: ``RequestNotAllowedError`` (`storage.allow_list`), which is also an error of
aiohttp, and ``StalledError`` (`audio.read_pool`), which its callers always catch.

A message names a setting in backticks, with its value where that matters: `name` or `name=value`.
The command line turns them into flags (`records.setting_fields.with_flags`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator


class BeamAsrError(Exception):
    """The root of all errors of this package.

    Attributes:
        stage: of the job, for the failure record of a row, unless another stage caught the error;
            empty if it fails no single row.
        is_refusal: whether audio was refused by the job's checks, so that its row can count as
            filtered instead of failed.
        explained: whether the message alone tells a user what to do, so that a traceback is noise.
    """

    stage: str = ""
    is_refusal: bool = False
    explained: bool = False


class UsageError(BeamAsrError, ValueError):
    """The command line is not valid; nothing has been started."""


class SetupError(BeamAsrError, ValueError):
    """The settings of a job are not valid or not possible; nothing has been transcribed."""


class NoInputError(SetupError, FileNotFoundError):
    """An input matches no file."""

    explained = True


class WrongInputError(SetupError):
    """None of the first rows of an input can be right, or the job would replace the input."""

    explained = True


class OutputExistsError(SetupError):
    """The output folder is not empty, and no setting says what to do with its content."""


class FolderBusyError(SetupError, RuntimeError):
    """Another live run writes into the folder."""


class ResumeError(SetupError):
    """This run cannot resume the one in the folder."""

    explained = True


class UnfinishedError(SetupError):
    """A folder holds no finished results to read."""


class ResourceError(SetupError, RuntimeError):
    """A worker has less of a resource than requested; the message names it and the remedy."""


class PatternError(SetupError):
    """Braces that cannot be expanded."""


class ShardError(SetupError):
    """Tars that do not make one data set."""


class ExpressionError(SetupError):
    """An expression is not allowed; the message has the position and the alternatives."""


class StorageOptionsError(SetupError):
    """Storage options that are not valid."""


class InputError(BeamAsrError, ValueError):
    """An input, or a row of it, cannot be read as what it should be."""


class DamagedInputError(InputError):
    """An input's compressed data is damaged or cut short, so rows of it are lost."""

    explained = True


class TableError(InputError):
    """A defect of a whole table or JSON document: its records cannot be read reliably."""

    explained = True


class TarError(InputError):
    """A file that is not a tar, or a tar that is damaged or cut short."""

    stage = "audio"


class PromptError(InputError):
    """The model does not accept a clip's prompt; the message names the field and its choices."""

    stage = "manifest"


class ManifestError(InputError):
    """A line that cannot become a row; each subclass is one cause.

    Attributes:
        line: the text to show for it, where it is not the line of a row.
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
    """An object in the line has a key more than once, so that a value would be lost."""


class MissingAudioError(ManifestError):
    """The row does not name its audio."""


class BadFieldError(ManifestError):
    """A field that the job reads is not valid, or a field cannot be carried to the output."""


class BadRecordError(ManifestError):
    """A record of a table, or a cut, that its own format does not allow or the job cannot read."""


class MissingMemberError(ManifestError):
    """A sample without audio, or a row (of the stage ``audio``) that fits no member, or several."""


class UnmappedRowError(ManifestError):
    """No model takes the row, and there is none for all others."""


class UnreadableFileError(ManifestError):
    """With `watch`, a file cannot be read to its end, or has changed since it was found."""


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
        """Makes the error of a read that does not return.

        Args:
            seconds: the time limit; None for the reading of a whole recording.
        """
        limit = "to its end" if seconds is None else f"within {seconds:g} s"
        return cls(
            f"{name}: could not be read {limit}, and its storage does not answer. Fix the "
            "storage, or raise `audio_timeout`."
        )

    @classmethod
    def too_slow(cls, name: str, reason: str) -> AudioTimeoutError:
        """Makes the error of a read that returned after the time limit."""
        return cls(
            f"{name}: could not be read within the time limit ({reason}). Its storage stalls, or "
            "`audio_timeout` is too short for a file of its size."
        )


class AudioMemoryError(AudioError, MemoryError):
    """The worker had no memory for the clip, even when it read it again."""


class EmptyAudioError(AudioError):
    """The file has zero bytes."""


class NotAudioError(AudioError):
    """No decoder recognizes the content as audio."""


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
        """Makes the error of a file that is longer than a clip may be; both in seconds."""
        return cls(
            f"{name}: holds at least {seconds:.0f} s ({seconds / 3600:.1f} h) of audio to read, "
            f"and one clip may hold {limit:.0f} s ({limit / 3600:.1f} h) at most. Leave "
            "`segmentation=none` out, or choose parts of it by offset and duration."
        )

    @classmethod
    def of_row(cls, name: str, seconds: float, limit: float) -> TooLongAudioError:
        """Makes the error of a row that is longer than what is read at once; both in seconds."""
        return cls(
            f"{name}: its row of {seconds:g} s is longer than the {limit:g} s that are read in one "
            "piece."
        )


class SilentAudioError(AudioError):
    """Every sample is exactly zero: digital silence, which no microphone records."""

    @classmethod
    def of(cls, name: str, amount: str, offset: float) -> SilentAudioError:
        """Makes the error of an amount of audio, such as ``3 s``, from an offset in seconds on."""
        return cls(
            f"{name}: all {amount} from {offset:.2f} s on are exactly zero. No microphone gives "
            "that: the recording failed, or the sound is in another channel. Drop the row, or "
            "choose a channel."
        )


class OffsetBeyondEndError(AudioError, IndexError):
    """The offset is at or after the end of the file."""


class ChannelError(AudioError, IndexError):
    """The file lacks the chosen channel."""


class CancelledChannelsError(AudioError):
    """The channels cancel each other in their average, and none alone has all of the sound."""

    channel: int | None = None  # one that does have all of it, from 0


class NotAllowedError(AudioError, PermissionError):
    """The manifest points outside of `allowed_audio_prefixes`."""


class BelowMinDurationError(AudioError):
    """The audio is shorter than requested."""

    is_refusal = True


class AboveMaxDurationError(AudioError):
    """The audio is longer than requested."""

    is_refusal = True


class SampleRateError(AudioError):
    """The file has another sample rate than requested."""

    is_refusal = True


class ChannelCountError(AudioError):
    """The file has more or fewer channels than requested."""

    is_refusal = True


class ModelError(BeamAsrError, RuntimeError):
    """The model cannot transcribe a clip; the message says why, and what to do."""

    stage = "model"


class NotFiniteError(ModelError):
    """The output of the model for the clip has NaN or infinity."""

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
        """Makes the error of a clip that was alone when the memory was exhausted.

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
    """A model cannot be loaded; the message says which, why, and what to do."""

    explained = True


class AttentionError(ModelLoadError, ValueError):
    """A model does not support the attention requested; the message says what to do."""


class ModelFileError(ModelLoadError, ValueError):
    """A ``.nemo`` file cannot be used; the message says which, why, and what to do."""

    remedy = ""


class DamagedModelError(ModelFileError):
    """A ``.nemo`` file is not complete, or is something else."""

    remedy = "Fetch it again, and compare its size or checksum with those of its source"


class UnsafeModelError(ModelFileError):
    """A ``.nemo`` file would do more than load a model."""

    remedy = "Get the model from a place that you trust, as NeMo's save_to() packs it"


class ModelTooLargeError(ModelFileError):
    """A ``.nemo`` file needs more space to unpack than is free."""

    remedy = "Make room, or set TMPDIR to a folder with more"


class StorageError(BeamAsrError, ValueError):
    """A storage location that is not supported; the message says why and what to do."""

    explained = True


class DeadlineError(StorageError, TimeoutError):
    """The time that a file may take is over."""

    explained = False


class ReplacedError(StorageError):
    """A file was replaced or changed while it was read, or between two of its ranges."""

    @classmethod
    def of(cls, name: str) -> ReplacedError:
        """Makes the error of a file by its name, which must hold no query."""
        return cls(
            f"{name}: was replaced or changed while it was read, so that what was read is of two "
            "versions. Let whoever writes it finish, and run the job again."
        )


class ShortReadError(StorageError, ConnectionError):
    """A store sent fewer bytes of a range than it holds."""

    explained = False


class StorageReadError(StorageError, OSError):
    """A place cannot be listed, or a file of the job read; with its name, reason and remedy."""


class UnreachableError(StorageError):
    """The server of a file took no connection, at every attempt."""


class WriteError(StorageError, OSError):
    """A file could not be written or deleted; the message names it, the reason and the remedy."""


class JobError(BeamAsrError, RuntimeError):
    """The job as a whole has to end."""

    explained = True


class TextStepError(JobError):
    """A step on texts that another package adds fails; the message names the step."""


class LostRowsError(JobError):
    """The number of output records differs from the number of input rows."""


class NothingKeptError(JobError):
    """The condition keeps no row, and reads a field that no row has."""


class FolderTakenError(JobError):
    """Another run has taken the folder from this one, which must stop."""


class TooManyFailuresError(JobError):
    """Too many rows failed, so that the job rather than the rows is probably at fault."""

    @classmethod
    def of_manifest(
        cls, invalid: int, rows: int, max_fraction: float, example: str
    ) -> TooManyFailuresError:
        """Makes the error of invalid rows, before any audio is read."""
        return cls(
            f"{invalid} of {rows} rows are not right, more than {_allowed(max_fraction)}, so no "
            f"audio was read. One of them: {example}"
        )

    @classmethod
    def of_worker(
        cls, failed: int, rows: int, kinds: str, max_fraction: float, last: str
    ) -> TooManyFailuresError:
        """Makes the error of the first rows of a worker, while the job runs."""
        return cls(
            f"{failed} of the first {rows} rows of a worker failed ({kinds}), more than "
            f"{_allowed(max_fraction)}, so the job ends early. The last one: {last} Fix the cause "
            "and continue with `resume`, or raise the fraction if you expect that many failures"
        )

    @classmethod
    def of_job(
        cls, failed: int, rows: int, kinds: str, max_fraction: float
    ) -> TooManyFailuresError:
        """Makes the error of all rows, at the end of the job."""
        return cls(
            f"{failed} of {rows} rows failed ({kinds}), more than {_allowed(max_fraction)}. Read "
            "the failures in the output folder, fix the cause, or raise the fraction if you expect "
            "them"
        )

    @classmethod
    def of_all(cls, failed: int, kinds: str) -> TooManyFailuresError:
        """Makes the error of a job in which no row was transcribed, at its end."""
        return cls(
            f"{'the only row' if failed == 1 else f'all {failed} rows'} failed ({kinds}). Correct "
            "the input, or set `max_failure_fraction=1` if that is to be expected"
        )


def _allowed(max_fraction: float) -> str:
    return f"`max_failure_fraction={max_fraction:g}` allows"


def tree(root: type[BeamAsrError] = BeamAsrError) -> Iterator[type[BeamAsrError]]:
    """Yields a class of this module's tree and all below it, each before its subclasses."""
    yield root
    for subclass in root.__subclasses__():
        if subclass.__module__ == __name__:
            yield from tree(subclass)


MAX_CHARACTERS = 500  # of a message
# Control characters but tabs and ends of lines, marks that turn the direction of a text, further
# ends of lines, and halves of characters, which cannot be written.
UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_MAX_READ = 10_000  # characters are searched: some messages hold a tensor, or a whole program
_ARRAY = re.compile(r"\b(tensor|array)\((?:[^()]|\([^()]*\))*(?:\)|$)")


def for_message(value: object, limit: int, *, end: int = 0, gap: str = "...") -> str:
    """Returns a value as a message shows it: a text as it is, anything else as Python writes it.

    Args:
        limit: maximum characters; a longer text is shortened.
        end: number of last characters that a shortened text has.
        gap: replaces the characters that are left out.
    """
    text = value if isinstance(value, str) else repr(value)
    if len(text) <= limit:
        return text
    return f"{text[: limit - len(gap) - end]}{gap}{text[len(text) - end :]}"


def shortened(error: BaseException) -> str:
    """Returns an error's message in one line of bounded length, without numbers of tensors."""
    try:
        text = str(error)
    except Exception as failure:  # the message needs a tensor of a device that is lost
        text = f"it cannot say what happened, because of {type(failure).__name__}"
    line = " ".join(_ARRAY.sub(r"\1(...)", text[:_MAX_READ]).split())
    return for_message(line, MAX_CHARACTERS)


def causes(error: BaseException | None, *, contexts: bool = False) -> Iterator[BaseException]:
    """Yields an error and those that caused it.

    Args:
        contexts: whether to include errors that were being handled when it was raised.
    """
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        cause = pending.pop()
        if cause is not None and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            pending += [cause.__context__ if contexts else None, cause.__cause__]
