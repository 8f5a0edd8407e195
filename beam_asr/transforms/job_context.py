"""Holds what all steps of a job have in common, and the decisions that depend on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from beam_asr.audio.limits import is_refusal, was_refusal
from beam_asr.errors import TooManyFailuresError
from beam_asr.models.routing import Routing
from beam_asr.outputs import failure_limit
from beam_asr.outputs.journal import Journal
from beam_asr.outputs.progress import Counts, Reporter, reporter_of
from beam_asr.records import channels
from beam_asr.records.events import Done, Failed, Filtered, RowEnded, RowSplit
from beam_asr.records.outcome import Outcome
from beam_asr.records.record import Failure, error_of
from beam_asr.records.row import Row
from beam_asr.records.work import SegmentPlan
from beam_asr.transcripts.transcript import TranscriptFields


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobContext:
    """Holds what all steps of a job have in common.

    Attributes:
        run: the id of this run of the job, the same in all its workers.
        journal: stores what is done, for a later run; None stores nothing.
        filepath_key: the field that names the audio.
        channel_key: the field that names the channel.
        transcript_fields: which fields a transcript has.
        routing: which model takes which row.
        keep_partial: whether a long row with some failed segments is a transcript.
        filter_refused: whether rows whose audio the limits refuse are filtered, and not failures.
        max_failure_fraction: the fraction of the rows that may fail; None sets no limit while the
            job runs.
    """

    run: str
    journal: Journal | None
    filepath_key: str
    channel_key: str = "channel"
    transcript_fields: TranscriptFields
    routing: Routing
    keep_partial: bool
    filter_refused: bool
    max_failure_fraction: float | None

    @property
    def reporter(self) -> Reporter | None:
        """Returns what stores how far this process is; None without a journal."""
        return None if self.journal is None else reporter_of(self.journal)

    def report(self, counts: Counts) -> None:
        """Adds what was counted apart to the progress of this process."""
        if (reporter := self.reporter) is not None:
            reporter.merge(counts)

    def model_name(self, route: int) -> str | None:
        """Returns the name of a model in records; None if the job has only one."""
        names = self.transcript_fields.models
        return names[route] if names else None

    def row_failed(
        self, row: Row, error: Exception, attempts: int = 1, stage: str = ""
    ) -> Failed | Filtered:
        """Returns the event of a row that an error ends: failed, or filtered, is decided only here.

        Args:
            stage: at which the error was caught; by default that of its class.
        """
        outcome = Outcome(row.id, error=error_of(row, error, attempts, stage))
        if self.filter_refused and is_refusal(error):
            return Filtered(row, outcome)
        return Failed(row, outcome)

    def row_resumed(self, row: Row, outcome: Outcome) -> Iterator[RowEnded | RowSplit]:
        """Yields the events of a row whose outcome is in the journal."""
        if outcome.channels:
            yield from self.channels_ended(row, outcome, resumed=True)
        else:
            yield self._ended(row, outcome, resumed=True)

    def channels_ended(
        self, row: Row, outcome: Outcome, resumed: bool = False
    ) -> Iterator[RowEnded | RowSplit]:
        """Yields the events of a row each of whose channels is a record of its own."""
        count = len(outcome.channels)
        yield RowSplit(count, outcome, resumed)
        for number, channel in enumerate(outcome.channels):
            yield self._ended(self.row_of_channel(row, number, count), channel, resumed)

    def _ended(self, row: Row, outcome: Outcome, resumed: bool) -> RowEnded:
        if outcome.error is None:
            return Done(row, outcome, resumed)
        if self.filter_refused and was_refusal(outcome.error):
            return Filtered(row, outcome, resumed)
        return Failed(row, outcome, resumed)

    def row_of_channel(self, row: Row, channel: int, count: int) -> Row:
        """Returns the row of one of several channels of a row's file."""
        return channels.split_row(row, channel, count, self.channel_key, self.filepath_key)

    def split_plans(self, row: Row, plans: list[SegmentPlan]) -> list[SegmentPlan]:
        """Returns the plans of a row; if there is one for each channel, with rows of their own."""
        if len(plans) == 1:
            return plans
        parts = []
        for number, plan in enumerate(plans):
            of_channel = self.row_of_channel(row, number, len(plans))
            clip = plan.clip._replace(row=of_channel)
            parts.append(plan._replace(key=of_channel.id or plan.key, clip=clip))
        return parts

    def count(self, event: object, rows: int | None = None) -> None:
        """Counts an event of this run, for its progress, and for the limit of failures.

        Args:
            rows: the number of rows of the whole job; None if unknown.

        Raises:
            TooManyFailuresError: more rows failed than the fraction allows.
        """
        if (reporter := self.reporter) is not None:
            reporter.add(event)
        if self.max_failure_fraction is None or not isinstance(event, (Done, Failed, Filtered)):
            return
        if event.resumed:
            return
        failure = None
        if isinstance(event, Failed):
            failure = Failure(event.row, event.outcome.error or {})
        watch = failure_limit.watch(self.run, self.max_failure_fraction)
        try:
            watch.add(failure, rows, "" if self.journal is None else self.journal.failures_file)
        except TooManyFailuresError:
            if self.journal is not None:
                self.journal.write_failures(watch.failures)
            raise
