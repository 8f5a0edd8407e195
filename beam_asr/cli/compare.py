"""Runs ``beam-asr compare``: the transcripts of several jobs over the same rows, side by side."""

from __future__ import annotations

import argparse

from beam_asr.cli.commands import add_storage_options
from beam_asr.cli.messages import for_terminal

COMPARISON = "comparison.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the command."""
    parser.add_argument(
        "outputs",
        metavar="OUTPUT",
        nargs="+",
        help="output folders of two or more jobs, on any storage; the others are compared with "
        "the first",
    )
    parser.add_argument(
        "--to",
        default=COMPARISON,
        metavar="FILE",
        help=f"HTML file to write; {COMPARISON} by default",
    )
    add_storage_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Writes the comparison of folders of results, and returns the exit status.

    Raises:
        UsageError: it is one folder, or one that holds no finished results, or the file cannot be
            written.
    """
    from beam_asr.errors import UsageError
    from beam_asr.outputs.output import Output
    from beam_asr.outputs.report.comparison_page import in_words, write_comparison

    if len(arguments.outputs) < 2:
        raise UsageError("compare takes two or more output folders: name another one")
    outputs = [Output(folder, arguments.storage_options) for folder in arguments.outputs]
    comparison = write_comparison(outputs, arguments.to)
    print(for_terminal("\n".join([*in_words(comparison), f"more is in {arguments.to}"])))
    return 0
