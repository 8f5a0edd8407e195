"""Turns the texts of flags into the values of their settings, or refuses them."""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from beam_asr.errors import ExpressionError
from beam_asr.records import conditions
from beam_asr.records.setting_fields import Setting, is_gpu_count
from beam_asr.storage.patterns import split_commas
from beam_asr.transforms.choices import choices

FILE_NAME = re.compile(r"[\w./~-]+\.[A-Za-z]{1,5}")
ACCELERATOR = re.compile(r"type:[a-z0-9-]+;count:[1-9][0-9]*(;[a-z0-9_:.-]+)*")


def parser_of(setting: Setting) -> Callable[[str], Any]:
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


def storage_options(text: str) -> dict[str, dict[str, Any]]:
    """Parses storage options: a JSON object, or the path of a file of one.

    Raises:
        argparse.ArgumentTypeError: without the text, which may be a secret.
    """
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
    Mapping: lambda text, _: storage_options(text),
}
FORMATS: dict[str, Callable[[str, Setting], Any]] = {
    "gpus": _gpus,
    "accelerator": _accelerator,
    "condition": _condition,
}
