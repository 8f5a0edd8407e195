"""Runs ``beam-asr report``: one HTML file that shows how a job went, and what to look at."""

from __future__ import annotations

import argparse

from beam_asr.cli.commands import add_output_arguments
from beam_asr.cli.messages import for_terminal
from beam_asr.storage.uris import join


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the command."""
    add_output_arguments(parser)
    parser.add_argument(
        "--to", metavar="FILE", help="HTML file to write; by default report.html in the folder"
    )


def run(arguments: argparse.Namespace) -> int:
    """Writes the report of a folder of results, and returns the exit status.

    Raises:
        UsageError: the folder holds no finished results, or the file cannot be written.
    """
    from beam_asr.outputs.output import Output
    from beam_asr.outputs.report.report import REPORT, write_report

    output = Output(arguments.output, arguments.storage_options)
    to = arguments.to or join(arguments.output, REPORT)
    write_report(output, to)
    print(for_terminal(f"the report is in {to}"))
    return 0
