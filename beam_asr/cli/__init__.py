"""Runs `beam-asr`: flags, checks, launch and runners."""
