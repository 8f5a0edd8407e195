"""Runs the command line as ``beam-asr`` and as ``python -m beam_asr``."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
from typing import NoReturn

FAILED = 1


def main() -> NoReturn:
    """Runs the command line, and ends this process with its status, from the first moment on.

    The interpreter is not torn down. Threads may still be in the model's or a decoder's C++, for
    instance when the job ends early; ending them there makes the C++ runtime abort the process
    ("terminate called without an active exception", status 134).
    """
    signal.signal(signal.SIGINT, _end)  # until a job is started, which saves first
    from beam_asr.cli.main import main as run  # takes a while, and may be interrupted

    status = run()
    with contextlib.suppress(Exception):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # nobody reads it any more
            stream.flush()
    os._exit(status)


def _end(*_: object) -> NoReturn:
    os.write(2, b"beam-asr: ended by SIGINT\n")
    os._exit(FAILED)


if __name__ == "__main__":
    main()
