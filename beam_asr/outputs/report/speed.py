"""Says in words how fast a run was, and where its time went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from beam_asr.outputs.report import charts
from beam_asr.outputs.report.run_fields import shown

SHOWN_WORKERS = 20

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


WORKER_COLUMNS = ("worker", "hours", "batches", "RTFx of the model", "waiting", "padding")


def worker_rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Returns what the model did in each worker process, those with the most audio first."""
    workers = summary.get("workers") or []
    rows: list[tuple[str, ...]] = [
        (
            shown(worker["worker"]),
            f"{worker['audio_hours']:,.2f}",
            f"{worker['batches']:,}",
            _written(worker["rtfx_model"], "{:,.1f}"),
            _written(worker["model_wait_share"], "{:.1%}"),
            _written(worker["padding_efficiency"], "{:.1%}"),
        )
        for worker in workers[:SHOWN_WORKERS]
    ]
    if len(workers) > SHOWN_WORKERS:
        further = f"({len(workers) - SHOWN_WORKERS:,} further, in summary.json)"
        rows.append((further, *[""] * (len(WORKER_COLUMNS) - 1)))
    return rows


def _written(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def charts_over_time(summary: Mapping[str, Any]) -> list[charts.Chart]:
    """Returns charts of the speed and the waiting over time; none of a run of one span."""
    spans = summary.get("over_time") or []
    if len(spans) < 2:
        return []
    times = [span["start"] for span in spans]
    speeds = [3600 * span["audio_hours"] / span["seconds"] for span in spans]
    shares = [span["model_wait_share"] or 0.0 for span in spans]
    seconds = spans[0]["seconds"]
    return [
        charts.over_time(
            "speed-over-time", "RTFx over time", "seconds of audio a second", times, speeds, seconds
        ),
        charts.over_time(
            "waiting-over-time", "Model waiting over time", "share", times, shares, seconds
        ),
    ]
