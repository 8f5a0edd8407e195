"""Describes every field that the job adds to a row, or writes into `summary.json`."""

from __future__ import annotations

from typing import NamedTuple

from beam_asr.outputs.formats.base import LineFormat
from beam_asr.outputs.formats.registry import FORMATS
from beam_asr.transcripts.quality import all_signals

TEXT, NUMBER, INTEGER, BOOLEAN = "text", "number", "integer", "boolean"
LIST, OBJECT, ANY = "list", "object", "any"
KINDS_OF_SIGNALS = {"string": TEXT, "double": NUMBER, "int64": INTEGER, "bool": BOOLEAN}


class Field(NamedTuple):
    """Describes a field.

    Attributes:
        name: the field's name, with its setting's default where one renames it.
        type: of its values, if they are not null.
        meaning: for people.
        when: which records have it; empty for all.
        unit: of a number; empty for none.
        fields: those of an object, or of each object of a list, if they are always these.
        may_be_null: whether null is a value.
    """

    name: str
    type: str
    meaning: str
    when: str = ""
    unit: str = ""
    fields: tuple[Field, ...] = ()
    may_be_null: bool = False


def _times(of: str) -> tuple[Field, Field]:
    return (
        Field("start", NUMBER, f"start of the {of}, from the beginning of the file", unit="s"),
        Field("end", NUMBER, f"end of the {of}, from the beginning of the file", unit="s"),
    )


_ERROR = (
    Field("stage", TEXT, "where the row failed: `manifest`, `audio` or `model`"),
    Field("type", TEXT, "class of the error: docs/errors.md"),
    Field("message", TEXT, "what is wrong, and what to do"),
    Field("attempts", INTEGER, "how often it was tried"),
    Field("replaced", ANY, "the row's own `error`", "if the row has one"),
)
_CONFIDENCE = "how sure the model is, from 0 to 1"
_MODEL = Field("model", TEXT, "the model that transcribed the row, or was to", "with `models`")
_REPLACED = Field(
    "replaced",
    OBJECT,
    "the row's own fields whose names the job's fields have",
    "if there are such fields, and they say something else",
)


_SCORED = ("with `reference_key`, if the row has a reference",)
_METRIC = "with its name in `metrics`, if the row has a reference"


_BEFORE_SIGNALS = (
    Field("pred_text", TEXT, "the transcript; `pred_text_key` names the field"),
    Field("duration", NUMBER, "the row's own, or else the measured one", unit="s"),
    Field(
        "words",
        LIST,
        "the words in order",
        "with `timestamps=word`, `confidence=word`, or a format that needs it",
        fields=(
            Field("word", TEXT, "the word"),
            *(time._replace(when="with times") for time in _times("word")),
            Field("confidence", NUMBER, _CONFIDENCE, "with `confidence=word`", may_be_null=True),
        ),
    ),
    Field(
        "segments",
        LIST,
        "sentences, or what stands between pauses",
        "with `timestamps=segment`",
        fields=(Field("segment", TEXT, "its text"), *_times("segment")),
    ),
    Field(
        "chars",
        LIST,
        "the model's tokens",
        "with `timestamps=char`",
        fields=(Field("char", TEXT, "its text"), *_times("token")),
    ),
    Field("confidence", NUMBER, _CONFIDENCE, "with `confidence=row`", may_be_null=True),
    Field(
        "n_best",
        LIST,
        "texts, best first",
        "with `n_best`",
        fields=(
            Field("text", TEXT, "a text"),
            Field("score", NUMBER, "its log-probability, as NeMo has it"),
        ),
    ),
    Field("no_speech", BOOLEAN, "true: nobody speaks in the row", "if that is so"),
    Field(
        "segments_failed",
        LIST,
        "stretches of a long row that could not be transcribed",
        "with `partial=keep`, if there are any",
        fields=(
            *_times("stretch"),
            Field("error", OBJECT, "why, as in a failure", fields=_ERROR[:-1]),
        ),
    ),
    _MODEL,
    Field("channel", INTEGER, "the channel that was read, from 0", "if one of several was"),
    Field("file_channels", INTEGER, "the channels of the file", "if one of several was read"),
    Field(
        "split_channels",
        INTEGER,
        "how many records the row has become",
        "with `channel=each`, of files of several channels",
    ),
    Field(
        "channels_cancel",
        BOOLEAN,
        "true: the channels' average holds next to nothing, so the louder one was read",
        "if that is so",
    ),
    Field("recognized_text", TEXT, "the model's text, before the steps", "with `text_steps`"),
    Field("wer", NUMBER, "word error rate; 1 is 100 %", *_SCORED),
    Field("cer", NUMBER, "character error rate; 1 is 100 %", *_SCORED),
    Field("substitutions", INTEGER, "words that differ from the reference's", *_SCORED),
    Field("deletions", INTEGER, "words of the reference that are missing", *_SCORED),
    Field("insertions", INTEGER, "words that the reference lacks", *_SCORED),
    Field("punct_er", NUMBER, "punctuation error rate, as NeMo has it", _METRIC),
    Field(
        "capitals_er",
        NUMBER,
        "error rate of capitals, of words that are right",
        _METRIC,
        may_be_null=True,
    ),
    Field(
        "bleu",
        NUMBER,
        "BLEU of the row, from 0 to 100, as sacrebleu has it",
        _METRIC,
        may_be_null=True,
    ),
    Field(
        "chrf",
        NUMBER,
        "chrF of the row, from 0 to 100, as sacrebleu has it",
        _METRIC,
        may_be_null=True,
    ),
)
_AFTER_SIGNALS = (
    Field(
        "exports",
        OBJECT,
        "the row's file in each format, relative to the folder",
        "with `formats` of a file for each transcript",
    ),
    _REPLACED,
)


