"""Texts, tokens, times, scores; pure."""
