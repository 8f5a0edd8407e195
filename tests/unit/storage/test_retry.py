"""What is tried again, how often, and how long it waits."""

import asyncio
import errno

import aiohttp
import pytest

from beam_asr.errors import DeadlineError
from beam_asr.storage import retry as retrying
from beam_asr.storage.retry import attempts_of, is_transient, retry


class WithStatus(Exception):
    def __init__(self, **attributes):
        super().__init__("a storage library's error")
        vars(self).update(attributes)


class Response:
    status_code = 503


def caused_by(cause: Exception, error: Exception) -> Exception:
    error.__cause__ = cause
    return error


def not_found_for(cause: Exception) -> FileNotFoundError:
    """As fsspec's http raises whatever went wrong."""
    error = FileNotFoundError("http://host/a.wav")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        WithStatus(status=503),
        WithStatus(status=429),
        WithStatus(code=500),
        WithStatus(code="502"),
        WithStatus(status_code=408),
        WithStatus(response=Response()),
        WithStatus(response={"ResponseMetadata": {"HTTPStatusCode": 504}}),
        ConnectionResetError(),
        TimeoutError(),
        asyncio.TimeoutError(),
        aiohttp.ClientPayloadError("cut short"),
        aiohttp.ServerDisconnectedError(),
        OSError(errno.ESTALE, "stale handle"),
        OSError(errno.EBUSY, "slow down"),
        not_found_for(WithStatus(status=503)),
        caused_by(WithStatus(code=400), aiohttp.ClientPayloadError("too few bytes")),  # aiohttp's
        caused_by(WithStatus(status=429), OSError(errno.EIO, "s3fs has no other number for it")),
    ],
)
def test_what_may_pass_is_tried_again(error):
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        WithStatus(status=404),
        WithStatus(status=403),
        WithStatus(code=401),
        WithStatus(status_code=400),
        WithStatus(response={"ResponseMetadata": {"HTTPStatusCode": 403}}),
        FileNotFoundError(),
        PermissionError(),
        OSError("Forbidden: gs://b/k"),
        ValueError("a defect"),
        aiohttp.InvalidURL("http://"),
        DeadlineError(),
        not_found_for(WithStatus(status=404)),
        not_found_for(None),
    ],
)
def test_what_stays_is_not_tried_again(error):
    assert not is_transient(error)


class Server:
    """A request that fails with these errors in turn, and the time that passes in it."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.requests = 0
        self.now = 0.0
        self.waits = []

    def request(self):
        self.requests += 1
        if self.errors:
            raise self.errors.pop(0)
        return "result"

    def sleep(self, seconds):
        self.now += seconds
        self.waits.append(seconds)

    def retry(self, deadline=None):
        return retry(self.request, deadline, lambda: self.now, self.sleep)


def test_a_request_succeeds_after_two_failures():
    server = Server(WithStatus(status=503), ConnectionResetError())
    assert server.retry() == "result"
    assert server.requests == 3


def test_the_last_error_comes_out_with_the_number_of_attempts():
    server = Server(*[WithStatus(status=500 + n) for n in (0, 2, 3, 4, 0, 0)])
    with pytest.raises(WithStatus) as raised:
        server.retry()
    assert raised.value.status == 500
    assert server.requests == retrying.ATTEMPTS == attempts_of(raised.value)


def test_a_permanent_error_costs_one_attempt():
    server = Server(PermissionError("no"))
    with pytest.raises(PermissionError) as raised:
        server.retry()
    assert (server.requests, attempts_of(raised.value), server.waits) == (1, 1, [])


def test_waits_grow_and_differ_from_one_client_to_another():
    longest = [0.0] * (retrying.ATTEMPTS - 1)
    for _ in range(200):
        server = Server(*[ConnectionResetError()] * (retrying.ATTEMPTS - 1))
        server.retry()
        longest = [max(pair) for pair in zip(longest, server.waits, strict=True)]
    assert len(set(server.waits)) == len(server.waits)
    for number, wait in enumerate(longest):
        bound = retrying.FIRST_WAIT_SECONDS * 2**number
        assert bound / 2 < wait <= bound


def test_a_server_that_names_a_time_is_given_it():
    server = Server(WithStatus(status=429, headers={"Retry-After": "7"}))
    server.retry()
    assert server.waits == [7.0]
    hours = Server(WithStatus(status=429, headers={"Retry-After": "36000"}))
    hours.retry()
    assert hours.waits == [retrying.MAX_WAIT_SECONDS]


def test_no_wait_goes_beyond_the_deadline():
    server = Server(*[WithStatus(status=429, headers={"Retry-After": "4"})] * 4)
    with pytest.raises(WithStatus) as raised:
        server.retry(deadline=10.0)
    assert server.now == 8.0
    assert attempts_of(raised.value) == 3


def test_attempts_are_reported_of_the_cause_too():
    cause = ConnectionResetError()
    cause.attempts = 4
    error = ValueError("cannot be read")
    error.__cause__ = cause
    assert attempts_of(error) == 4
    assert attempts_of(ValueError()) == 1
