"""Makes the page of a comparison of runs: one HTML file, and its main figures in words."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import numpy as np

from beam_asr._version import __version__
from beam_asr.outputs.output import Output
from beam_asr.outputs.report import charts
from beam_asr.outputs.report.comparison import (
    CONFIDENCE,
    EXAMPLES,
    RESAMPLES,
    SHOWN_ROWS,
    Comparison,
    Difference,
    by_language,
    compare,
)
from beam_asr.outputs.report.excerpts import excerpts
from beam_asr.outputs.report.page import render
from beam_asr.outputs.report.rows_table import shown_pieces
from beam_asr.outputs.report.run_fields import NONE, number, shown, shown_place
from beam_asr.outputs.report.word_differences import MAX_CHARACTERS, SAME
from beam_asr.records.record import Record
from beam_asr.transcripts.normalizers import normalizer

SHOWN_LANGUAGES = 20
METHOD = (
    f"All runs are scored alike, over the rows that all have. The intervals ({CONFIDENCE:.0%}) and "
    f"p are of a paired bootstrap: rows are drawn {RESAMPLES:,} times, as many as there are, with "
    "repetition, and the same for all runs. p is how often chance alone would make a difference as "
    "large, in either direction. It takes rows for independent: where many are of one recording or "
    "speaker, the true intervals are wider."
)


def write_comparison(outputs: Sequence[Output], to: str) -> Comparison:
    """Compares the results in several folders, and writes the page.

    Args:
        to: path or URI of the HTML file, which is replaced.

    Raises:
        WriteError: it cannot be written.
    """
    comparison = compare(outputs)
    outputs[0].storage.write(to, [page(comparison)])
    return comparison


def in_words(comparison: Comparison) -> list[str]:
    """Returns the main figures as lines for a terminal."""
    runs = comparison.runs
    lines = [
        f"{len(comparison.rows):,} rows in all of {len(runs)} runs; {_scored_note(comparison)}"
    ]
    for run, rate in zip(runs, comparison.rates):
        lines.append(f"{run.name}: WER {rate.rate:.2%} ({rate.low:.2%} to {rate.high:.2%})")
    for run, difference in zip(runs[1:], comparison.differences):
        lines.append(f"{run.name} against {runs[0].name}: {_in_words(difference)}")
    for run, rows in zip(runs, comparison.apart):
        if rows:
            lines.append(f"{len(rows):,} rows of {run.name} are not in every run")
    return lines


def page(comparison: Comparison) -> bytes:
    """Returns the page of a comparison, as HTML."""
    runs = comparison.runs
    rows, lists = _rows(comparison)
    columns = [
        {"key": f"wer{place}", "label": f"WER {run.name}", "format": "percent"}
        for place, run in enumerate(runs)
        if comparison.rates
    ]
    if comparison.rates and len(runs) == 2:
        columns.append({"key": "more", "label": "Words wrong", "format": "signed"})
    columns.append({"key": "duration", "label": "Seconds", "format": "number"})
    values = {
        "title": "Comparison of runs",
        "version": __version__,
        "made": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
        "folders": [(run.name, shown_place(run.output.folder)) for run in runs],
        "count": len(comparison.rows),
        "scored_note": _scored_note(comparison),
        "first": runs[0].name,
        "runs": [_run(comparison, place) for place in range(len(runs))],
        "chart_of_rates": _chart(comparison),
        "differences": [
            (run.name, each, _in_words(each)) for run, each in zip(runs[1:], comparison.differences)
        ],
        "method": METHOD,
        "languages": _languages(comparison),
        "names": [run.name for run in runs],
        "apart": _apart(comparison),
        "columns": columns if rows else [],
        "lists": lists,
    }
    values["sections"] = [
        (name, title)
        for name, title, is_there in (
            ("runs", "Runs", True),
            ("languages", "Languages", values["languages"]),
            ("examples", "Rows", rows),
            ("apart", "Rows apart", values["apart"]),
        )
        if is_there
    ]
    return render("comparison.html", values, {"rows": rows, "columns": columns})


def _scored_note(comparison: Comparison) -> str:
    count, alike = len(comparison.rows), int(comparison.alike.sum())
    same = f"the texts of {alike:,} are the same"
    if comparison.rates:
        normalizer_name = comparison.runs[0].fields.normalizer
        return f"{len(comparison.scored):,} have a reference (normalizer {normalizer_name}); {same}"
    if not count:
        return "rows are the same if their audio_filepath, offset and channel are"
    return f"none has a reference, so there are no error rates; {same}"


def _in_words(difference: Difference) -> str:
    """Returns a difference in words."""
    points, low, high = (100 * rate for rate in (difference.rate, difference.low, difference.high))
    is_sure = difference.low > 0 or difference.high < 0
    direction = "better" if points < 0 else "worse"
    verdict = f"{direction}, beyond chance" if is_sure else "no difference beyond chance"
    return (
        f"{points:+.2f} points of WER ({low:+.2f} to {high:+.2f}, p = {difference.p:.3f}): "
        f"{verdict}; better in {difference.wins:,} rows, worse in "
        f"{difference.losses:,}, as good in {difference.ties:,}"
    )


def _run(comparison: Comparison, place: int) -> tuple[str, ...]:
    run = comparison.runs[place]
    models = [str(model.get("model", "")) for model in run.summary.get("models") or []]
    rate = comparison.rates[place] if comparison.rates else None
    speed = run.summary.get("rtfx_end_to_end")
    return (
        run.name,
        shown(", ".join(dict.fromkeys(models))),
        f"{len(run.keys):,}",
        f"{len(run.failed):,}",
        "" if rate is None else f"{rate.rate:.2%}",
        "" if rate is None else f"{rate.low:.2%} to {rate.high:.2%}",
        "" if speed is None else f"{speed:,.1f}",
    )


def _chart(comparison: Comparison) -> charts.Chart | None:
    if not comparison.rates:
        return None
    marks = [
        charts.Interval(run.name, *rate) for run, rate in zip(comparison.runs, comparison.rates)
    ]
    return charts.intervals("Word error rates", marks, "rates")


def _languages(comparison: Comparison) -> list[tuple[str, ...]]:
    if not comparison.rates:
        return []
    return [
        (language, f"{rows:,}", *(f"{rate:.2%}" for rate in rates))
        for language, rows, rates in by_language(comparison)[:SHOWN_LANGUAGES]
    ]


def _rows(comparison: Comparison) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """Returns the rows of the table, with their lists: where a run is better, and where worse."""
    lists = _lists(comparison)
    chosen = list(dict.fromkeys(place for _, _, places in lists for place in places))
    records: dict[int, list[Record]] = {place: [] for place in chosen}
    for number_, run in enumerate(comparison.runs):
        places = {int(comparison.rows[place, number_]): place for place in chosen}
        for index, record in run.records(set(places)):
            records[places[index]].append(record)
    first = comparison.runs[0]
    audio = excerpts([records[place][0] for place in chosen], first.fields, first.output.storage)
    found = []
    for place, excerpt in zip(chosen, audio, strict=True):
        row = _row(comparison, place, records[place])
        row["lists"] = {
            name: members.index(place) for name, _, members in lists if place in members
        }
        row |= {name: value for name, value in excerpt._asdict().items() if value}
        found.append(row)
    return found, [(name, label) for name, label, places in lists if places]


def _lists(comparison: Comparison) -> list[tuple[str, str, list[int]]]:
    """Returns lists of rows: name, label, and their places among the rows of all runs."""
    rows = comparison.rows
    if not comparison.rates:
        differ = np.flatnonzero(~comparison.alike)[: 2 * SHOWN_ROWS]
        return [("differ", "whose texts differ", differ.tolist())]
    place_of = {int(row): place for place, row in enumerate(rows[:, 0])}
    places = np.array([place_of[int(row)] for row in comparison.scored[:, 0]])
    wrong = comparison.wrong
    lists = []
    for number_, run in enumerate(comparison.runs[1:], 1):
        more = wrong[number_] - wrong[0]
        first = comparison.runs[0].name
        for name, label, sign in (
            (f"worse{number_}", f"where {run.name} is worse than {first}", 1),
            (f"better{number_}", f"where {run.name} is better than {first}", -1),
        ):
            order = np.argsort(-sign * more, kind="stable")[:SHOWN_ROWS]
            lists.append((name, label, places[order[sign * more[order] > 0]].tolist()))
    return lists


def _row(comparison: Comparison, place: int, records: list[Record]) -> dict[str, Any]:
    runs = comparison.runs
    fields = runs[0].fields
    normalize = normalizer(fields.normalizer)
    audio, offset, channel = fields.place_of(records[0])
    row: dict[str, Any] = {
        "audio": shown_place(audio)[:500],
        "offset": offset,
        "channel": channel,
        "duration": number(records[0].get("duration")),
        "texts": [],
    }
    if (language := fields.language_of(records[0])) != NONE:
        row["language"] = language
    wrong = []
    for number_, (run, record) in enumerate(zip(runs, records, strict=True)):
        index = int(comparison.rows[place, number_])
        text, reference = run.fields.text_of(record), run.fields.reference_of(record)
        if reference is not None:
            pieces = shown_pieces(normalize(reference), normalize(text))
            row[f"wer{number_}"] = run.wrong[index] / max(run.words[index], 1)
            wrong.append(run.wrong[index])
        elif number_ and runs[0].words[int(comparison.rows[place, 0])] < 0:
            # Without a reference, how the text differs from that of the first run.
            pieces = shown_pieces(normalize(fields.text_of(records[0])), normalize(text))
        else:
            pieces = [[SAME, shown(text)[:MAX_CHARACTERS]]]
        row["texts"].append([run.name, pieces])
    if len(wrong) == 2:
        row["more"] = int(wrong[1] - wrong[0])
    return row


def _apart(comparison: Comparison) -> list[dict[str, Any]]:
    """Returns for each run its rows that some other run lacks, with examples."""
    found = []
    for run, rows in zip(comparison.runs, comparison.apart):
        others = [other for other in comparison.runs if other is not run]
        failed = sum(any(run.keys[row] in other.failed for other in others) for row in rows)
        examples = []
        for row, record in run.records(set(sorted(rows)[:EXAMPLES])):
            reasons = [
                f"{other.failed[run.keys[row]]} in {other.name}"
                for other in others
                if run.keys[row] in other.failed
            ]
            audio = shown_place(run.fields.place_of(record)[0])
            examples.append((audio, ", ".join(reasons) or "not there"))
        if rows:
            found.append(
                {"name": run.name, "rows": len(rows), "failed": failed, "examples": examples}
            )
    return found
