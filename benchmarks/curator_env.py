"""NeMo Curator's environment, beside our own: the same NeMo and torch, so that only it differs.

The stage needs Python 3.11 or newer, and FFmpeg's libraries on the machine, for torchcodec, with
which torchaudio reads files. The extra that Curator documents, `nemo-curator[audio-cpu]`, brings an
older torch and some 40 packages for stages that are not used here.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.corpora import ROOT

ENVIRONMENT = ROOT / ".cache" / "curator-env"
PACKAGES = (
    "nemo-curator==1.4.0",
    "nemo_toolkit[asr]",
    "torchaudio==2.11.0",
    "torchcodec==0.17.0",
)


def python() -> Path:
    """The environment's Python; made if it is not there.

    Raises:
        subprocess.CalledProcessError: it cannot be made; `stderr` says why.
    """
    installed = ENVIRONMENT / "installed"
    if not installed.exists():
        uv = Path(sys.executable).parent / "uv"
        binary = ENVIRONMENT / "bin" / "python"
        make = [uv, "venv", "--quiet", "--clear", "--python", "3.11", ENVIRONMENT]
        install = [uv, "pip", "install", "--quiet", "--python", binary]
        install += ["--constraint", ROOT / "requirements.txt", *PACKAGES]
        for command in (make, install):
            subprocess.run(command, check=True, capture_output=True, text=True)
        installed.touch()
    return ENVIRONMENT / "bin" / "python"
