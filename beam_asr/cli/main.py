"""Runs the command line, and reports how it ended."""

from __future__ import annotations

import argparse
import json
import logging
import re
import shlex
import sys
import threading
import traceback
from collections.abc import Sequence
from typing import Any

from beam_asr import errors
from beam_asr.cli.commands import COMMANDS, module_of
from beam_asr.cli.messages import console_handler, for_terminal, started, worded
from beam_asr.cli.options import TranscribeOptions, parse_args, parse_command
from beam_asr.cli.usage_errors import as_usage_errors
from beam_asr.cli.worker_watch import WorkerWatch
from beam_asr.storage.retry import problem_of
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import join, without_secrets

DONE, FAILED, WRONG_USAGE = 0, 1, 2

# Errors whose messages say what to do, so that a traceback is only noise.
# Workers send a traceback as text, so these errors are found by their names.
EXPLAINED = re.compile(
    rf"\b({'|'.join(error.__name__ for error in errors.tree() if error.explained)}): "
)
RESUME_ERROR = re.compile(
    rf"\b({errors.ResumeError.__name__}|{errors.NothingKeptError.__name__}): "
)
# Storage options that are not in a file: they may hold secrets.
INLINE_OPTIONS = re.compile(r"(?<=^--storage_options=)\{.*|^\{.*", re.DOTALL)


def main(args: Sequence[str] | None = None) -> int:
    """Runs ``beam-asr`` with these arguments and returns its exit status."""
    args = sys.argv[1:] if args is None else list(args)
    reads_results = bool(args) and args[0] in COMMANDS
    try:
        options = parse_command(args) if reads_results else parse_args(args)
    except SystemExit as exit_request:
        return int(exit_request.code or 0)
    if isinstance(options, argparse.Namespace):
        _log(logging.WARNING)
        return run_command(options)
    quiet, verbose = options.console.quiet, options.console.verbose
    _log(logging.ERROR if quiet else logging.INFO if verbose else logging.WARNING)
    return transcribe(options, args)


def _log(level: int) -> None:
    """Shows what is logged at this level and above."""
    logging.basicConfig(level=level, handlers=[console_handler()])
    # Beam logs the traceback of a failed step several times over, and raises it as well.
    beam_level = level if level < logging.WARNING else logging.CRITICAL
    logging.getLogger("apache_beam").setLevel(beam_level)


def run_command(arguments: argparse.Namespace) -> int:
    """Runs a command that reads a folder of results, and returns its exit status."""
    try:
        with as_usage_errors():
            return module_of(arguments.command).run(arguments)
    except errors.UsageError as error:
        return _wrong_usage(error)
    except KeyboardInterrupt:
        return FAILED
    except errors.BeamAsrError as error:
        print(f"beam-asr: {arguments.command} failed: {worded(str(error))}", file=sys.stderr)
        return FAILED


def transcribe(options: TranscribeOptions, args: Sequence[str] = ()) -> int:
    """Runs ``beam-asr transcribe`` and returns its exit status.

    Args:
        args: its command line, for the message on how to resume an unfinished run.
    """
    # These import Beam, which is slow, and which --help does not need.
    from beam_asr import process
    from beam_asr.cli import launch, runners

    watch = WorkerWatch(lambda death: process.exit_now(f"{death}. {how_to_resume(args)}"))
    threading.excepthook = watch.thread_failed
    process.set_wording(worded)
    try:
        if launch.is_finished(options):
            print(f"{options.outputs.output} is finished: nothing to resume")
            return _end(options)
        beam_options = launch.check(options)
        if options.console.dry_run:
            from beam_asr.cli import dry_run

            print(for_terminal(dry_run.describe(options, beam_options)))
            return DONE
        runner = runners.profile_of(beam_options)
        ends_here = runner.ends_with_launcher(beam_options)

        def interrupted(signal_name: str) -> str:
            elsewhere = "" if ends_here else " (its runner may continue the job: stop it there)"
            return f"ended by {signal_name}{elsewhere}. {how_to_resume(args)}"

        with process.exit_on_signals(interrupted), watch.running():
            launch.run(options, beam_options)
    except errors.UsageError as error:
        return _wrong_usage(error)
    except KeyboardInterrupt:  # before anything was started
        return FAILED
    except Exception as error:
        process.save_all()
        trace = "".join(traceback.format_exception(error))
        explained = EXPLAINED.search(trace)
        if not (explained or watch.death):
            print(for_terminal(trace), file=sys.stderr)
        reason = watch.death if watch.death and not explained else cause(error)
        print(f"beam-asr: the job failed: {worded(reason)}", file=sys.stderr)
        if RESUME_ERROR.search(trace):
            return FAILED  # the same command would be refused again
        if launch.can_resume(options):
            print(f"beam-asr: {how_to_resume(args)}", file=sys.stderr)
        return FAILED
    if runner.waits(beam_options):
        return _end(options)
    print(for_terminal(started(options.outputs.output)))
    return DONE


