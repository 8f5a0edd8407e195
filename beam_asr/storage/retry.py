"""Which failures of a storage pass by themselves, and when a request is tried again."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import Any, TypeVar

from beam_asr.errors import DeadlineError, causes
from beam_asr.storage import protocols

Result = TypeVar("Result")
ATTEMPTS = 5
FIRST_WAIT_SECONDS = 0.5  # the longest before the second attempt; doubled for each one after it
MAX_WAIT_SECONDS = 20.0
TRANSIENT_STATUS = frozenset([408, 425, 429, 500, 502, 503, 504])
TRANSIENT_ERRNO = frozenset(
    [errno.EAGAIN, errno.EBUSY, errno.ECONNRESET, errno.ESTALE, errno.ETIMEDOUT]
)
# asyncio's TimeoutError was another than Python's before 3.11.
TRANSIENT_CLASSES = protocols.TRANSIENT_CLASSES | {"TimeoutError"}


def is_transient(error: BaseException) -> bool:
    """Whether a second attempt may succeed: too many requests, 5xx, resets, stalls, time-outs."""
    if isinstance(error, DeadlineError):
        return False
    for each in causes(error):
        if _is_broken_connection(each):
            return True
        status = _own_status(each)
        if status is not None:
            return status in TRANSIENT_STATUS
    return False


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an error of any storage library carries; None if it has none.

    s3fs, and fsspec's http, keep it in the cause of the error that they raise.
    """
    statuses = (_own_status(each) for each in causes(error))
    return next((status for status in statuses if status is not None), None)


def _own_status(error: BaseException) -> int | None:
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


def attempts_of(error: BaseException) -> int:
    """How many attempts were made before this error was raised, itself or for its cause."""
    return max((getattr(each, "attempts", 1) for each in causes(error)), default=1)


def retry(
    request: Callable[[], Result],
    deadline: float | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Result:
    """Makes a request, again after a growing and random wait while it fails for what may pass.

    Args:
        request: is to give a result or raise.
        deadline: no wait goes beyond this time of the clock, in seconds.

    Raises:
        Exception: of the last attempt, with their number as its attribute ``attempts``.
    """
    import tenacity

    def enough(state: tenacity.RetryCallState) -> bool:
        out_of_time = deadline is not None and clock() + state.upcoming_sleep >= deadline
        return out_of_time or state.attempt_number >= ATTEMPTS

    backoff = tenacity.wait_random_exponential(multiplier=FIRST_WAIT_SECONDS, max=MAX_WAIT_SECONDS)

    def wait(state: tenacity.RetryCallState) -> float:
        asked = _retry_after(state.outcome.exception()) if state.outcome else 0.0
        return max(backoff(state), asked)

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_transient),
        stop=enough,
        wait=wait,
        sleep=sleep,
        reraise=True,
    )
    made = 0

    def counted() -> Result:
        nonlocal made
        made += 1
        return request()

    try:
        return retrying(counted)
    except Exception as error:
        error.attempts = max(made, getattr(error, "attempts", 1))  # type: ignore[attr-defined]
        raise


def _retry_after(error: BaseException | None) -> float:
    """Seconds that a server asked to wait (RFC 9110, section 10.2.3), within the longest wait."""
    headers: Any = getattr(error, "headers", None)
    value = headers.get("Retry-After", "") if hasattr(headers, "get") else ""
    return min(float(value), MAX_WAIT_SECONDS) if str(value).isdigit() else 0.0
