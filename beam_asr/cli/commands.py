"""Lists the commands of ``beam-asr`` that read a folder of results; ``transcribe`` makes one."""

from __future__ import annotations

import argparse
import importlib
from typing import Any, NamedTuple, Protocol, cast

from beam_asr.cli.flag_values import storage_options


class Command(NamedTuple):
    """Describes a command.

    Attributes:
        help: what it does, as a line of ``beam-asr --help``.
        module: the name of the module that has its flags and runs it (`CommandModule`).
    """

    help: str
    module: str


class CommandModule(Protocol):
    """Has the flags of a command, and runs it. It imports what is slow only in ``run``."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Adds the flags of the command."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Runs the command and returns its exit status.

        Raises:
            UsageError: the command line names something that cannot be read or written.
        """


COMMANDS: dict[str, Command] = {
    "status": Command("say how far a job is", "beam_asr.cli.status"),
    "score": Command(
        "score the transcripts of a finished job, by another reference too", "beam_asr.cli.score"
    ),
    "filter": Command(
        "filter the transcripts of a finished job by another condition", "beam_asr.cli.filter"
    ),
    "merge": Command("merge the results of several finished jobs", "beam_asr.cli.merge"),
    "export": Command(
        "write the transcripts of a finished job in further formats", "beam_asr.cli.export"
    ),
    "report": Command(
        "make one HTML file that shows how a job went, and what to look at",
        "beam_asr.cli.report",
    ),
    "compare": Command(
        "compare the transcripts of jobs, row by row, in one HTML file",
        "beam_asr.cli.compare",
    ),
}


def add_parsers(parsers: Any) -> None:
    """Adds a parser for each command to argparse's ``add_subparsers``."""
    for name, command in COMMANDS.items():
        parser = parsers.add_parser(
            name, help=command.help, description=f"{command.help.capitalize()}.", allow_abbrev=False
        )
        module_of(name).add_arguments(parser)


def module_of(name: str) -> CommandModule:
    """Returns the module of a command."""
    return cast(CommandModule, importlib.import_module(COMMANDS[name].module))


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the folder of results that a command reads, and how its storage is opened."""
    parser.add_argument("output", metavar="OUTPUT", help="output folder of a job, on any storage")
    add_storage_options(parser)


def add_storage_options(parser: argparse.ArgumentParser) -> None:
    """Adds how storages are opened."""
    parser.add_argument(
        "--storage_options",
        type=storage_options,
        default={},
        metavar="JSON",
        help="as of `beam-asr transcribe`",
    )
