"""Defines the prompt of a clip, for models that take one."""

from __future__ import annotations

from typing import NamedTuple


class Prompt(NamedTuple):
    """Holds the prompt of a clip; None leaves a field to the model.

    Attributes:
        source_lang: the language that is spoken, as a tag: ``en``, ``en-US``, ``es_419``.
        target_lang: the language of the text, likewise.
        task: ``transcribe`` or ``translate``.
        pnc: ``yes`` for punctuation and capitals, or ``no``.
    """

    source_lang: str | None = None
    target_lang: str | None = None
    task: str | None = None
    pnc: str | None = None


NO_PROMPT = Prompt()
