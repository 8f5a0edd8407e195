"""Writes the transcripts of a finished job in further formats: ``beam-asr export``."""

from __future__ import annotations

import argparse

from beam_asr.cli import afterwards


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the command."""
    afterwards.add_folder(parser)
    afterwards.add_arguments(parser, required=("formats", "output"))


def run(arguments: argparse.Namespace) -> int:
    """Writes the results as a job with these formats would have written them."""
    return afterwards.rewrite(arguments)
