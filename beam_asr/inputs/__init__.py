"""Finds and reads inputs: manifests, tables, tars and audio files, as rows and clips."""
