"""Debian's Chromium, without a window, driven by Playwright."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.emulators import CACHE
from tests.support.job_files import REPOSITORY

FLAGS = ("--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required")


@contextmanager
def launched() -> Iterator[Any]:
    """Runs a browser to the end of the block; the first time, its packages are fetched."""
    from playwright.sync_api import sync_playwright

    folder = CACHE / "chromium"
    script = REPOSITORY / "tests/support/fetch_chromium.sh"
    subprocess.run(["bash", str(script), str(folder)], check=True)
    libraries = sorted({str(path.parent) for path in folder.rglob("*.so*")})
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(folder / "usr/lib/chromium/chromium"),
            args=list(FLAGS),
            env={**os.environ, "LD_LIBRARY_PATH": ":".join(libraries)},
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A browser for pages; each test opens contexts of its own."""
    if not shutil.which("apt-get"):
        pytest.skip("Chromium comes from Debian's packages, and apt-get is not here")
    with launched() as browser:
        yield browser
