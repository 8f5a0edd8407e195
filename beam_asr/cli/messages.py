"""Words messages for the command line, with settings as flags, and fit for a terminal."""

from __future__ import annotations

import logging
from typing import TextIO

from beam_asr import process
from beam_asr.errors import UNPRINTABLE
from beam_asr.records.setting_fields import Setting, all_settings, with_flags
from beam_asr.settings import GROUPS
from beam_asr.storage.uris import without_secrets


def flag_of(setting: Setting) -> str:
    """Returns the flag of a setting; that of a switch which is on by default turns it off."""
    return f"--no_{setting.name}" if setting.default is True else f"--{setting.name}"


# Settings that have a flag of the same name.
FLAGS = frozenset(
    setting.name for setting in all_settings(GROUPS) if flag_of(setting) == f"--{setting.name}"
)


def as_flags(message: str) -> str:
    """Returns a message of the library with its settings as flags."""
    return with_flags(message, FLAGS)


def for_terminal(text: str) -> str:
    """Returns a text without what may be secret of a URL, and with escapes for what is no text.

    Control characters of a manifest could move the cursor, or change what is shown.
    """
    return UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], str(without_secrets(text)))


def worded(message: str) -> str:
    """Returns a message as the command line shows it: as ``as_flags`` and ``for_terminal``."""
    return for_terminal(as_flags(message))


class TerminalFormatter(logging.Formatter):
    """Formats what is logged as ``for_terminal``."""

    def format(self, record: logging.LogRecord) -> str:
        return for_terminal(super().format(record))


class _Console(logging.StreamHandler[TextIO]):
    """Writes what is logged above the line that shows the progress."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        with tqdm.external_write_mode(file=self.stream):
            super().emit(record)


def console_handler() -> logging.Handler:
    """Returns the handler that shows what is logged on the terminal."""
    console = _Console()
    console.setFormatter(TerminalFormatter("%(levelname)s %(name)s: %(message)s"))
    console.addFilter(_is_not_printed)
    console.addFilter(_is_of_interest)
    return console


def _is_not_printed(record: logging.LogRecord) -> bool:
    """Returns whether a record is not what `process.exit_now` logs and prints."""
    return record.name != process.__name__ or record.levelno < logging.CRITICAL


def _is_of_interest(record: logging.LogRecord) -> bool:
    """Returns whether a record is not Beam's note that Google's packages are missing.

    Beam logs it at each start without its extra ``gcp``. A job that needs them is refused.
    """
    return record.name != "root" or not str(record.msg).startswith("apitools not found")


def started(output: str) -> str:
    """Returns the last line of a command whose job goes on without it."""
    return f"Job started. {output} has a file _SUCCESS when it is complete."
