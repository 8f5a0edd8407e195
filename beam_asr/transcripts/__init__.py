"""Handles texts, tokens, times and scores of transcripts, without I/O."""
