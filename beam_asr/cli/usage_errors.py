"""Words errors of the places that a command line names, with the flag that names them."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator

from beam_asr.cli.messages import as_flags
from beam_asr.errors import (
    SetupError,
    StorageError,
    StorageReadError,
    UnreachableError,
    UsageError,
    WriteError,
)
from beam_asr.storage.retry import problem_of
from beam_asr.storage.storage import Storage

# All storages are reached through this package.
STORAGE_PACKAGE = Storage.__module__.rpartition(".")[0]


@contextlib.contextmanager
def as_usage_errors(flag: str = "", value: str = "") -> Iterator[None]:
    """Raises errors of the places that the command line names as UsageError.

    Other errors are defects of the job, and stay as they are, so that their traceback is seen.

    Args:
        flag: the one that names the place; empty if it may be several.
        value: of the flag, if it is the place.
    """
    named = f"{flag}={value}" if value else flag
    place = named or "a storage that the command line names"
    try:
        yield
    except UsageError:
        raise
    except (StorageReadError, UnreachableError, WriteError) as error:
        raise UsageError(as_flags(f"{place}: {error}")) from error
    except (SetupError, StorageError) as error:
        raise UsageError(as_flags(str(error))) from error
    except FileNotFoundError as error:
        raise UsageError(as_flags(f"{named}: {error}" if named else str(error))) from error
    except Exception as error:
        if not _is_storage_error(error):
            raise
        raise UsageError(as_flags(f"{place}: {problem_of(error)}")) from error


def _is_storage_error(error: Exception) -> bool:
    """Returns whether a storage raised an error, of its own classes or of built-in ones."""
    modules = (frame.f_globals["__name__"] for frame, _ in traceback.walk_tb(error.__traceback__))
    return isinstance(error, OSError) or any(
        name.startswith(f"{STORAGE_PACKAGE}.") for name in modules
    )
