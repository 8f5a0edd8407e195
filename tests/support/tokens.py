"""Tokens of a transcript."""

from __future__ import annotations


def texts(tokens):
    return [token.text for token in tokens]
