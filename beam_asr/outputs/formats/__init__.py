"""Writes transcripts in further formats, with a module for each."""
