"""Makes the report of a run: one HTML file, which shows how it went and what to look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any, NamedTuple

from beam_asr import errors
from beam_asr._version import __version__
from beam_asr.outputs.output import Output
from beam_asr.outputs.report import charts
from beam_asr.outputs.report.aggregation import Aggregate, FailureClass, Group, aggregate, largest
from beam_asr.outputs.report.excerpts import excerpts
from beam_asr.outputs.report.page import render
from beam_asr.outputs.report.quantities import QUANTITIES
from beam_asr.outputs.report.rows_table import SAMPLE, SUSPICIOUS, WORST, RowsTable
from beam_asr.outputs.report.run_fields import (
    RunFields,
    as_flags,
    command_of,
    shown,
    shown_place,
)
from beam_asr.outputs.report.speed import (
    WORKER_COLUMNS,
    charts_over_time,
    speed_rows,
    worker_rows,
)
from beam_asr.outputs.report.word_statistics import WordStatistics
from beam_asr.storage.allow_list import AllowList
from beam_asr.storage.storage import Storage
from beam_asr.transcripts.quality import SIGNALS

REPORT = "report.html"
RATES = ("rtfx_end_to_end", "rtfx_model", "padding_efficiency", "workers", "over_time")
SHOWN_GROUPS = 20
CHARTED_GROUPS = 12
COLUMNS = (
    {"key": "wer", "label": "WER", "format": "percent"},
    {"key": "cer", "label": "CER", "format": "percent"},
    {"key": "duration", "label": "Seconds", "format": "number"},
    {"key": "chars_per_second", "label": "Char/s", "format": "number"},
    {"key": "confidence", "label": "Confidence", "format": "number"},
)
LIST_NAMES = {WORST: "the worst", SUSPICIOUS: "the most suspicious", SAMPLE: "a fair sample"}


class GroupTable(NamedTuple):
    """A table of groups of rows, and charts of them."""

    title: str
    columns: list[str]
    rows: list[tuple[str, ...]]
    charts: list[charts.Chart]


def write_report(output: Output, to: str) -> None:
    """Writes the report of the results in a folder.

    Args:
        to: path or URI of the HTML file, which is replaced.

    Raises:
        WriteError: it cannot be written.
    """
    output.storage.write(to, [report(output)])


def report(output: Output) -> bytes:
    """Returns the report of the results in a folder, as HTML."""
    summaries = list(output.summaries())
    summary = added(summaries)
    fields = RunFields.of(summaries[-1])
    found = aggregate(output, fields, summary.get("transcribed", 0))
    table, lists = _rows(found)
    prefixes = (summary.get("options") or {}).get("allowed_audio_prefixes")
    storage = Storage(output.storage.options, AllowList.of(prefixes) if prefixes else None)
    columns = [each for each in COLUMNS if found.all.histograms[each["key"]].rows]
    rows = table.rows(excerpts(table.records, fields, storage))
    values = {
        **_head(output, summary, found),
        "windows": len(summaries),
        "charts": [
            charts.histogram(each, found.all.histograms[each.name])
            for each in QUANTITIES
            if found.all.histograms[each.name].rows
        ],
        "missing": list(map(as_flags, _missing(summary, found))),
        "groups": _groups(summary, found),
        "failures": [_failure(name, each) for name, each in _by_rows(found.failures)],
        "columns": columns if rows else [],
        "lists": [(kind, LIST_NAMES[kind]) for kind in lists],
        "rows_note": _rows_note(lists),
        "words": _words(found) if found.words.rows else None,
        "speed": speed_rows(summary),
        "workers": (WORKER_COLUMNS, worker_rows(summary)),
        "over_time": charts_over_time(summary),
    }
    values["sections"] = [
        (name, title)
        for name, title, is_there in (
            ("run", "Run", True),
            ("distributions", "Distributions", values["charts"]),
            ("groups", "Groups", values["groups"]),
            ("failures", "Failures", values["failures"]),
            ("examples", "Rows", values["columns"]),
            ("words", "Words", values["words"]),
            ("speed", "Speed", True),
        )
        if is_there
    ]
    return render("report.html", values, {"rows": rows, "columns": columns})


def added(summaries: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns one summary of all windows of a job: counts are added, the rest is of the last."""
    total = dict(summaries[-1])
    for summary in summaries[:-1]:
        for name in ("rows_in", "transcribed", "failed", "filtered", "audio_hours", "no_speech"):
            total[name] = total.get(name, 0) + summary.get(name, 0)
        for name in ("failed_by_type", "filtered_by"):
            total[name] = dict(Counter(total.get(name, {})) + Counter(summary.get(name, {})))
    if len(summaries) > 1:  # rates of several windows are no rates of their sum
        for name in ("scores", *RATES):
            total.pop(name, None)
    return total


