"""Filters the transcripts of a finished job by another condition: ``beam-asr filter``."""

from __future__ import annotations

import argparse

from beam_asr.cli import afterwards


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the command."""
    afterwards.add_folder(parser)
    afterwards.add_arguments(parser, required=("keep", "output"))


def run(arguments: argparse.Namespace) -> int:
    """Writes the results as a job with this condition would have written them."""
    return afterwards.rewrite(arguments)
