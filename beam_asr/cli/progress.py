"""Shows how far a job is, on a terminal as a line that changes, elsewhere as a line a minute."""

from __future__ import annotations

import contextlib
import datetime
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TextIO

from beam_asr import process
from beam_asr.cli.messages import for_terminal
from beam_asr.outputs import progress
from beam_asr.outputs.progress import Progress

logger = logging.getLogger(__name__)

LINE_SECONDS = 60.0  # from one line to the next where there is no terminal


def describe(state: Progress, now: float) -> str:
    """Describes how far a run is, in one line.

    Args:
        now: seconds since 1970.
    """
    if state.phase in (progress.READING, progress.LOADING):
        rows = "" if state.rows is None else f", {state.rows:,} rows"
        return f"{state.phase}{rows}"
    return ", ".join([_rows(state), *_speed(state, now)])


def describe_model(model: Mapping[str, str]) -> str:
    """Describes a model that was loaded, in one line."""
    device = model.get("device_name") or model.get("device", "")
    details = [model.get("class"), device, model.get("precision")]
    return f"{model['model']} ({', '.join(filter(None, details))})"


def _rows(state: Progress) -> str:
    """Returns the phase, and how many rows have ended."""
    total = "" if state.records is None else f" of {state.records:,}"
    fraction = state.fraction
    percent = "" if fraction is None else f" ({fraction:.0%})"
    failed = f", {state.failed:,} failed" if state.failed else ""
    segments = ""
    if state.counts.long_rows:
        segments = f", {state.counts.segments_ended:,} of {state.counts.segments:,} segments"
    return f"{state.phase}: {state.rows_ended:,}{total} rows{segments}{percent}{failed}"


def _speed(state: Progress, now: float) -> Iterator[str]:
    """Yields what is known of the audio, the speed and the time that is left."""
    if state.counts.audio_seconds:
        yield f"{state.counts.audio_seconds / 3600:.2f} h of audio"
    if (rtfx := state.rtfx(now)) is not None:
        yield f"RTFx {rtfx:.0f}" if rtfx >= 10 else f"RTFx {rtfx:.1f}"
    if (share := state.wait_share) is not None:
        yield f"model waiting {share:.0%}"
    left = state.seconds_left(now)
    if left is not None and state.phase == progress.TRANSCRIBING:
        yield f"{_duration(left)} left"


def _duration(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds)))


class ProgressDisplay:
    """Shows the progress of a run for as long as the block runs.

    Args:
        read: returns how far the run is.
        runner: the name of the runner.
        stream: where it is shown.
        seconds: from one look to the next.
    """

    def __init__(
        self,
        read: Callable[[], Progress],
        runner: str,
        stream: TextIO | None = None,
        seconds: float = progress.LOCAL_SECONDS,
    ):
        self._read = read
        self._runner = runner
        self._stream = stream or sys.stderr
        self._seconds = seconds
        self._ended = threading.Event()
        self._shown_models: set[str] = set()
        self._printed = time.monotonic()
        self._bar: Any = None
        self._lock = threading.Lock()

    def __enter__(self) -> ProgressDisplay:
        process.register(self)
        self._thread = threading.Thread(target=self._run, daemon=True, name="beam-asr-progress")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self.save()

    def save(self) -> None:
        """Removes the line that changes, before the process ends with a message."""
        self._ended.set()
        with self._lock:
            if self._bar is not None:
                self._bar.close()
                self._bar = None

    def show(self, state: Progress, now: float) -> None:
        """Shows how far the run is.

        Args:
            now: seconds since 1970.
        """
        for model in state.models:
            name = describe_model(model)
            if name not in self._shown_models:
                self._shown_models.add(name)
                rows = "" if state.rows is None else f"; {state.rows:,} rows"
                self._print(f"{name}{rows}; {self._runner}")
        line = for_terminal(describe(state, now))
        if self._stream.isatty():
            self._show_bar(line, state.fraction)
        elif time.monotonic() - self._printed >= LINE_SECONDS:
            self._print(line)

    def _run(self) -> None:
        while not self._ended.wait(self._seconds):
            with contextlib.suppress(Exception):  # the job does not depend on it
                self.show(self._read(), time.time())

    def _show_bar(self, line: str, fraction: float | None) -> None:
        from tqdm import tqdm

        with self._lock:
            if self._ended.is_set():
                return
            if self._bar is None:
                self._bar = tqdm(
                    total=1.0,
                    file=self._stream,
                    leave=False,
                    dynamic_ncols=True,
                    bar_format="{desc} |{bar:20}|",
                )
            self._bar.n = fraction or 0.0
            self._bar.set_description_str(line)

    def _print(self, line: str) -> None:
        from tqdm import tqdm

        self._printed = time.monotonic()
        with tqdm.external_write_mode(file=self._stream):
            print(for_terminal(f"beam-asr: {line}"), file=self._stream, flush=True)