def _head(output: Output, summary: Mapping[str, Any], found: Aggregate) -> dict[str, Any]:
    options = summary.get("options") or {}
    command = command_of(options)
    versions = summary.get("versions") or {}
    models = [
        tuple(str(model.get(name, "")) for name in ("model", "class", "device", "precision"))
        for model in summary.get("models") or []
    ]
    return {
        "title": "Transcription report",
        "folder": shown_place(output.folder),
        "version": __version__,
        "made": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
        "tiles": _tiles(summary, found),
        "warnings": summary.get("warnings") or [],
        "notes": list(map(as_flags, _notes(summary, found))),
        "models": models,
        "command": command,
        "again": command_of(options, "append"),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "has_references": found.words.rows > 0,
    }


def _tiles(summary: Mapping[str, Any], found: Aggregate) -> list[dict[str, Any]]:
    rows, failed = summary.get("rows_in", 0), summary.get("failed", 0)
    tiles: list[dict[str, Any]] = [_tile("Rows", f"{rows:,}")]
    tiles.append(_tile("Transcribed", f"{summary.get('transcribed', 0):,}"))
    share = f"{failed / rows:.2%} of the rows" if failed and rows else ""
    tiles.append(_tile("Failed", f"{failed:,}", share, failed > 0))
    if filtered := summary.get("filtered", 0):
        tiles.append(_tile("Filtered", f"{filtered:,}"))
    tiles.append(_tile("Audio", f"{summary.get('audio_hours', 0):,.2f} h"))
    scores = summary.get("scores") or {}
    corpus = scores.get("corpus") or {}
    if corpus.get("wer") is not None:
        margin = found.words.margin(corpus["rows"])
        tiles.append(
            _tile(
                "WER",
                f"{corpus['wer']:.2%}",
                f"± {margin:.2%} (95% interval)" if margin is not None else "",
            )
        )
        tiles.append(_tile("CER", f"{corpus['cer']:.2%}"))
    if (before := scores.get("before_keep")) and before.get("wer") is not None:
        tiles.append(_tile("WER before keep", f"{before['wer']:.2%}", "of all transcribed rows"))
    if speed := summary.get("rtfx_end_to_end"):
        tiles.append(_tile("RTFx", f"{speed:,.1f}", "seconds of audio a second"))
    return tiles


def _tile(label: str, value: str, note: str = "", alarm: bool = False) -> dict[str, Any]:
    return {"label": label, "value": value, "note": note, "alarm": alarm}


def _notes(summary: Mapping[str, Any], found: Aggregate) -> list[str]:
    notes = []
    if not found.all.histograms["wer"].rows:
        notes.append(
            "There are no error rates, since the run had no references. beam-asr score "
            f"{shown_place(str(summary.get('options', {}).get('output', 'OUTPUT')))} "
            "`reference_key=FIELD` scores what is there, by the field with what was said."
        )
    unscored = (summary.get("scores") or {}).get("without_reference", 0)
    if unscored and found.all.histograms["wer"].rows:
        notes.append(f"{unscored:,} rows have no reference, and count in no error rate.")
    return notes


def _missing(summary: Mapping[str, Any], found: Aggregate) -> list[str]:
    notes = [
        f"There is no {each.title.lower()}: {each.needs}."
        for each in QUANTITIES
        if each.needs and not found.all.histograms[each.name].rows
    ]
    if not (summary.get("options") or {}).get("quality"):
        notes.append(
            "`quality` writes further signals, by which suspicious rows are found: "
            f"{', '.join(SIGNALS)}."
        )
    return notes if found.all.rows else []


def _groups(summary: Mapping[str, Any], found: Aggregate) -> list[GroupTable]:
    scores = summary.get("scores") or {}
    tables = []
    for name, by, groups in (
        ("language", "by_language", found.by_language),
        ("model", "by_model", found.by_model),
    ):
        if len(groups) > 1:
            tables.append(_group_table(name, groups, scores.get(by) or {}))
    if durations := scores.get("by_duration"):
        rows: list[tuple[str, ...]] = [
            (f"{name} s", f"{each['rows']:,}", _percent(each["wer"]), _percent(each["cer"]))
            for name, each in durations.items()
        ]
        tables.append(GroupTable("By duration", ["seconds", "rows", "WER", "CER"], rows, []))
    return tables


