"""Filters the transcripts of a finished job by another condition: ``beam-asr filter``."""

from __future__ import annotations

import argparse

from beam_asr.cli import afterwards


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the command."""
    parser.add_argument("folder", metavar="OUTPUT", help="output folder of a finished job")
    afterwards.add_arguments(parser, required=("keep", "output"))


def run(arguments: argparse.Namespace) -> int:
    """Writes the results as a job with this condition would have written them."""
    source = afterwards.find(arguments.folder, arguments.storage_options)
    summary = afterwards.write([source], afterwards.requested(source, arguments))
    afterwards.show(afterwards.ended(summary, arguments.output))
    return 0
