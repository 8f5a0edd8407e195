"""Scores transcripts, and separates those that are filtered out, as a PTransform."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import TaggedOutput

from beam_asr.errors import SetupError
from beam_asr.records import conditions
from beam_asr.records.conditions import Expression
from beam_asr.records.record import FilteredRow, Record, Transcript, to_record
from beam_asr.records.statistics import Score, Statistics
from beam_asr.settings import ScoringSettings
from beam_asr.transcripts import normalizers, quality, scoring
from beam_asr.transcripts.metrics import find_metrics
from beam_asr.transcripts.post_processing import RECOGNIZED_TEXT, apply_steps, find_steps
from beam_asr.transforms.bundles import at_window
from beam_asr.transforms.packing import PackedReshuffle
from beam_asr.transforms.results import Transcribed

CORPUS = ("corpus", "")
BEFORE_KEEP = ("before_keep", "")
NONE = "none"  # stands in a summary for the language of a row without one


class ScoreTranscripts(beam.PTransform):
    """Applies steps to texts, scores them, adds signals of their quality, and filters by both.

    Takes and returns a ``Transcribed``: with the scores in the transcripts, their sums in the
    statistics, which the combiner of statistics adds up, and the rows that are filtered out in
    ``filtered``. A row without ``duration`` gets the measured one.

    Args:
        reference_key: the field of the reference text, in Lhotse cuts of their supervisions; None
            scores nothing. A row that was split into its channels has none, for its text is that of
            all channels.
        normalizer: of both texts: ``none``, ``basic`` or ``whisper`` (`normalizers`).
        quality: whether to add the signals of `quality`.
        keep: a condition (`conditions`) on records' fields; None keeps all.
        pred_text_key: the field of the text.
        lang_key: the field of the language, by which scores are summed.
        by_model: whether records say which of several models transcribed them, for sums by it.
        text_steps: names of steps on the text (`post_processing.TEXT_STEPS`), applied in this order
            before all else; the model's text is then ``recognized_text``.
        metrics: names of further metrics (`metrics.METRICS`) of texts with a reference.

    Raises:
        SetupError: the condition is invalid, or the normalizer, a step or a metric is unknown.
    """

    def __init__(
        self,
        reference_key: str | None = None,
        normalizer: str = "none",
        quality: bool = False,
        keep: str | None = None,
        pred_text_key: str = "pred_text",
        lang_key: str = "lang",
        by_model: bool = False,
        text_steps: Iterable[str] = (),
        metrics: Iterable[str] = (),
    ):
        super().__init__()
        normalizers.normalizer(normalizer)
        text_steps = tuple(text_steps)
        find_steps(text_steps)
        metrics = tuple(metrics)
        find_metrics(metrics)
        if keep is not None:
            conditions.parse(keep)
        if reference_key == pred_text_key:
            raise SetupError(f"reference_key and pred_text_key are both {pred_text_key!r}")
        settings = ScoringSettings(
            normalizer=normalizer,
            quality=quality,
            keep=keep,
            text_steps=text_steps,
            metrics=metrics,
        )
        self._step = _Score(settings, reference_key, pred_text_key, lang_key, by_model)

    def expand(self, records: Transcribed) -> Transcribed:
        before = records.typed
        scored = before.transcripts | "Score" >> beam.ParDo(self._step).with_outputs(
            "filtered", "statistics", main="transcripts"
        )
        statistics = (before.statistics, scored.statistics) | "WithScores" >> beam.Flatten()
        # Flink cannot flatten what comes straight from a step with what comes from a shuffle.
        filtered_out = scored.filtered | "KeepFiltered" >> PackedReshuffle()
        filtered = (before.filtered, filtered_out) | "AllFiltered" >> beam.Flatten()
        return Transcribed(scored.transcripts, before.failures, statistics, filtered)


class _Score(beam.DoFn):
    def __init__(
        self,
        settings: ScoringSettings,
        reference_key: str | None,
        pred_text_key: str,
        lang_key: str,
        by_model: bool,
    ):
        self._settings = settings
        self._reference_key = reference_key
        self._pred_text_key = pred_text_key
        self._lang_key = lang_key
        self._by_model = by_model

    def setup(self) -> None:
        self._steps = find_steps(self._settings.text_steps or ())
        self._normalize = normalizers.normalizer(self._settings.normalizer)
        self._metrics = find_metrics(self._settings.metrics or ())
        keep = self._settings.keep
        self._condition = None if keep is None else conditions.parse(keep)

    def start_bundle(self) -> None:
        self._statistics: dict[Any, Statistics] = defaultdict(Statistics)
        self._timestamps: dict[Any, Any] = {}

    def process(
        self,
        element: Transcript | Record,
        window: Any = beam.DoFn.WindowParam,
        timestamp: Any = beam.DoFn.TimestampParam,
    ) -> Iterator[Any]:
        if isinstance(element, Transcript):
            element = element.with_duration()
        record = to_record(element)
        seconds = _seconds(record)
        signals: Record = {}
        if self._steps:
            record = apply_steps(record, self._steps, self._pred_text_key)
            signals = {key: record[key] for key in (self._pred_text_key, RECOGNIZED_TEXT)}
        text = record[self._pred_text_key]
        score = None
        if self._reference_key is not None:
            reference = scoring.reference_of(record, self._reference_key)
            score = scoring.score(reference, text, self._normalize, seconds or 0.0, self._metrics)
            signals |= scoring.fields(score, self._metrics) if score is not None else {}
        if self._settings.quality:
            signals |= quality.signals(text, seconds)
        record = {**record, **signals}
        statistics = self._statistics[window]
        self._timestamps.setdefault(window, timestamp)
        if self._reference_key is not None:
            statistics.scored_by = frozenset([(self._reference_key, self._settings.normalizer)])
        if self._condition is not None:
            self._count_judged(statistics, record, score, self._condition)
        if self._condition is not None and not self._condition.matches(record):
            values = self._condition.values(record)
            why = {"by": "keep", "expression": self._settings.keep, "values": values}
            yield TaggedOutput("filtered", _filtered(element, signals, why))
            return
        if self._reference_key is not None:
            self._count(statistics, record, score, seconds)
        yield element.adding(signals) if isinstance(element, Transcript) else record

    def finish_bundle(self) -> Iterator[Any]:
        for window, statistics in self._statistics.items():
            output = TaggedOutput("statistics", statistics)
            yield from at_window([output], window, self._timestamps[window])

    def _count_judged(
        self, statistics: Statistics, record: Record, score: Score | None, condition: Expression
    ) -> None:
        """Counts a row before the condition judges it, and the fields that it lacks."""
        statistics.judged_rows += 1
        for name in condition.missing(record):
            statistics.rows_without[name] = statistics.rows_without.get(name, 0) + 1
        if score is not None:
            _add(statistics, BEFORE_KEEP, score)
        elif self._reference_key is not None:
            statistics.without_reference_before_keep += 1

    def _count(
        self, statistics: Statistics, record: Record, score: Score | None, seconds: float | None
    ) -> None:
        if score is None:
            statistics.without_reference += 1
            return
        keys = [
            CORPUS,
            ("by_language", _language_name(record.get(self._lang_key))),
            ("by_duration", scoring.duration_bucket(seconds)),
        ]
        if self._by_model:
            keys.append(("by_model", record["model"]))
        for key in keys:
            _add(statistics, key, score)


def _add(statistics: Statistics, key: tuple[str, str], score: Score) -> None:
    statistics.scores[key] = statistics.scores.get(key, Score()) + score


def _filtered(element: Transcript | Record, signals: Record, why: Record) -> FilteredRow | Record:
    if isinstance(element, Transcript):
        return FilteredRow(element.row, {**element.result, **signals}, why, element.seconds)
    return {**element, **signals, "filtered": why}


def _seconds(record: Record) -> float | None:
    value = record.get("duration")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    return None


def _language_name(language: Any) -> str:
    return language if isinstance(language, str) and language else NONE
