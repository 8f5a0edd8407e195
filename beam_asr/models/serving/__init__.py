"""Batches clips and runs them through the models of a process, in one thread for each."""