def transcript_fields() -> list[Field]:
    """Returns the fields of a transcript beside those of its row.

    Raises:
        SetupError: the signal of another package cannot be used.
    """
    signals = (
        Field(
            signal.name,
            KINDS_OF_SIGNALS[signal.type],
            signal.description,
            "with `quality`",
            may_be_null=True,
        )
        for signal in all_signals()
    )
    return [*_BEFORE_SIGNALS, *signals, *_AFTER_SIGNALS]


FAILURE_FIELDS = [
    Field("error", OBJECT, "why the row failed", fields=_ERROR),
    _MODEL,
    _REPLACED._replace(when="if `model` is among them"),
    Field("line", TEXT, "the line as it was read", "in place of fields that cannot be kept"),
    Field("manifest", TEXT, "the file of the line", "with `line`"),
    Field("line_number", INTEGER, "its number there, from 1", "with `line`"),
]

FILTERED_FIELDS = [
    Field(
        "filtered",
        OBJECT,
        "why the row is kept apart",
        fields=(
            Field("by", TEXT, "`keep`, or `audio` (`audio_checks=filter`)"),
            Field("expression", TEXT, "the condition", "by `keep`"),
            Field("values", OBJECT, "the fields that it reads, as they were", "by `keep`"),
            Field("type", TEXT, "class of the error that refused the audio", "by `audio`"),
            Field("message", TEXT, "its message", "by `audio`"),
        ),
    ),
]

_BATCHES = Field("batches", INTEGER, "forward passes")
_RTFX_MODEL = Field(
    "rtfx_model",
    NUMBER,
    "audio that went to the model, for each second of it",
    unit="s/s",
    may_be_null=True,
)
_WAIT_SHARE = Field(
    "model_wait_share", NUMBER, "waiting, of waiting and computing", may_be_null=True
)
_PADDING = Field(
    "padding_efficiency",
    NUMBER,
    "audio, of audio and what fills batches up; 1 is best",
    may_be_null=True,
)
_WORK = (
    _BATCHES,
    Field("audio_hours", NUMBER, "audio that went to the model", unit="h"),
    _RTFX_MODEL,
    _WAIT_SHARE,
    _PADDING,
)
_APPENDS = "of a job that is no stream"

