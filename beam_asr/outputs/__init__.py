"""Writes the output folder, without Beam."""
