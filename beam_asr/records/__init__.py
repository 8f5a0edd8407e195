"""Defines the values of the job: rows, clips, segments, records, settings, statistics."""
