"""NVIDIA NeMo behind the protocol of an engine."""
