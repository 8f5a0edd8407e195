"""Beam's worker pool in a process of its own, which starts ``python`` for each worker."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

# What Beam's `worker_pool_main` does, on a port that the system gives: two of its servers may
# listen on one port, so one that was free before may be another's. The address is said when
# something listens there.
PROGRAM = """
import sys, threading
from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer as Pool
address, server = Pool.start(use_process=True, container_executable=(sys.argv[1:] or [None])[0])
print(f"workers start at {address}", flush=True)
threading.Event().wait()
"""


def address_of(log: Path, has_ended: Callable[[], bool]) -> str:
    """Waits for the address that a pool says in its log."""
    while not (said := re.search("workers start at (.+)\n", log.read_text())):
        if has_ended():
            pytest.fail(f"the worker pool did not start:\n{log.read_text()}")
        time.sleep(0.05)
    return said[1]
