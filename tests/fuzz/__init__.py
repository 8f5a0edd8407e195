"""Fuzzing: damaged files of every kind through the readers, until one of them misbehaves.

    python -m tests.fuzz --minutes 20 manifest audio tar

See docs/testing.md.
"""
