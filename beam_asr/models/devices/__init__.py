"""GPUs, CPUs, memory."""
