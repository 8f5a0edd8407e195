"""Wires the job as Beam PTransforms and DoFns."""
