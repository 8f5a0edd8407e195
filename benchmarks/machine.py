"""What a measurement was made on, and how much memory a process took."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
from importlib import metadata
from pathlib import Path

SELF = Path("/proc/self")


def describe(*packages: str) -> str:
    """Cores, processor, memory, load, and the versions of Python and of these packages."""
    processors = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in processors if "model name" in line), "?")
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{package} {metadata.version(package)}" for package in packages)
    return (
        f"{len(os.sched_getaffinity(0))} cores of {model}, {gib:.0f} GiB, load before the start "
        f"{os.getloadavg()[0]:.1f}; Python {platform.python_version()}, {versions}"
    )


def settled_mb() -> float:
    """Memory that the process holds now, once what is free has been given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return _status_mb("VmRSS")


def peak_mb() -> float:
    """The most memory that the process has held, since `forget_peak` if that was called."""
    return _status_mb("VmHWM")


def forget_peak() -> None:
    (SELF / "clear_refs").write_text("5")


def _status_mb(field: str) -> float:
    lines = (SELF / "status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(field))
