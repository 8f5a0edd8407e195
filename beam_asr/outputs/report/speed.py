"""Says in words how fast a run was, and where its time went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Of a summary: what it is called, how it is written, and what it tells.
FIGURES = (
    (
        "rtfx_end_to_end",
        "RTFx, end to end",
        "{:,.1f}",
        "seconds of audio a second of the whole job",
    ),
    ("rtfx_model", "RTFx of the model", "{:,.1f}", "seconds of audio a second of its passes alone"),
    ("wall_seconds", "Wall time", "{:,.0f} s", "from the launch to the end"),
    ("model_seconds", "Time of the model", "{:,.0f} s", "of all workers together"),
    (
        "model_wait_share",
        "Model waiting",
        "{:.1%}",
        "of its time it had nothing to do: above a few percent, reading audio is too slow",
    ),
    (
        "padding_efficiency",
        "Padding",
        "{:.1%}",
        "of what the model computed was audio, the rest filled batches up",
    ),
    ("batches", "Batches", "{:,}", "passes of the model"),
    ("long_rows", "Long rows", "{:,}", "were cut into segments"),
    ("segments_failed", "Segments that failed", "{:,}", "of long rows"),
    ("unheard_hours", "Silence left out", "{:,.2f} h", "of long rows; nobody speaks in it"),
    ("no_speech", "Rows without speech", "{:,}", "have an empty text"),
)


def speed_rows(summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Returns the figures that a summary has: name, value, and what it tells."""
    return [
        (label, form.format(value), meaning)
        for name, label, form, meaning in FIGURES
        if isinstance(value := summary.get(name), (int, float))
    ]
