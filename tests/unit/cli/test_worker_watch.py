"""A worker process that dies while the runner waits for it."""

from __future__ import annotations

import threading

import pytest

from beam_asr.cli.worker_watch import WorkerWatch


def raised_in_thread(watch, error):
    """Has a thread raise an error, as Beam's that waits for a worker."""

    def fail():
        raise error

    hook, threading.excepthook = threading.excepthook, watch.thread_failed
    try:
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
    finally:
        threading.excepthook = hook


def died(status):
    return RuntimeError(f"Worker subprocess exited with return code {status}")


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (137, "was ended by SIGKILL, as the system does without free memory"),
        (-9, "was ended by SIGKILL"),
        (139, "was ended by SIGSEGV"),
        (1, "ended with status 1"),
    ],
)
def test_a_job_whose_worker_has_died_ends_if_the_runner_does_not(status, said, capsys):
    ended = threading.Event()
    messages = []
    watch = WorkerWatch(lambda message: (messages.append(message), ended.set()), seconds=0.05)
    with watch.running():
        raised_in_thread(watch, died(status))
        assert ended.wait(10)
    assert said in messages[0]
    assert capsys.readouterr().err == ""


def test_a_runner_that_ends_by_itself_says_why():
    ended = threading.Event()
    watch = WorkerWatch(lambda _: ended.set(), seconds=0.1)
    with watch.running():
        raised_in_thread(watch, died(137))
    assert not ended.wait(0.5)
    assert "SIGKILL" in watch.death


def test_workers_that_end_after_the_job_are_nothing_to_report(capsys):
    watch = WorkerWatch(lambda _: pytest.fail("the job has ended"), seconds=0.0)
    with watch.running():
        pass
    raised_in_thread(watch, died(137))
    assert (watch.death, capsys.readouterr().err) == ("", "")


def test_the_errors_of_other_threads_are_reported(capsys):
    raised_in_thread(WorkerWatch(print), ValueError("what happened"))
    assert "ValueError: what happened" in capsys.readouterr().err
