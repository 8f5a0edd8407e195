"""The version, and nothing else: what builds the package reads it as text."""

__version__ = "0.1.0"