def _end(options: TranscribeOptions) -> int:
    """Prints how a finished run ended, writes its report if requested; returns the exit status."""
    _print_end(options)
    if not options.outputs.report:
        return DONE
    command = argparse.Namespace(command="report", output=options.outputs.output, to=None)
    command.storage_options = options.reading.storage_options
    return FAILED if run_command(command) else DONE


def _print_end(options: TranscribeOptions) -> None:
    """Prints how a finished run ended.

    Whatever may be wrong with its summary, the run has checked its results and written `_SUCCESS`:
    its work is done, and a scheduler that tried it again would do harm.
    """
    from beam_asr.outputs.folder import SUMMARY

    output = options.outputs.output
    path = join(output, SUMMARY)
    try:
        summary = json.loads(Storage(options.reading.storage_options).read(path))
        end = end_of_run(summary, output)
    except (errors.StorageReadError, FileNotFoundError) as error:
        problem = str(error)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"{path} is damaged: {problem_of(error)}"
    else:
        print(for_terminal(end))
        return
    print(for_terminal(f"the run is finished; transcripts in {output}"))
    print(f"beam-asr: its summary could not be read: {worded(problem)}", file=sys.stderr)


def how_to_resume(args: Sequence[str]) -> str:
    """Returns the command that resumes a run that was started with these arguments.

    What may be secret is not shown in it: storage options, and the queries of URLs.
    """
    arguments = [arg for arg in args if arg not in ("--overwrite", "--resume")]
    arguments = [without_secrets(INLINE_OPTIONS.sub("OPTIONS", arg)) for arg in arguments]
    resume = [] if "--append" in arguments else ["--resume"]
    command = shlex.join(["beam-asr", *arguments, *resume])
    return f"What was done is kept. To go on: {command}"


def _wrong_usage(error: Exception) -> int:
    print(f"beam-asr: error: {worded(str(error))}", file=sys.stderr)
    return WRONG_USAGE


def cause(error: BaseException) -> str:
    """Returns the message of the original error, without what Beam wraps around it."""
    text = str(error)
    # Beam's workers report a traceback as text; its last line is the exception.
    lines = [line for line in text.splitlines() if line.strip()]
    raised = [line for line in lines if re.match(r"^[A-Za-z_][\w.]*(Error|Exception)\b", line)]
    chosen = raised[-1] if raised else (lines[-1] if lines else type(error).__name__)
    return re.sub(r"\s*\[while running .*?\]\s*$", "", chosen)


def end_of_run(summary: dict[str, Any], folder: str) -> str:
    """Returns how a finished run ended, by its summary.

    The last line has the rows, failures and where they are. Before it come the most frequent
    reasons of failures, the warnings, and how many files, or rows, were left out.
    """
    from beam_asr.outputs import shards
    from beam_asr.outputs.summary import Failures

    failed = summary["failed"]
    failed_note = f" (see {join(folder, shards.FAILURES)}-*)" if failed else ""
    filtered = summary.get("filtered", 0)  # older releases have no such field
    filtered_note = (
        f", {filtered} filtered (see {join(folder, shards.FILTERED)}-*)" if filtered else ""
    )
    failures = Failures()
    failures.add(summary.get("failed_by_type", {}), summary.get("failure_examples", {}))
    reasons = "".join(f"{reason}\n" for reason in failures.reasons())
    warnings = "".join(f"warning: {warning}\n" for warning in summary.get("warnings", []))
    unscored = summary.get("scores", {}).get("without_reference", 0)
    unscored_note = f", {unscored} without a reference" if unscored else ""
    return (
        _files_line(summary)
        + _rows_lines(summary)
        + reasons
        + warnings
        + (
            f"{summary['rows_in']} rows: {summary['transcribed']} transcribed, {failed} failed"
            f"{failed_note}{filtered_note}{unscored_note}; "
            f"{summary['audio_hours']:.3f} h of audio; transcripts in {folder}"
        )
    )


def _rows_lines(summary: dict[str, Any]) -> str:
    """Returns which rows another run has done, or left behind, as lines with their ends."""
    lines = ""
    if there := summary.get("rows_in_folder", 0):
        lines += f"{there:,} rows of the input were in the folder already\n"
    if gone := summary.get("resumed_not_in_input", 0):
        lines += (
            f"{gone:,} rows that the unfinished run had done are no longer in the input, and have "
            "no record\n"
        )
    return lines


def _files_line(summary: dict[str, Any]) -> str:
    """Returns how many files were left out or named twice, as lines with their ends."""
    from beam_asr.inputs.discovery import describe_ignored

    lines = ""
    ignored = summary.get("ignored_files", 0)  # older releases have no such field
    if ignored:
        files = summary["input_files"]
        noun = "audio files" if files == summary["audio_files"] else "input files"
        kinds = describe_ignored(summary["ignored_by_kind"])
        lines += f"{files:,} {noun}, {ignored:,} others ignored: {kinds}\n"
    repeated = summary.get("repeated_files", 0)
    if repeated:
        example = summary["examples_repeated"][0]
        names = "1 file was" if repeated == 1 else f"{repeated:,} files were"
        lines += f"{names} named more than once and read once, as {example}\n"
    return lines
