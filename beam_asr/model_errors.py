"""Why a clip that was read cannot be transcribed, and how the errors of models are kept small."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Iterator

logger = logging.getLogger(__name__)

MOST_LETTERS = 500  # of a message
# What is looked at of a message; some hold a whole tensor, or a whole program.
_MOST_READ = 10_000

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
            f"{remedies}. The cause: {type(cause).__name__}: {message_of(cause)}"
        )
        error.__cause__ = cause
        return error


def message_of(error: BaseException) -> str:
    """What an error says, in one line of bounded length, without the numbers of tensors."""
    try:
        text = str(error)
    except Exception as unsaid:  # a tensor in it, of a device that gives nothing any more
        text = f"it cannot say what happened, because of {type(unsaid).__name__}"
    line = " ".join(_ARRAY.sub(r"\1(...)", text[:_MOST_READ]).split())
    return line if len(line) <= MOST_LETTERS else f"{line[: MOST_LETTERS - 3]}..."


def small(error: Exception) -> Exception:
    """The same error, with a message of one bounded line, and holding no tensors.

    Its class is the same, or one of the same name where that class words its messages itself.
    """
    message = message_of(error)
    if _says(error, message):
        return error
    error.args = (message,)
    if _says(error, message):
        return error
    like: Exception = type(type(error).__name__, (ModelError,), {})(message)
    return like


def release(error: BaseException) -> None:
    """Lets go of what the calls that failed still hold: tensors, of this batch and maybe others.

    Where they failed goes with it, but to the log, for those who debug.
    """
    logger.debug("A forward pass failed", exc_info=error)
    for each in chain_of(error):
        traceback.clear_frames(each.__traceback__)
        each.__traceback__ = None


def chain_of(error: BaseException) -> Iterator[BaseException]:
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
