"""Loads, runs and serves models on their devices; only `models.nemo` imports NeMo."""
