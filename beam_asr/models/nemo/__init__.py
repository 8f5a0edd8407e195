"""Runs NVIDIA NeMo models as an engine."""
