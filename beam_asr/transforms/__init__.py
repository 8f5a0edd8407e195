"""Beam: PTransforms and DoFns; wiring only."""
