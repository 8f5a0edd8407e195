"""Defines the flags of ``beam-asr transcribe`` from `settings`, and parses a command line."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

from beam_asr._version import __version__
from beam_asr.cli import commands, config_file
from beam_asr.cli.flag_values import parser_of
from beam_asr.cli.messages import as_flags, flag_of
from beam_asr.errors import UsageError
from beam_asr.records.row import Row
from beam_asr.records.setting_fields import (
    Groups,
    Setting,
    all_settings,
    flatten,
    make_groups,
    settings_of,
)
from beam_asr.settings import GROUPS, Settings
from beam_asr.transforms.choices import choices

NO_INPUT = "name an input, with or without --input: a manifest, audio, a folder or a pattern"
FLAG_NAMES = frozenset(flag_of(setting) for setting in all_settings(GROUPS))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranscribeOptions(Settings):
    """Holds the settings of a command line, and its flags for Beam.

    Attributes:
        beam_args: the flags for Beam.
        rows: the rows, if Python gives them in place of ``input``; else None.
        in_python: whether messages in records name settings in backticks, and not as flags.
    """

    beam_args: list[str]
    rows: Sequence[Row] | None = None
    in_python: bool = False

    @property
    def values(self) -> dict[str, Any]:
        """Returns all values by the names of their flags, and ``beam_args``."""
        groups = (getattr(self, name) for name in GROUPS)
        return {**flatten(groups), "beam_args": self.beam_args}


def parse_args(args: Sequence[str]) -> TranscribeOptions:
    """Parses a command line; flags that are not of this package are passed to Beam.

    Words that belong to no flag are inputs. One that follows a flag of Beam's may be its value, and
    stays with it; ``beam_flags.parse`` refuses it if that flag takes none.

    Raises:
        SystemExit: with status 2 and a message that names the flag, or 0 after ``--help``.
    """
    parser = program_parser()
    args = with_underscores(args, FLAG_NAMES)
    try:
        args = _with_config(args)
    except UsageError as error:
        parser.error(str(error))
    known, rest = parser.parse_known_args(args)
    words, beam_args = _words_apart(rest)
    values = vars(known)
    if values.pop("command") is None:
        parser.error(f"name a command: transcribe, {', '.join(commands.COMMANDS)}")
    del values["config"]
    values["input"] = [*words, *(known.input or [])]
    if not values["input"]:
        parser.error(NO_INPUT)
    if problem := conflict(known):
        parser.error(problem)
    try:
        return TranscribeOptions(**make_groups(GROUPS, values), beam_args=beam_args)
    except ValueError as error:
        parser.error(str(error))


def parse_command(args: Sequence[str]) -> argparse.Namespace:
    """Parses the command line of one of `commands.COMMANDS`.

    Flags that are not its own are passed to Beam if the command runs a job, whose parser has
    ``beam_args``; else they are refused.

    Raises:
        SystemExit: with status 2 and a message that names the flag, or 0 after ``--help``.
    """
    written = [arg.partition("=")[0].replace("-", "_") for arg in args if arg.startswith("--")]
    flags = {f"--{name[2:]}" for name in written}
    parser = program_parser()
    known, rest = parser.parse_known_args(with_underscores(args, flags))
    if rest and not hasattr(known, "beam_args"):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    known.beam_args = rest
    return known


def _with_config(args: list[str]) -> list[str]:
    """Returns the arguments with those of the file that ``--config`` names, which come first."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config")
    path = parser.parse_known_args(args)[0].config
    if path is None:
        return args
    given = {arg.partition("=")[0] for arg in args if arg.startswith("--")}
    words = 1 if args[:1] == ["transcribe"] else 0
    return [*args[:words], *config_file.arguments(path, given), *args[words:]]


def with_underscores(args: Sequence[str], flags: Collection[str]) -> list[str]:
    """Returns arguments in which flags that are written with hyphens have underscores."""
    result = []
    for arg in args:
        name, equals, value = arg.partition("=")
        underscored = f"--{name[2:].replace('-', '_')}"
        known = name.startswith("--") and underscored in flags
        result.append(f"{underscored}{equals}{value}" if known else arg)
    return result


