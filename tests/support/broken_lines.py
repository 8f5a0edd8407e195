"""Content that breaks off."""

from __future__ import annotations


def broken_lines():
    yield b"new\n" * 1000
    raise OSError("disk full")
