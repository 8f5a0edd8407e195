"""Runs the command line as ``python -m beam_asr``."""

import sys

from beam_asr.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
