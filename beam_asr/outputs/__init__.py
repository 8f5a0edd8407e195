"""The output folder; no Beam."""
