"""Defines all settings of a job, each once: type, default, help, range and group.

The command line, the parameters of ``Transcribe`` and of the Beam YAML step, those of the Flex
Template and the table in docs/flags.md are made from these groups.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from beam_asr.errors import SetupError
from beam_asr.records.prompt import Prompt
from beam_asr.records.setting_fields import (
    JOB,
    PYTHON,
    REQUIRED,
    YAML,
    Group,
    Groups,
    is_gpu_count,
    setting,
)

DEVICES = ("auto", "cuda", "cpu")
DECODERS = ("rnnt", "ctc")
PRECISIONS = ("auto", "fp32", "bf16")
TIMESTAMPS = ("word", "segment", "char")
METRICS = ("punct_er", "capitals_er", "bleu", "chrf")
MIN_SEGMENT_SECONDS = 5.0
RECORDS_A_SHARD = 50_000
MAX_SHARDS = 99_999  # that five digits can number


@dataclasses.dataclass(frozen=True, kw_only=True)
class InputSettings(Group, title="Input", scope=JOB):
    """Selects the input."""

    input: tuple[str, ...] = setting(
        REQUIRED,
        "manifest (JSON lines, CSV, TSV or Parquet), WebDataset tar, or audio: path, URI, "
        "folder, glob or {0..127}; repeatable, and comma-separated",
        metavar="PATTERN",
        core=True,
    )
    tarred_audio: tuple[str, ...] | None = setting(
        None,
        "the tars of a NeMo tarred data set, whose manifests are the input: path, URI, "
        "glob or _OP_0..511_CL_; repeatable, and comma-separated",
        metavar="PATTERN",
        scope=PYTHON,
    )
    watch: float | None = setting(
        None,
        "run without end: look for new inputs at this interval in seconds (60 by default), and "
        "write the results of each window of time into a folder of its own",
        above=0,
        format="seconds",
        metavar="SECONDS",
        bare=60.0,
    )
    limit: int | None = setting(
        None, "number of rows to transcribe: a random sample, the same in each run", minimum=1
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutputSettings(Group, title="Output", scope=JOB):
    """Selects the output, and when a job fails."""

    output: str = setting(REQUIRED, "output folder", metavar="FOLDER", core=True)
    resume: bool = setting(False, "continue an unfinished run in the output folder", core=True)
    append: bool = setting(
        False,
        "transcribe what the output folder lacks, and keep the rest: rows that are new, that "
        "failed, or that an unfinished run has left",
        core=True,
    )
    overwrite: bool = setting(False, "replace the results in the output folder", core=True)
    max_failure_fraction: float = setting(
        0.1,
        "largest part of the rows that may fail: the job ends early if more, and at least 100, "
        "failed; and it fails if all rows failed. 1 allows all failures",
        minimum=0,
        maximum=1,
        core=True,
        scope=YAML,
    )
    formats: tuple[str, ...] | None = setting(
        None,
        "also write transcripts in other formats, each in a folder of its own: {choices}; of "
        "these, parquet, documents (texts), nemo (pseudo-labels for training), label_studio "
        "(tasks) and sde (NeMo's Speech Data Explorer) are files of many transcripts, the others "
        "of one; repeatable, and comma-separated",
        choices_of="formats",
        metavar="FORMAT",
        core=True,
    )
    retry_failures: bool = setting(
        True, "with `resume` or `append`, do not transcribe earlier failures again"
    )
    num_shards: int | None = setting(
        None,
        f"number of files of transcripts; by default one for each {RECORDS_A_SHARD} transcripts",
        minimum=1,
        maximum=MAX_SHARDS,
    )
    compression: str | None = setting(
        None, "compress transcripts and failures; by default not", choices=("gzip", "zstd")
    )
    order: str | None = setting(
        None,
        "input sorts all transcripts as the rows of the input, across files; by default each file "
        "below 64 MiB is sorted, and rows are spread over the files",
        choices=("input",),
    )
    absolute_paths: bool = setting(False, "write the path of each row's audio as an absolute path")
    report: bool = setting(
        False, "also write report.html at the end, if the launcher waits for the end"
    )
    output_window: float = setting(
        600.0,
        "with `watch` or Pub/Sub, length of the windows of time, in seconds",
        above=0,
        format="seconds",
        metavar="SECONDS",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FieldNames(Group, title="Fields of rows"):
    """Names the fields of rows."""

    filepath_key: str = setting(
        "audio_filepath", "field that names the audio", core=True, identity=True
    )
    pred_text_key: str = setting("pred_text", "field for the transcript", core=True)
    channel_key: str = setting(
        "channel", "field that names the channel of the audio, from 0", identity=True
    )
    reference_key: str | None = setting(
        None,
        "field of the reference text: adds WER and CER to each row, and those of the "
        "corpus into summary.json",
        metavar="FIELD",
        core=True,
        scope=JOB,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.filepath_key == self.pred_text_key:
            raise SetupError(f"filepath_key and pred_text_key are both {self.filepath_key!r}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSettings(Group, title="Model"):
    """Selects the model, and how it runs."""

    model_name: str | None = setting(
        None,
        "name on Hugging Face or NGC, or path or URI of a .nemo file; with `models`, the model of "
        "all other rows, and then not required",
        noun="the name of a model",
        metavar="NAME",
        core=True,
        identity=True,
        per_model=True,
    )
    device: str = setting(
        "auto",
        "auto takes a GPU if there is one; cuda fails without one",
        choices=DEVICES,
        core=True,
        identity=True,
    )
    precision: str = setting(
        "auto",
        "precision of the model's weights; auto is bf16 on a GPU that supports it, else fp32",
        choices=PRECISIONS,
        identity=True,
        per_model=True,
    )
    decoder: str | None = setting(
        None,
        "decoder of a hybrid model; by default the model's own choice",
        choices=DECODERS,
        identity=True,
        per_model=True,
    )
    attention: str = setting(
        "full",
        "attention of the encoder: full; local, if the model supports it; chunked, which encodes "
        "chunks of 10-10-5 s and decodes their frames as one (CTC, RNNT and TDT)",
        choices=("full", "local", "chunked"),
        identity=True,
        per_model=True,
    )
    source_lang: str | None = setting(
        None,
        "spoken language, for models that take a prompt, such as Canary; a row's source_lang "
        "comes first",
        noun="a language",
        metavar="LANG",
        identity=True,
        per_model=True,
    )
    target_lang: str | None = setting(
        None,
        "written language, for models that take a prompt, such as Canary; a row's target_lang "
        "comes first",
        noun="a language",
        metavar="LANG",
        identity=True,
        per_model=True,
    )
    task: str | None = setting(
        None,
        "task of a model that takes a prompt; a row's taskname comes first",
        choices=("transcribe", "translate"),
        identity=True,
        per_model=True,
    )
    pnc: str | None = setting(
        None,
        "whether a model that takes a prompt writes punctuation and capitals; a row's pnc "
        "comes first",
        choices=("yes", "no"),
        identity=True,
        per_model=True,
    )
    engine: str = setting(
        "nemo",
        "the engine that loads and runs the model",
        choices_of="engines",
        identity=True,
    )

    @property
    def prompt(self) -> Prompt:
        """Returns the prompt for fields that rows do not set."""
        return Prompt(self.source_lang, self.target_lang, self.task, self.pnc)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoutingSettings(Group, title="Several models"):
    """Selects several models, and which rows each transcribes."""

    models: Mapping[str, Any] | tuple[str, ...] | None = setting(
        None,
        "several models: LANG=NAME for the rows of a language, or the path of a YAML or JSON "
        "file of routes; repeatable, and comma-separated",
        metavar="MODELS",
        core=True,
    )
    route_key: str | None = setting(
        None,
        "with `models`, the field that selects a row's model; by default lang",
        metavar="FIELD",
    )
    unmapped: str | None = setting(
        None,
        "what happens to a row that no route of `models` matches: it fails, or `model_name` "
        "transcribes it, which is the default if that is set",
        choices=("fail", "default"),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchSettings(Group, title="Batches"):
    """Sets how clips are batched for a forward pass."""

    batch_size: int = setting(
        128, "maximum clips in one forward pass", minimum=1, core=True, per_model=True
    )
    max_batch_seconds: float | None = setting(
        None,
        "maximum padded seconds in one forward pass (clips x longest clip); by default chosen "
        "for the device",
        above=0,
        format="seconds",
        per_model=True,
    )
    batch_timeout: float = setting(
        1800.0,
        "time limit of a forward pass in seconds; after it the worker process ends, and the "
        "runner retries in another",
        above=0,
        format="seconds",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resources(Group, title="Resources"):
    """Sets what a worker may use of its machine. None requests nothing.

    Each GPU of a worker machine has its process and model; with ``gpus=1/n``, n processes share
    one. ``gpu_memory_gb`` is in units of 10^9 bytes.

    Raises:
        SetupError: a value is out of its range, or two contradict each other.
    """

    gpus: float | None = setting(
        None,
        "number of GPUs of a worker machine to use, each by a process with a model of its own; a "
        "fraction shares a GPU: with 0.5, two processes do",
        format="gpus",
        metavar="NUMBER",
        core=True,
    )
    cpus: int | None = setting(
        None, "CPU threads for each worker process", minimum=1, metavar="NUMBER"
    )
    gpu_memory_gb: float | None = setting(
        None, "GPU memory for each worker process, in GB", above=0, metavar="GB"
    )
    model_copies: int = setting(
        1,
        "number of worker processes that share a GPU, each with a model of its own and an equal "
        "part of the memory",
        minimum=1,
        metavar="NUMBER",
    )
    accelerator: str | None = setting(
        None,
        "on Dataflow, the GPU of the workers of the model's step only (right fitting), such as "
        "type:nvidia-l4;count:1;install-nvidia-driver; not with worker_accelerator, which gives "
        "all workers a GPU",
        format="accelerator",
        metavar="SPEC",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        gpus = self.gpus
        if gpus is not None and not is_gpu_count(gpus):
            raise SetupError(
                f"gpus is {gpus:g}, but must be a whole number, or a fraction such as 0.5 or 0.25"
            )
        if self.model_copies not in (1, self.copies):
            raise SetupError(
                f"gpus={gpus:g} has {self.copies} processes share a GPU, and "
                f"model_copies={self.model_copies} has {self.model_copies}: leave one of them out"
            )

    @property
    def gpu_count(self) -> int:
        """Returns the number of GPUs of a machine that are used."""
        return 1 if self.gpus is None or self.gpus < 1 else round(self.gpus)

    @property
    def copies(self) -> int:
        """Returns the number of processes that share a GPU."""
        if self.gpus is not None and self.gpus < 1:
            return round(1 / self.gpus)
        return self.model_copies

    @property
    def processes(self) -> int:
        """Returns the number of processes of a machine."""
        return self.gpu_count * self.copies

    @property
    def requested_processes(self) -> str:
        """Returns the settings that set the number of processes; empty if none is set."""
        gpus = [] if self.gpus is None else [f"`gpus={self.gpus:g}`"]
        copies = [f"`model_copies={self.model_copies}`"] if self.model_copies > 1 else []
        return " ".join(gpus + copies)

    @property
    def requested_gpu(self) -> str:
        """Returns the settings that need a GPU; empty if none is set."""
        settings = {"gpus": self.gpus, "gpu_memory_gb": self.gpu_memory_gb}
        return " ".join(
            f"`{name}={value:g}`" for name, value in settings.items() if value is not None
        )


UNLIMITED = Resources()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadSettings(Group, title="Reading"):
    """Sets how audio is read."""

    storage_options: Mapping[str, Mapping[str, Any]] = setting(
        {},
        "options of the fsspec file systems, by protocol, as JSON or the path of a JSON file: "
        '{"s3": {"endpoint_url": "..."}}',
        metavar="JSON",
        core=True,
    )
    channel: int | str | None = setting(
        None,
        "channel to read of rows that name none, from 0; each makes a record of every channel; "
        "by default the average of the channels",
        minimum=0,
        words=("each",),
        metavar="NUMBER|each",
        identity=True,
        per_model=True,
    )
    audio_timeout: float = setting(
        300.0, "time limit for reading a file, in seconds", above=0, format="seconds"
    )
    max_concurrent_reads: int = setting(
        32, "maximum number of files that a worker process reads at once", minimum=1
    )
    allowed_audio_prefixes: tuple[str, ...] | None = setting(
        None,
        "folders, buckets and hosts that untrusted manifests may point to; repeatable, and "
        "comma-separated; by default any",
        metavar="PREFIX",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class AudioLimits(Group, title="Limits of audio"):
    """Limits the audio that is transcribed. None refuses nothing."""

    min_duration: float | None = setting(
        None,
        "minimum duration; shorter audio is not transcribed",
        above=0,
        format="seconds",
        metavar="SECONDS",
        identity=True,
        per_model=True,
    )
    max_duration: float | None = setting(
        None,
        "maximum duration; longer audio is not transcribed",
        above=0,
        format="seconds",
        metavar="SECONDS",
        identity=True,
        per_model=True,
    )
    required_sample_rate: int | None = setting(
        None,
        "sample rate that files must have, in Hz; by default any rate is resampled",
        minimum=1,
        metavar="HZ",
        identity=True,
        per_model=True,
    )
    required_channels: int | None = setting(
        None,
        "number of channels that files must have; by default any",
        minimum=1,
        metavar="NUMBER",
        identity=True,
        per_model=True,
    )
    audio_checks: str = setting(
        "fail",
        "what happens to a row that one of the four limits above rejects: it fails, or it is "
        "filtered out, which fails no job",
        choices=("fail", "filter"),
        scope=PYTHON,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_duration and self.max_duration and self.min_duration > self.max_duration:
            raise SetupError(
                f"min_duration={self.min_duration:g} is above max_duration={self.max_duration:g}"
            )


NO_LIMITS = AudioLimits()


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmentationSettings(Group, title="Long audio"):
    """Sets how long rows are cut into segments."""

    segmentation: str = setting(
        "vad",
        "how long rows are cut into segments: vad in pauses, skipping silence; fixed at equal "
        "times, with overlaps; none transcribes each row in one piece",
        choices=("vad", "fixed", "none"),
        identity=True,
    )
    max_segment_seconds: float | None = setting(
        None,
        "maximum length of a segment in seconds; longer rows are cut; by default chosen for the "
        "model's family and attention",
        minimum=MIN_SEGMENT_SECONDS,
        metavar="SECONDS",
        identity=True,
        per_model=True,
    )
    partial: str = setting(
        "fail",
        "what happens to a long row if some segments fail: it fails, or its transcript is kept "
        "and lists them in segments_failed",
        choices=("fail", "keep"),
        identity=True,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranscriptSettings(Group, title="Transcripts"):
    """Selects the fields of a transcript besides its text."""

    timestamps: tuple[str, ...] | None = setting(
        None,
        "write words, segments (sentences) or chars (tokens) with their times in the file: "
        "{choices}; repeatable, and comma-separated",
        choices=TIMESTAMPS,
        metavar="KIND",
        core=True,
        identity_if_given=True,
    )
    confidence: str | None = setting(
        None,
        "write the confidence of each word or of the row, from 0 to 1",
        choices=("word", "row"),
        identity_if_given=True,
    )
    n_best: int = setting(
        0,
        "number of best texts to write, with their scores; more than one takes a beam search",
        minimum=1,
        metavar="NUMBER",
        identity=True,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoringSettings(Group, title="Scores and filters", scope=JOB):
    """Sets how transcripts are compared and filtered."""

    normalizer: str = setting(
        "none",
        "normalizer of both texts before they are compared; whisper is Whisper's for English",
        choices=("none", "basic", "whisper"),
    )
    metrics: tuple[str, ...] | None = setting(
        None,
        "further metrics of rows with a reference: {choices}; repeatable, and comma-separated",
        choices=METRICS,
        metavar="METRIC",
    )
    text_steps: tuple[str, ...] | None = setting(
        None,
        "steps of installed packages that change texts before they are scored, in this order; "
        "repeatable, and comma-separated",
        choices_of="text_steps",
        metavar="STEP",
    )
    quality: bool = setting(
        False, "write signals of a transcript's quality: characters a second, repetitions, ..."
    )
    keep: str | None = setting(
        None,
        "condition of the transcripts to keep, such as 'wer <= 0.3 and duration < 30'; other rows "
        "are written as filtered",
        format="condition",
        metavar="EXPRESSION",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConsoleSettings(Group, title="Console", scope=JOB):
    """Selects what is printed while the job runs."""

    quiet: bool = setting(False, "print no progress, and no warnings")
    verbose: bool = setting(False, "also print what the job and Beam log")
    dry_run: bool = setting(
        False, "transcribe nothing; print what the job would do, its size, and estimates"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Holds all settings of a job, by group."""

    inputs: InputSettings
    outputs: OutputSettings
    names: FieldNames
    model: ModelSettings
    routing: RoutingSettings
    batching: BatchSettings
    resources: Resources
    reading: ReadSettings
    limits: AudioLimits
    long_audio: SegmentationSettings
    transcripts: TranscriptSettings
    scoring: ScoringSettings
    console: ConsoleSettings


GROUPS: Groups = typing.get_type_hints(Settings)
