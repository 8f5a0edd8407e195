"""Classifies storage errors as transient or permanent, and retries requests."""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from beam_asr.errors import (
    DeadlineError,
    StorageError,
    StorageReadError,
    WriteError,
    causes,
    shortened,
)
from beam_asr.storage import protocols, uris

Result = TypeVar("Result")
ATTEMPTS = 5
FIRST_WAIT_SECONDS = 0.5  # maximum before the second attempt; doubled for each one after it
MAX_WAIT_SECONDS = 20.0
TRANSIENT_STATUS = frozenset([408, 425, 429, 500, 502, 503, 504])
REFUSED_STATUS = frozenset([400, 401, 403])  # of a signature that is wrong or has expired
TRANSIENT_ERRNO = frozenset(
    [errno.EAGAIN, errno.EBUSY, errno.ECONNRESET, errno.ESTALE, errno.ETIMEDOUT]
)
# asyncio's TimeoutError differed from Python's before 3.11.
TRANSIENT_CLASSES = protocols.TRANSIENT_CLASSES | {"TimeoutError"}


def is_transient(error: BaseException) -> bool:
    """Returns whether a retry may succeed: too many requests, 5xx, resets, stalls, time-outs."""
    if isinstance(error, DeadlineError):
        return False
    for cause in causes(error):
        if _is_broken_connection(cause):
            return True
        status = _status(cause)
        if status is not None:
            return status in TRANSIENT_STATUS
    return False


def status_of(error: BaseException) -> int | None:
    """Returns the HTTP status of an error of any storage library; None if it has none.

    s3fs, and fsspec's http, store it in the cause of the error that they raise.
    """
    statuses = (_status(cause) for cause in causes(error))
    return next((status for status in statuses if status is not None), None)


def refused_query(uri: str, error: BaseException) -> str | None:
    """Returns what to say of a URL with a query that its server refuses; otherwise None.

    Neither the query nor the server's error, which repeats it, is in the message.
    """
    status, url = status_of(error), uris.split_chain(uri)[-1]
    if status not in REFUSED_STATUS or uris.protocol_of(url) != "http" or "?" not in url:
        return None
    return (
        f"{uris.without_query(uri)}: the server refuses its query (status {status}). If the query "
        "is a signature, it has expired, is of another file, or was altered: sign the URL again, "
        "and write it with each character that the signer gave"
    )


_PROBLEMS = {
    errno.ENOSPC: "no space is left there: make room",
    errno.EDQUOT: "the quota is used up: make room",
    errno.EROFS: "the disk is read-only: choose another place",
    errno.EACCES: "access is refused: grant it to the job's account",
    errno.EPERM: "access is refused: grant it to the job's account",
    errno.ENOTDIR: "a part of its path is a file, and no folder: correct the path",
    errno.EIO: "the disk fails: look at the system's log",
}


def is_refusal(error: BaseException) -> bool:
    """Returns whether a storage refuses access."""
    refused = isinstance(error, PermissionError) or status_of(error) in (401, 403)
    return refused or str(error).startswith(protocols.REFUSALS)


def problem_of(error: BaseException) -> str:
    """Returns what is wrong with a storage that raised an error, and what to do."""
    said = f"{type(error).__name__}: {shortened(error)}"
    known = _PROBLEMS.get(getattr(error, "errno", None) or 0)
    if is_refusal(error):
        known = _PROBLEMS[errno.EACCES]
    elif "Credential" in type(error).__name__:
        known = "no credentials are found: give them to the job's account, or `storage_options`"
    elif known is None and is_transient(error):
        known = f"it cannot be reached, or breaks off, in {attempts_of(error)} attempts"
    return said if known is None else f"{known} ({said})"


