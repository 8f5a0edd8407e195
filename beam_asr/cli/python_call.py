"""Transcribes audio by one call in Python: ``beam_asr.transcribe``."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import tempfile
import types
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from beam_asr import errors
from beam_asr.cli import launch, runners
from beam_asr.cli.job import recognition, row_source
from beam_asr.cli.main import cause
from beam_asr.cli.messages import FLAGS
from beam_asr.cli.options import TranscribeOptions, conflict
from beam_asr.errors import BeamAsrError, JobError, ManifestError, SetupError, UsageError
from beam_asr.outputs import record_tables
from beam_asr.outputs.output import Output
from beam_asr.records.record import Record
from beam_asr.records.row import Row
from beam_asr.records.setting_fields import flatten, make_groups
from beam_asr.settings import GROUPS
from beam_asr.transcripts.job_fields import job_fields

if TYPE_CHECKING:
    from typing import TypeAlias

    import pandas as pd

    Path: TypeAlias = str | os.PathLike[str]
    Inputs: TypeAlias = Path | Mapping[str, Any] | Iterable[Path | Mapping[str, Any]] | pd.DataFrame

ERROR = "error"
# Settings that this call does not take, and why.
REFUSED = {
    "watch": "is for a job without an end, and this call returns at its end",
    "output_window": "is for a job without an end, and this call returns at its end",
    "dry_run": "returns no results: give it to the command line",
    "quiet": "is `progress=False` here",
}
RAISED = re.compile(r"([\w.]+): (.*)", re.DOTALL)
FLAG = re.compile(r"(?<![\w-])--([a-z]\w*)")


def transcribe(
    inputs: Inputs,
    model: str | None = None,
    *,
    output: Path | None = None,
    runner: str = "DirectRunner",
    beam_args: Sequence[str] = (),
    progress: bool = True,
    **settings: Any,
) -> list[Record] | pd.DataFrame:
    """Transcribes audio and returns the results, in the order of the inputs.

        beam_asr.transcribe("calls/", "nvidia/parakeet-tdt-0.6b-v3", timestamps="word")

    The result of a row is the row with its ``pred_text``; that of a row that failed has its
    ``error``, and that of a row that a setting filters out has ``filtered`` (docs/fields.md). It
    runs the job of ``beam-asr transcribe``. The model stays in this process for the next call, with
    the default runner. All results are in memory, and rows that are given; for more than memory
    holds, run the command line, and read its output folder with `beam_asr.Output`.

    Args:
        inputs: audio or manifests, one or several, as the command line takes them; or rows: dicts
            with the fields of a manifest's row, or a DataFrame of them, in which a missing value is
            no field. Relative paths of rows are relative to the working directory.
        model: name on Hugging Face or NGC, or path or URI of a ``.nemo`` file; None with the
            setting ``models``.
        output: a folder that keeps the results, and what an unfinished job has done, for
            ``resume=True``. None keeps nothing. A remote runner needs one that it can reach.
        runner: of Beam, by name. The default runs in this process.
        beam_args: further flags for Beam, as on the command line.
        progress: whether to show on stderr how far the job is, on a terminal as a line that
            changes, elsewhere as a line each minute.
        settings: settings of ``beam-asr transcribe`` by name (docs/flags.md). The default of
            ``max_failure_fraction`` is 1 here: failures are results.

    Returns:
        A dict for each row, or for each of its channels; a file that is named twice is one row. For
        a DataFrame its copy, with further columns, among them the text and ``error``.

    Raises:
        TypeError: a setting is unknown, or an input is neither a path nor a row.
        SetupError: settings or inputs are refused; nothing was transcribed.
        BeamAsrError: the job failed, for instance with a `ModelLoadError`.
    """
    frame = _frame(inputs)
    for name in settings.keys() & REFUSED.keys():
        raise TypeError(f"{name} {REFUSED[name]}")
    settings = {"max_failure_fraction": 1, **settings, "quiet": not progress}
    if frame is not None and settings.get("channel") == "each":
        raise SetupError("`channel=each` gives a row several results: give dicts, no DataFrame")
    with tempfile.TemporaryDirectory(prefix="beam-asr-") as scratch:
        options = _options(
            inputs if frame is None else _rows_of(frame),
            {**settings, "model_name": model, "output": os.fspath(output or f"{scratch}/output")},
            [f"--runner={runner}", *beam_args],
        )
        with _errors_of_python():
            _run(options)
            records = list(_in_order(options))
    return records if frame is None else _with_results(frame, records, options)


def _frame(inputs: Any) -> pd.DataFrame | None:
    """Returns the inputs if they are a DataFrame; else None."""
    pandas = sys.modules.get("pandas")  # whoever has a DataFrame has imported it
    if pandas is None or not isinstance(inputs, pandas.DataFrame):
        return None
    if not inputs.columns.is_unique:
        raise SetupError("two columns of the DataFrame have one name: rename one of them")
    return inputs


def _rows_of(frame: pd.DataFrame) -> list[Record]:
    """Returns the rows of a DataFrame, without the values that are missing."""
    names, known = [str(name) for name in frame.columns], frame.notna().to_numpy()
    values = [frame[name].array for name in frame.columns]
    return [
        {name: column[i] for name, column, there in zip(names, values, known[i]) if there}
        for i in range(len(frame))
    ]


def _options(inputs: Inputs, settings: dict[str, Any], beam_args: list[str]) -> TranscribeOptions:
    """Returns the options of the job."""
    is_one = isinstance(inputs, (str, os.PathLike, Mapping))
    several: Any = [inputs] if is_one else inputs
    given = list(several)
    rows = [each for each in given if isinstance(each, Mapping)]
    for each in given:
        if not isinstance(each, (str, os.PathLike, Mapping)):
            raise TypeError(
                f"an input of the type {type(each).__name__} is neither a path nor a row; write "
                "samples to a file, and give its path"
            )
    if rows and len(rows) < len(given):
        raise TypeError("inputs are either all paths or all rows: give a path as a row")
    is_rows = bool(rows) or not given
    if is_rows and settings.get("limit") is not None:
        raise SetupError("`limit` takes a sample of the rows of files: give fewer rows")
    groups = make_groups(GROUPS, {**settings, "input": () if is_rows else map(os.fspath, given)})
    if problem := conflict(types.SimpleNamespace(**flatten(groups.values()))):
        raise SetupError(_with_settings(problem))
    return TranscribeOptions(
        **groups,
        beam_args=beam_args,
        rows=[_row(dict(row)) for row in rows] if is_rows else None,
        in_python=True,
    )


def _row(fields: Record) -> Row:
    try:
        return Row.of(fields)
    except ManifestError as error:
        return Row.broken(error)


def _run(options: TranscribeOptions) -> None:
    """Runs the job to its end, if there is anything to do."""
    if options.rows == [] or launch.is_finished(options):
        return
    beam_options = launch.check(options)
    if not runners.profile_of(beam_options).waits(beam_options):
        raise SetupError("`no_wait_until_finish` leaves no results to return: leave it out")
    with _as_outside_of_a_notebook():
        launch.run(options, beam_options)


@contextlib.contextmanager
def _as_outside_of_a_notebook() -> Iterator[None]:
    """Keeps Beam from importing its interactive runner, as it does in IPython for labels of steps.

    That import fails with pandas 3 (Beam 2.77), and the job needs nothing of it.
    """
    import apache_beam as beam
    from apache_beam.utils import interactive_utils

    asking = (interactive_utils, beam.pipeline)  # the second keeps a temporary folder otherwise
    before = [module.is_in_ipython for module in asking]
    for module in asking:
        module.is_in_ipython = lambda: False
    try:
        yield
    finally:
        for module, function in zip(asking, before, strict=True):
            module.is_in_ipython = function


def _in_order(options: TranscribeOptions) -> Iterator[Record]:
    """Yields the results of the rows of the input, in its order."""
    if options.rows == []:
        return
    results: dict[str, list[tuple[list[int], Record]]] = defaultdict(list)
    output = Output(options.outputs.output, options.reading.storage_options)
    for row_id, record in output.with_row_ids():
        group, *numbers = row_id.split(".")
        place = [int(number.lstrip("c")) for number in numbers if number.lstrip("c").isdigit()]
        results[group].append((place, record))
    for records in results.values():
        records.sort(key=lambda result: result[0], reverse=True)
    for group in recognition(options, None).row_groups(row_source(options).read_here()):
        yield from _next_row(results.get(group, []))
    if not options.outputs.append:  # of files that have gone since the job has read them
        for records in results.values():
            yield from (record for _, record in reversed(records))


def _next_row(results: list[tuple[list[int], Record]]) -> Iterator[Record]:
    """Takes the records of the next row off a group's results, and yields them."""
    if not results:
        return
    place, record = results.pop()
    yield record
    while place and results and results[-1][0][:1] == place[:1]:
        yield results.pop()[1]


