"""The command line: parse, run, and say how it ended."""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from collections.abc import Sequence

from beam_asr.options import TranscribeOptions, parse_args
from beam_asr.storage import Storage, join

DONE, FAILED, WRONG_USAGE = 0, 1, 2

# Errors that say what to do, for which a traceback is only noise.
EXPLAINED = re.compile(
    r"\b(ModelLoadError|LostRowsError|TooManyFailuresError|NoInputError|DamagedInputError|TableError"
    r"|StorageError): "
)


def main(args: Sequence[str] | None = None) -> int:
    """Runs ``beam-asr`` with these arguments and returns its exit status."""
    try:
        options = parse_args(sys.argv[1:] if args is None else args)
    except SystemExit as ended:
        return int(ended.code or 0)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    # Beam logs the traceback of a failed step several times over, and raises it as well.
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    return transcribe(options)


def transcribe(options: TranscribeOptions) -> int:
    """Runs ``beam-asr transcribe`` and returns its exit status."""
    from beam_asr import pipeline  # imports Beam, which --help need not pay for

    try:
        if pipeline.is_finished(options):
            print(f"{options.output} is finished: nothing to resume")
            return DONE
        beam_options = pipeline.check(options)
    except pipeline.UsageError as error:
        return _wrong_usage(error)
    try:
        pipeline.run(options, beam_options)
    except KeyboardInterrupt:
        print("beam-asr: interrupted; the output has no _SUCCESS", file=sys.stderr)
        return FAILED
    except Exception as error:
        if not EXPLAINED.search("".join(traceback.format_exception(error))):
            traceback.print_exception(error)
        print(f"beam-asr: the job failed: {cause(error)}", file=sys.stderr)
        return FAILED
    print(last_line(Storage(options.storage_options), options.output))
    return DONE


def _wrong_usage(error: Exception) -> int:
    print(f"beam-asr: error: {error}", file=sys.stderr)
    return WRONG_USAGE


def cause(error: BaseException) -> str:
    """The message of what went wrong, out of what Beam wraps around it."""
    text = str(error)
    # Beam's workers report a traceback as text; its last line is the exception.
    lines = [line for line in text.splitlines() if line.strip()]
    raised = [line for line in lines if re.match(r"^[A-Za-z_][\w.]*(Error|Exception)\b", line)]
    chosen = raised[-1] if raised else (lines[-1] if lines else type(error).__name__)
    return re.sub(r"\s*\[while running .*?\]\s*$", "", chosen)


def last_line(storage: Storage, folder: str) -> str:
    """How a finished run ended: rows, failures and where they are."""
    from beam_asr import output

    with storage.open(join(folder, output.SUMMARY)) as file:
        summary = json.load(file)
    failed = summary["failed"]
    where = f" (see {join(folder, output.FAILURES)}-*.jsonl)" if failed else ""
    return (
        f"{summary['rows_in']} rows: {summary['transcribed']} transcribed, {failed} failed{where}; "
        f"{summary['audio_hours']:.3f} h of audio; transcripts in {folder}"
    )