@contextlib.contextmanager
def named_errors(action: str, name: str, errors: type[Exception] = Exception) -> Iterator[None]:
    """Raises errors of a storage as one that names the file and what was to be done.

    That a file is not there, or is there, is for the caller to judge.

    Args:
        action: ``write``, ``delete``, ``list``, ``read`` or ``look up``.
        errors: those that are the storage's.

    Raises:
        WriteError: if the storage was to be changed.
        StorageReadError: otherwise.
    """
    try:
        yield
    except (FileNotFoundError, FileExistsError, StorageError):
        raise
    except errors as error:
        kind = WriteError if action in ("write", "delete") else StorageReadError
        named = kind(f"cannot {action} {uris.without_secrets(name)}: {problem_of(error)}")
        named.errno = getattr(error, "errno", None)
        raise named from error


def _status(error: BaseException) -> int | None:
    response = getattr(error, "response", None)
    candidates = [getattr(error, name, None) for name in ("status", "status_code", "code")]
    if isinstance(response, dict):  # botocore
        candidates.append(response.get("ResponseMetadata", {}).get("HTTPStatusCode"))
    else:
        candidates += [getattr(response, name, None) for name in ("status_code", "status")]
    for value in candidates:
        if isinstance(value, str) and value.isdigit():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 100 <= value < 600:
            return value
    return None


def _is_broken_connection(error: BaseException) -> bool:
    names = {cls.__name__ for cls in type(error).__mro__}
    if names & protocols.PERMANENT_CLASSES:
        return False
    if isinstance(error, (ConnectionError, TimeoutError)) or names & TRANSIENT_CLASSES:
        return True
    return isinstance(error, OSError) and error.errno in TRANSIENT_ERRNO


def is_unreachable(error: BaseException) -> bool:
    """Returns whether a server could not be connected to, or has no address."""
    return any(
        isinstance(cause, (ConnectionRefusedError, socket.gaierror))
        or type(cause).__name__ in protocols.UNREACHABLE_CLASSES
        for cause in causes(error)
    )


def is_transient_locally(error: BaseException) -> bool:
    """Returns whether another attempt at a local file may succeed, as on NFS (ESTALE)."""
    return isinstance(error, OSError) and error.errno in TRANSIENT_ERRNO


def attempts_of(error: BaseException) -> int:
    """Returns the number of attempts before this error, or its cause, was raised."""
    return max((getattr(cause, "attempts", 1) for cause in causes(error)), default=1)


def retry(
    request: Callable[[], Result],
    deadline: float | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    may_retry: Callable[[BaseException], bool] = is_transient,
) -> Result:
    """Makes a request, and retries transient errors after a growing, random wait.

    Args:
        request: returns a result or raises.
        may_retry: tells which errors are transient.
        deadline: no wait goes beyond this time of the clock, in seconds.

    Raises:
        Exception: of the last attempt, with the number of attempts as its attribute ``attempts``.
    """
    import tenacity

    def should_stop(state: tenacity.RetryCallState) -> bool:
        out_of_time = deadline is not None and clock() + state.upcoming_sleep >= deadline
        return out_of_time or state.attempt_number >= ATTEMPTS

    backoff = tenacity.wait_random_exponential(multiplier=FIRST_WAIT_SECONDS, max=MAX_WAIT_SECONDS)

    def wait(state: tenacity.RetryCallState) -> float:
        requested = _retry_after(state.outcome.exception()) if state.outcome else 0.0
        return max(backoff(state), requested)

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(may_retry),
        stop=should_stop,
        wait=wait,
        sleep=sleep,
        reraise=True,
    )
    attempts = 0

    def counted() -> Result:
        nonlocal attempts
        attempts += 1
        return request()

    try:
        return retrying(counted)
    except Exception as error:
        error.attempts = max(attempts, getattr(error, "attempts", 1))  # type: ignore[attr-defined]
        raise


def _retry_after(error: BaseException | None) -> float:
    """Returns the seconds of ``Retry-After`` (RFC 9110, section 10.2.3), up to the maximum."""
    headers: Any = getattr(error, "headers", None)
    value = headers.get("Retry-After", "") if hasattr(headers, "get") else ""
    return min(float(value), MAX_WAIT_SECONDS) if str(value).isdigit() else 0.0
