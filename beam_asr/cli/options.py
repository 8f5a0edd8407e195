"""Defines the flags of ``beam-asr transcribe`` from `settings`, and parses a command line."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from beam_asr.cli.messages import as_flags, flag_of
from beam_asr.errors import ExpressionError
from beam_asr.records import conditions
from beam_asr.records.setting_fields import (
    Groups,
    Setting,
    all_settings,
    flatten,
    is_gpu_count,
    make_groups,
    settings_of,
)
from beam_asr.settings import GROUPS, Settings
from beam_asr.storage.patterns import split_commas
from beam_asr.transforms.choices import choices

FLAG_NAMES = frozenset(flag_of(setting) for setting in all_settings(GROUPS))
FILE_NAME = re.compile(r"[\w./~-]+\.[A-Za-z]{1,5}")
ACCELERATOR = re.compile(r"type:[a-z0-9-]+;count:[1-9][0-9]*(;[a-z0-9_:.-]+)*")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranscribeOptions(Settings):
    """Holds the settings of a command line, and its flags for Beam."""

    beam_args: list[str]

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
    known, rest = parser.parse_known_args(with_underscores(args, FLAG_NAMES))
    words, beam_args = _words_apart(rest)
    values = vars(known)
    if values.pop("command") is None:
        parser.error("name a command; there is one: transcribe")
    values["input"] = [*words, *(known.input or [])]
    if problem := _conflict(known):
        parser.error(problem)
    try:
        return TranscribeOptions(**make_groups(GROUPS, values), beam_args=beam_args)
    except ValueError as error:
        parser.error(str(error))


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


def _conflict(flags: argparse.Namespace) -> str | None:
    """Returns a message on flags that conflict or are missing; None if there are none."""
    if not flags.input:
        return "name an input, with or without --input: a manifest, audio, a folder or a pattern"
    if flags.filepath_key == flags.pred_text_key:
        return f"--filepath_key and --pred_text_key are both {flags.filepath_key!r}"
    if flags.resume and flags.overwrite:
        return "--resume keeps what is there and --overwrite replaces it: choose one"
    if flags.append and flags.overwrite:
        return "--append keeps what is there and --overwrite replaces it: choose one"
    if flags.append and flags.resume:
        return "--append also goes on with an unfinished run: leave --resume out"
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
    return None


def program_parser() -> argparse.ArgumentParser:
    """Returns the parser of ``beam-asr``."""
    parser = argparse.ArgumentParser(
        prog="beam-asr",
        description="Batch speech recognition on Apache Beam with NVIDIA NeMo models.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    transcribe = commands.add_parser(
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
    add_flags(transcribe)
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
            section.add_argument(
                flag_of(setting), dest=setting.name, help=help_of(setting), **_action(setting)
            )


def help_of(setting: Setting) -> str:
    """Returns the help of a setting, with its choices where it names them."""
    return as_flags(setting.help.replace("{choices}", ", ".join(choices(setting))))


def _action(setting: Setting) -> dict[str, Any]:
    """Returns how argparse takes the flag of a setting."""
    if setting.value_type is bool:
        return {"action": "store_false" if setting.default else "store_true"}
    arguments: dict[str, Any] = {"default": setting.default, "metavar": setting.metavar}
    if setting.value_type is tuple:  # the inputs may also be words without a flag
        return {**arguments, "action": _Words, "nargs": "+", "type": _parser_of(setting)}
    arguments["required"] = setting.required
    if known := choices(setting):
        return {**arguments, "choices": known}
    if setting.bare is not None:
        arguments |= {"nargs": "?", "const": setting.bare}
    return {**arguments, "type": _parser_of(setting)}


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


def _parser_of(setting: Setting) -> Callable[[str], Any]:
    """Returns the function that turns the text of a flag into a value, or refuses it."""
    parser = FORMATS.get(setting.format) or TYPES[setting.value_type]

    def parse(text: str) -> Any:
        return parser(text, setting)

    return parse


def _word(text: str, _: Setting) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty")
    return text


def _words(text: str, setting: Setting) -> list[str]:
    known = choices(setting)
    if not known:
        return [_word(part, setting) for part in split_commas(text)]
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if part not in known:
            raise argparse.ArgumentTypeError(f"{part!r} is none of {', '.join(known)}")
    return parts


def _storage_options(text: str, _: Setting) -> dict[str, dict[str, Any]]:
    try:
        if not text.lstrip().startswith("{"):
            text = Path(text).expanduser().read_text(encoding="utf-8")
        return json.loads(text)
    except OSError as error:
        # What is no name of a file may be a secret.
        reason = f"{error.strerror}: {text!r}" if FILE_NAME.fullmatch(text) else error.strerror
        raise argparse.ArgumentTypeError(
            f"is neither a JSON object nor the path of a file of one ({reason})"
        ) from None
    except ValueError as error:  # of JSON, whose messages do not show the text; or a NUL in a path
        raise argparse.ArgumentTypeError(f"is not JSON ({error})") from None


def _condition(text: str, _: Setting) -> str:
    try:
        return conditions.parse(text).text
    except ExpressionError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _gpus(text: str, setting: Setting) -> float:
    value = _number(text, setting)
    if not is_gpu_count(value):
        raise argparse.ArgumentTypeError(
            f"{text} is neither a whole number nor a fraction such as 0.5, 0.33 or 0.25"
        )
    return value


def _accelerator(text: str, _: Setting) -> str:
    if not ACCELERATOR.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not of the form type:TYPE;count:NUMBER;install-nvidia-driver"
        )
    return text


def _number(text: str, setting: Setting) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    minimum, maximum = setting.minimum, setting.maximum
    if minimum is not None and maximum is not None:
        if not minimum <= value <= maximum:
            raise argparse.ArgumentTypeError(f"{text} is not within {minimum:g} and {maximum:g}")
    elif minimum is not None and not minimum <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number of {minimum:g} or more")
    elif setting.above is not None and not setting.above < value < math.inf:
        what = "a number of seconds" if setting.format == "seconds" else "a number"
        raise argparse.ArgumentTypeError(f"{text} is not {what} above {setting.above:g}")
    return value


def _whole(text: str, setting: Setting) -> int | str:
    minimum = 0 if setting.minimum is None else int(setting.minimum)
    if text in setting.words:
        return text
    if not text.isdigit() or int(text) < minimum:
        words = "".join(f", or {word}" for word in setting.words)
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a whole number of {minimum} or more{words}"
        )
    if setting.maximum is not None and int(text) > setting.maximum:
        raise argparse.ArgumentTypeError(
            f"{text} is more than {setting.maximum:g}, the most there can be"
        )
    return int(text)


TYPES: dict[Any, Callable[[str, Setting], Any]] = {
    str: _word,
    int: _whole,
    float: _number,
    tuple: _words,
    Mapping: _storage_options,
}
FORMATS: dict[str, Callable[[str, Setting], Any]] = {
    "gpus": _gpus,
    "accelerator": _accelerator,
    "condition": _condition,
}
