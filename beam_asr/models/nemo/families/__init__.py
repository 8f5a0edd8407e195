"""Drives the decoder families of NeMo, one file for each."""
