"""Holds the version, which the build reads as text."""

__version__ = "0.1.0"