def _group_table(
    by: str, groups: dict[str, Group], scores: Mapping[str, Mapping[str, Any]]
) -> GroupTable:
    shown_groups = list(largest(groups, SHOWN_GROUPS))
    measured = [
        each
        for each in QUANTITIES
        if each.name not in ("wer", "cer")
        and any(g.histograms[each.name].rows for _, g in shown_groups)
    ]
    columns = [by, "rows", "hours"]
    columns += ["WER", "CER"] if scores else []
    columns += [f"median {each.title.lower()}" for each in measured]
    rows = []
    for name, group in shown_groups:
        row = [name, f"{group.rows:,}", f"{group.seconds / 3600:,.2f}"]
        if scores:
            rates = scores.get(name) or {}
            row += [_percent(rates.get("wer")), _percent(rates.get("cer"))]
        for each in measured:
            values = group.histograms[each.name]
            row.append(each.format(values.quantile(0.5)) if values.rows else "")
        rows.append(tuple(row))
    if len(groups) > SHOWN_GROUPS:
        rows.append((f"({len(groups) - SHOWN_GROUPS:,} further)", *[""] * (len(columns) - 1)))
    drawn = []
    for each in QUANTITIES:
        with_values = [(n, g.histograms[each.name]) for n, g in shown_groups[:CHARTED_GROUPS]]
        with_values = [(name, values) for name, values in with_values if values.rows]
        if with_values:
            drawn.append(charts.spreads(each, with_values, by))
    return GroupTable(f"By {by}", columns, rows, drawn)


def _percent(rate: float | None) -> str:
    return "" if rate is None else f"{rate:.2%}"


def _by_rows(failures: dict[str, FailureClass]) -> Iterable[tuple[str, FailureClass]]:
    return sorted(failures.items(), key=lambda item: (-item[1].rows, item[0]))


def _failure(name: str, failure: FailureClass) -> dict[str, Any]:
    known = {each.__name__: each for each in errors.tree()}.get(name)
    what = (known.__doc__ or "").partition("\n\n")[0] if known else ""
    # What to do is the last sentence of a message.
    remedies = [message.rstrip(".").rpartition(". ")[2] for _, message in failure.examples]
    has_remedy = bool(failure.examples) and remedies[0] != failure.examples[0][1].rstrip(".")
    return {
        "name": name,
        "rows": failure.rows,
        "stage": failure.stage,
        "what": " ".join(what.replace("``", "").replace("`", "").split()),
        "remedy": f"{remedies[0]}." if has_remedy else "",
        "examples": [(shown_place(audio), message) for audio, message in failure.examples],
    }


def _rows(found: Aggregate) -> tuple[RowsTable, list[str]]:
    table = RowsTable(found.fields)
    suspicious = found.suspicious()
    # Audio is put in by turns, so that the room serves all lists.
    worst = found.worst()
    for place in range(max(len(worst), len(suspicious))):
        if place < len(worst):
            table.add(WORST, worst[place])
        if place < len(suspicious):
            table.add(SUSPICIOUS, suspicious[place].record, suspicious[place].why)
    for record in found.sample():
        table.add(SAMPLE, record)
    lists = [(WORST, worst), (SUSPICIOUS, suspicious), (SAMPLE, found.sample())]
    return table, [kind for kind, rows in lists if rows]


def _rows_note(lists: list[str]) -> str:
    notes = {
        WORST: "The worst rows are those with the highest word error rates.",
        SUSPICIOUS: "Suspicious are the rows that stand out by what needs no reference.",
    }
    return " ".join(notes[kind] for kind in lists if kind in notes)


def _words(found: Aggregate) -> dict[str, Any]:
    words: WordStatistics = found.words
    of = "all" if found.every == 1 else f"every {found.every}th of the"
    silent = words.silent_rows
    return {
        "note": f"Counted in {of} rows with a reference ({words.rows:,}), as they were compared.",
        "confusions": [
            (each["expected"], each["recognized"], f"{each['count']:,}")
            for each in words.confusions()
        ],
        "never": [
            (each["word"], f"{each['count']:,}", each["instead"])
            for each in words.never_recognized()
        ],
        "left_out": _counts(words.left_out()),
        "made_up": _counts(words.made_up()),
        "silence_note": f"{silent:,} rows have a text where the reference is empty."
        if silent
        else "No row has a text where the reference is empty.",
        "in_silence": _counts(words.in_silence()),
    }


def _counts(counts: list[tuple[str, int]]) -> list[tuple[str, str]]:
    return [(shown(word), f"{count:,}") for word, count in counts]
