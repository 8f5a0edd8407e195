"""Messages as the command line says them: with settings as flags."""

from __future__ import annotations

import dataclasses

from beam_asr import errors
from beam_asr.cli.options import TranscribeOptions

# Settings that have a flag of the same name.
FLAGS = frozenset(field.name for field in dataclasses.fields(TranscribeOptions)) - {"beam_args"}


def as_flags(message: str) -> str:
    """Returns a message of the library with its settings as flags."""
    return errors.with_flags(message, FLAGS)