def _words_apart(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns words that follow no flag, and all else."""
    words: list[str] = []
    rest: list[str] = []
    for arg in args:
        follows_flag = bool(rest) and rest[-1].startswith("-") and "=" not in rest[-1]
        (rest if arg.startswith("-") or follows_flag else words).append(arg)
    return words, rest


def conflict(flags: Any) -> str | None:
    """Returns a message on flags that conflict or are missing; None if there are none.

    Args:
        flags: has the value of each setting as an attribute.
    """
    if flags.filepath_key == flags.pred_text_key:
        return f"--filepath_key and --pred_text_key are both {flags.filepath_key!r}"
    if flags.resume and flags.overwrite:
        return "--resume keeps what is there and --overwrite replaces it: choose one"
    if flags.quiet and flags.verbose:
        return "--quiet prints less and --verbose prints more: choose one"
    if flags.append and flags.overwrite:
        return "--append keeps what is there and --overwrite replaces it: choose one"
    if flags.append and flags.resume:
        return "--append also goes on with an unfinished run: leave --resume out"
    if flags.limit is not None and flags.tarred_audio:
        return "--limit would leave most of --tarred_audio without rows: name a part of the tars"
    if flags.append and flags.tarred_audio and "nemo" in (flags.formats or ()):
        return "--append cannot add to the manifests of --formats=nemo, one for each tar"
    if not flags.retry_failures and not (flags.resume or flags.append):
        return "--no_retry_failures says what --resume or --append does, and neither is given"
    if flags.max_segment_seconds is not None and flags.segmentation == "none":
        return "--max_segment_seconds is given, but --segmentation=none cuts no row"
    if flags.model_name is None and flags.models is None:
        return "name a model: --model_name, or --models for one by language"
    if flags.models is None and flags.unmapped is not None:
        return f"--unmapped={flags.unmapped} is for --models, which is not given"
    min_duration, max_duration = flags.min_duration, flags.max_duration
    if min_duration and max_duration and min_duration > max_duration:
        return f"--min_duration={min_duration:g} is above --max_duration={max_duration:g}"
    if flags.normalizer != "none" and flags.reference_key is None:
        return f"--normalizer={flags.normalizer} needs --reference_key, which is not given"
    if flags.metrics and flags.reference_key is None:
        return f"--metrics={','.join(flags.metrics)} needs --reference_key, which is not given"
    return None


def program_parser() -> argparse.ArgumentParser:
    """Returns the parser of ``beam-asr``."""
    parser = argparse.ArgumentParser(
        prog="beam-asr",
        description="Batch speech recognition on Apache Beam with NVIDIA NeMo models.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"beam-asr {__version__}")
    parsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    transcribe = parsers.add_parser(
        "transcribe",
        help="transcribe the audio that manifests name",
        usage="beam-asr transcribe INPUT ... --output FOLDER --model_name MODEL [FLAGS]",
        description=DESCRIPTION,
        epilog="INPUT is the same as --input. All other flags are Beam's and pass through: "
        "--runner, --direct_num_workers, ... "
        "Exit status: 0 done (failed rows are counted in the last line), 1 the job failed, 2 wrong "
        "usage.",
        allow_abbrev=False,
    )
    transcribe.add_argument(
        "--config",
        metavar="FILE",
        help="YAML with names of flags, without dashes, and their values; flags given here replace "
        "those of the file",
    )
    add_flags(transcribe)
    commands.add_parsers(parsers)
    return parser


DESCRIPTION = (
    "Transcribes the audio that NeMo manifests name and writes the rows with their "
    "transcripts as sharded JSONL."
)


def add_flags(parser: argparse.ArgumentParser, groups: Groups = GROUPS) -> None:
    """Adds a flag for each setting, those of a group together, core ones first."""
    for group in groups.values():
        section = parser.add_argument_group(group.title)
        for setting in sorted(settings_of(group), key=lambda setting: not setting.core):
            add_flag(section, setting)


def add_flag(parser: Any, setting: Setting, **arguments: Any) -> None:
    """Adds the flag of a setting to a parser of argparse, or to a group of one.

    Args:
        arguments: of argparse, that are others than those of the setting.
    """
    arguments = {"help": help_of(setting), **_action(setting), **arguments}
    parser.add_argument(flag_of(setting), dest=setting.name, **arguments)


def help_of(setting: Setting) -> str:
    """Returns the help of a setting, with its choices where it names them."""
    return as_flags(setting.help.replace("{choices}", ", ".join(choices(setting))))


def _action(setting: Setting) -> dict[str, Any]:
    """Returns how argparse takes the flag of a setting."""
    if setting.value_type is bool:
        return {"action": "store_false" if setting.default else "store_true"}
    arguments: dict[str, Any] = {"default": setting.default, "metavar": setting.metavar}
    if setting.value_type is tuple:  # the inputs may also be words without a flag
        return {**arguments, "action": _Words, "nargs": "+", "type": parser_of(setting)}
    arguments["required"] = setting.required
    if known := choices(setting):
        return {**arguments, "choices": known}
    if setting.bare is not None:
        arguments |= {"nargs": "?", "const": setting.bare}
    return {**arguments, "type": parser_of(setting)}


class _Words(argparse.Action):
    """Collects the words of a flag, each a list of values, over all times that it is given."""

    def __call__(
        self,
        _parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        _flag: str | None = None,
    ) -> None:
        before = getattr(namespace, self.dest) or []
        setattr(namespace, self.dest, [*before, *(value for word in values for value in word)])
