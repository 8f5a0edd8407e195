"""Frees errors of the tensors that they hold: in messages, arguments and frames."""

from __future__ import annotations

import logging
import traceback

from beam_asr.errors import ModelError, causes, shortened

logger = logging.getLogger(__name__)


def without_tensors(error: Exception) -> Exception:
    """Returns the error with a message of one bounded line, and without tensors.

    Its class is the same, or one of the same name where that class makes its message itself.
    """
    message = shortened(error)
    if _has_only(error, message):
        return error
    error.args = (message,)
    if _has_only(error, message):
        return error
    copy: Exception = type(type(error).__name__, (ModelError,), {})(message)
    return copy


def release_frames(error: BaseException) -> None:
    """Frees the tensors that the frames of the failed calls hold, of this batch and maybe others.

    The traceback is lost with them, so it is logged first, at debug level.
    """
    logger.debug("A forward pass failed", exc_info=error)
    for cause in causes(error, contexts=True):
        traceback.clear_frames(cause.__traceback__)
        cause.__traceback__ = None


def _has_only(error: Exception, message: str) -> bool:
    """Tells whether an error has this message, and no argument that may hold a tensor."""
    try:
        return str(error) == message and all(
            isinstance(value, (str, int, float, type(None))) for value in error.args
        )
    except Exception:
        return False