def _with_results(
    frame: pd.DataFrame, records: list[Record], options: TranscribeOptions
) -> pd.DataFrame:
    """Returns a DataFrame with the fields of the results in further columns."""
    text = options.names.pred_text_key
    results = record_tables.to_frame(records).set_index(frame.index)
    result = frame.copy()
    for name in dict.fromkeys([text, *results.columns, ERROR]):
        if name in (text, ERROR) or name in job_fields() or name not in frame.columns:
            result[name] = results[name] if name in results.columns else None
    return result


@contextlib.contextmanager
def _errors_of_python() -> Iterator[None]:
    """Raises what fails a job as one error of `beam_asr.errors`, without Beam's tracebacks."""
    beam_logger = logging.getLogger("apache_beam")
    level = beam_logger.level
    beam_logger.setLevel(logging.CRITICAL)  # it logs the traceback of a failed step several times
    try:
        yield
    except Exception as error:
        logging.getLogger(__name__).debug("the job failed", exc_info=True)
        raise _as_error(error) from None
    finally:
        beam_logger.setLevel(level)


def _as_error(error: Exception) -> BeamAsrError:
    """Returns the original error of a failed job."""
    if isinstance(error, UsageError) and isinstance(error.__cause__, BeamAsrError):
        return error.__cause__
    if isinstance(error, UsageError):
        return SetupError(_with_settings(str(error)))
    if isinstance(error, BeamAsrError):
        return _error(type(error), cause(error))
    known = {each.__name__: each for each in errors.tree()}
    message = cause(error)
    raised = RAISED.match(message)
    if raised and (kind := known.get(raised[1].rpartition(".")[2])):
        return _error(kind, raised[2])
    return JobError(message)


def _error(kind: type[BeamAsrError], message: str) -> BeamAsrError:
    try:
        return kind(message)
    except TypeError:  # a class that takes more than a message
        return JobError(message)


def _with_settings(message: str) -> str:
    """Returns a message of the command line with settings in place of its flags."""
    return FLAG.sub(lambda flag: f"`{flag[1]}`" if flag[1] in FLAGS else flag[0], message)