SUMMARY_FIELDS = [
    Field("rows_in", INTEGER, "rows of the input"),
    Field("further_channels", INTEGER, "records beyond one a row, with `channel=each`"),
    Field("transcribed", INTEGER, "transcripts"),
    Field("resumed", INTEGER, "rows that an earlier run had done, with `resume`"),
    Field("rows_in_folder", INTEGER, "rows that the folder had already, with `append`"),
    Field("resumed_not_in_input", INTEGER, "rows that the earlier run had done and that are gone"),
    Field("failed", INTEGER, "failures"),
    Field("failed_by_type", OBJECT, "failures, by the class of their error"),
    Field("failure_examples", OBJECT, "the message of one failure of each class"),
    Field("filtered", INTEGER, "rows that are kept apart"),
    Field("filtered_by", OBJECT, "rows that are kept apart, by what does"),
    Field("audio_hours", NUMBER, "audio that was transcribed, also by earlier runs", unit="h"),
    Field("wall_seconds", NUMBER, "from the job's start to its end", unit="s", may_be_null=True),
    Field(
        "rtfx_end_to_end",
        NUMBER,
        "audio that this run transcribed, with silence, for each second of the job",
        unit="s/s",
        may_be_null=True,
    ),
    _RTFX_MODEL,
    Field("model_seconds", NUMBER, "in the model and its decoding, over all workers", unit="s"),
    Field("model_wait_seconds", NUMBER, "in which a model waited for audio", unit="s"),
    _WAIT_SHARE,
    _BATCHES,
    _PADDING,
    Field(
        "workers",
        LIST,
        "the worker processes, by their audio; above 200 of them the last is the others",
        fields=(Field("worker", TEXT, "host and process"), *_WORK),
    ),
    Field(
        "over_time",
        LIST,
        "the same figures over time, in at most 120 spans",
        fields=(
            Field("start", TEXT, "start of the span, UTC"),
            Field("seconds", INTEGER, "its length", unit="s"),
            *_WORK,
        ),
    ),
    Field("long_rows", INTEGER, "rows that were cut into segments"),
    Field("segments", INTEGER, "segments of long rows"),
    Field("segments_failed", INTEGER, "segments that could not be transcribed"),
    Field("no_speech", INTEGER, "rows in which nobody speaks"),
    Field("rows_shorter_than_file", INTEGER, "rows whose duration leaves a part of a file out"),
    Field("unheard_hours", NUMBER, "silence of long rows that the model skipped", unit="h"),
    Field("models", LIST, "the models, as each describes itself"),
    Field("model_loads", INTEGER, "times that a worker loaded a model"),
    Field("model_evictions", INTEGER, "times that a worker gave a model up for another one"),
    Field("members_without_row", INTEGER, "audio files of tars that no row names"),
    Field("examples_without_row", LIST, "some of them"),
    Field("tars_without_rows", INTEGER, "tars of which no row names anything"),
    Field("input_files", INTEGER, "files that were read for rows"),
    Field("audio_files", INTEGER, "those of them that are rows themselves"),
    Field("ignored_files", INTEGER, "files of folders and globs that are no input"),
    Field("ignored_by_kind", OBJECT, "their numbers, by kind"),
    Field("examples_ignored", LIST, "some of them"),
    Field("repeated_files", INTEGER, "names of files that were read under another name"),
    Field("examples_repeated", LIST, "some of them"),
    Field("warnings", LIST, "fields that were to be read, and that no row has"),
    Field("scores", OBJECT, "rates of the corpus, and by groups: docs/scoring.md", _SCORED[0]),
    *(
        Field(
            name, OBJECT, "rows of the format, and why others have none", f"with `formats={name}`"
        )
        for name, format in FORMATS.items()
        if isinstance(format, LineFormat)
    ),
    Field("run", TEXT, "the run that has written it", _APPENDS),
    Field("appended", INTEGER, "how many runs with `append` came before", _APPENDS),
    Field("options", OBJECT, "the settings; of storage options their names"),
    Field("versions", OBJECT, "of this package, Beam and Python"),
]
# Of the summary of a window of a stream.
WINDOW_FIELDS = [Field("inputs", LIST, "the files whose rows are in the window")]
# Of the summary of folders that were merged, if they share rows.
MERGE_FIELDS = [
    Field("rows_of_several_runs", INTEGER, "rows that several of the folders have"),
    Field("conflicts", INTEGER, "those of them with different texts"),
    Field("examples_conflicts", LIST, "some of them"),
]
