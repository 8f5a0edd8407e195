"""Parses the flags that are Beam's, and refuses what neither Beam nor this package knows."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Mapping, Sequence

from apache_beam.options.pipeline_options import (
    PipelineOptions,
    SetupOptions,
    _BeamArgumentParser,
)

from beam_asr.cli import runners
from beam_asr.cli.options import FLAG_NAMES, with_underscores
from beam_asr.errors import UsageError

NEGATIVE = re.compile(r"-[0-9.]+")
# Of two flags, as difflib measures it: a letter or two that are other ones.
NEAR = 0.8
# Where a job server has flags of its own, of which one may well resemble another.
NEARLY_EQUAL = 0.9


def parse(args: Sequence[str]) -> PipelineOptions:
    """Parses the arguments that are not of this package's flags.

    Raises:
        UsageError: names a flag or a word that nobody knows, or says that Beam refuses a flag.
    """
    flags = _flags()
    args = with_underscores(args, flags)
    try:
        options = PipelineOptions(args)
        options.get_all_options(retain_unknown_options=True)  # parses them
    except SystemExit:  # Beam's parser has printed the problem
        raise UsageError(f"Beam refuses its flags: {' '.join(args)}") from None
    _check_known(args, flags, runners.profile_of(options).has_own_flags)
    # Workers need nothing of the launching session: they import the package.
    options.view_as(SetupOptions).save_main_session = False
    return options


def _flags() -> dict[str, argparse.Action]:
    """Returns Beam's flags, with what its parser does at each."""
    flags: dict[str, argparse.Action] = {}
    for group in PipelineOptions.__subclasses__():
        parser = _BeamArgumentParser(add_help=False)
        group._add_argparse_args(parser)
        flags |= parser._option_string_actions
    return flags


def _check_known(
    args: Sequence[str], flags: Mapping[str, argparse.Action], has_own_flags: bool
) -> None:
    """Refuses flags and words that nobody takes, which Beam would drop with a warning at most."""
    takes_words = several = False
    for arg in args:
        name, equals, _ = arg.partition("=")
        if not name.startswith("-") or (takes_words and NEGATIVE.fullmatch(arg)):
            if not takes_words:
                raise UsageError(
                    f"the word {arg!r} belongs to no flag; put inputs directly after `transcribe`, "
                    "or after --input"
                )
            takes_words = several
            continue
        action = flags.get(name)
        if action is None:
            _refuse_unknown(name, flags, has_own_flags)
        several = action is not None and action.nargs in ("+", "*")
        takes_words = not equals and (action is None or action.nargs != 0)


def _refuse_unknown(name: str, flags: Mapping[str, argparse.Action], has_own_flags: bool) -> None:
    cutoff = NEARLY_EQUAL if has_own_flags else NEAR
    close = difflib.get_close_matches(name, [*FLAG_NAMES, *flags], 1, cutoff=cutoff)
    if has_own_flags and name.startswith("--") and not close:
        return
    suggestion = f"; did you mean {close[0]}?" if close else ""
    raise UsageError(f"unknown flag {name}: it is neither ours nor Beam's{suggestion}")
