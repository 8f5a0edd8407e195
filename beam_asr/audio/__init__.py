"""Reads clips as mono float32 samples, and cuts long recordings into segments."""
