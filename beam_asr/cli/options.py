"""The flags of ``beam-asr transcribe``, checked before anything starts."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from beam_asr.outputs.formats.registry import FORMATS
from beam_asr.outputs.shards import MAX_SHARDS, RECORDS_A_SHARD
from beam_asr.records import conditions
from beam_asr.settings import (
    ATTENTIONS,
    AUDIO_CHECKS,
    COMPRESSIONS,
    CONFIDENCES,
    DECODERS,
    DEVICES,
    MIN_SEGMENT_SECONDS,
    NORMALIZERS,
    PARTIALS,
    PNC,
    PRECISIONS,
    SEGMENTATIONS,
    TASKS,
    TIMESTAMPS,
    UNMAPPED,
)
from beam_asr.storage.patterns import split_commas

ACCELERATOR = re.compile(r"type:[a-z0-9-]+;count:[1-9][0-9]*(;[a-z0-9_:.-]+)*")


@dataclasses.dataclass(frozen=True)
class TranscribeOptions:
    """What ``beam-asr transcribe`` was asked to do; the fields are its flags."""

    input: list[str]
    output: str
    model_name: str | None
    filepath_key: str
    pred_text_key: str
    batch_size: int
    max_batch_seconds: float | None
    device: str
    channel: int | None
    decoder: str | None
    precision: str
    resume: bool
    overwrite: bool
    retry_failures: bool
    max_failure_fraction: float
    num_shards: int | None
    compression: str | None
    batch_timeout: float
    tarred_audio: list[str] | None
    storage_options: dict[str, dict[str, Any]] = dataclasses.field(repr=False)
    audio_timeout: float
    max_concurrent_reads: int
    allowed_audio_prefixes: list[str] | None
    watch: float | None
    output_window: float
    accelerator: str | None
    model_copies: int
    segmentation: str
    max_segment_seconds: float | None
    attention: str
    partial: str
    timestamps: list[str] | None
    confidence: str | None
    n_best: int
    formats: list[str] | None
    models: list[str] | None
    route_key: str | None
    unmapped: str | None
    source_lang: str | None
    target_lang: str | None
    task: str | None
    pnc: str | None
    min_duration: float | None
    max_duration: float | None
    required_sample_rate: int | None
    required_channels: int | None
    audio_checks: str
    reference_key: str | None
    normalizer: str
    quality: bool
    keep: str | None
    gpus: float | None
    cpus: int | None
    gpu_memory_gb: float | None
    beam_args: list[str]


def parse_args(args: Sequence[str]) -> TranscribeOptions:
    """Parses a command line; flags that are not ours are kept as Beam's.

    Raises:
        SystemExit: with status 2 and a message that names the flag, or 0 after ``--help``.
    """
    parser = _parser()
    known, beam_args = parser.parse_known_args(args)
    values = vars(known)
    if values.pop("command") is None:
        parser.error("name a command; there is one: transcribe")
    for flag in (
        "input",
        "tarred_audio",
        "allowed_audio_prefixes",
        "timestamps",
        "formats",
        "models",
    ):
        if values[flag] is not None:
            values[flag] = [part for parts in values[flag] for part in parts]
    options = TranscribeOptions(**values, beam_args=beam_args)
    if options.filepath_key == options.pred_text_key:
        parser.error(f"--filepath_key and --pred_text_key are both {options.filepath_key!r}")
    if options.resume and options.overwrite:
        parser.error("--resume keeps what is there and --overwrite replaces it: choose one")
    if not options.retry_failures and not options.resume:
        parser.error("--no_retry_failures says what --resume does, which is not given")
    if options.max_segment_seconds is not None and options.segmentation == "none":
        parser.error("--max_segment_seconds is given, but --segmentation=none cuts no row")
    if options.model_name is None and options.models is None:
        parser.error("name a model: --model_name, or --models for one by language")
    if options.models is None and options.unmapped is not None:
        parser.error(f"--unmapped={options.unmapped} is for --models, which is not given")
    if (
        options.min_duration
        and options.max_duration
        and options.min_duration > options.max_duration
    ):
        parser.error(
            f"--min_duration={options.min_duration:g} is above "
            f"--max_duration={options.max_duration:g}"
        )
    if options.normalizer != "none" and options.reference_key is None:
        parser.error(f"--normalizer={options.normalizer} needs --reference_key, which is not given")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="beam-asr",
        description="Batch speech recognition on Apache Beam with NVIDIA NeMo models.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    transcribe = commands.add_parser(
        "transcribe",
        help="transcribe the audio that manifests name",
        description="Transcribes the audio that NeMo manifests name and writes the rows with their "
        "transcripts as sharded JSONL.",
        epilog="All other flags are Beam's and pass through: --runner, --direct_num_workers, ... "
        "Exit status: 0 done (failed rows are counted in the last line), 1 the job failed, 2 wrong "
        "usage.",
        allow_abbrev=False,
    )
    add = transcribe.add_argument
    add(
        "--input",
        action="append",
        required=True,
        type=_inputs,
        metavar="PATTERN",
        help="manifest (JSON lines, CSV, TSV or Parquet), WebDataset tar, or audio: path, URI, "
        "folder, glob or {0..127}; repeatable, and comma-separated",
    )
    add("--output", required=True, metavar="FOLDER", type=_word, help="output folder")
    add(
        "--model_name",
        type=_word,
        metavar="NAME",
        help="name on Hugging Face or NGC, or path or URI of a .nemo file; required, unless there "
        "is --models, beside which it is the model of rows that they do not take",
    )
    add("--filepath_key", default="audio_filepath", type=_word, help="field that names the audio")
    add("--pred_text_key", default="pred_text", type=_word, help="field for the transcript")
    add("--batch_size", default=128, type=_count, help="most clips in one forward pass")
    add(
        "--max_batch_seconds",
        type=_seconds,
        help="most padded seconds in one forward pass (clips x longest clip); by default chosen "
        "for the device",
    )
    add(
        "--device",
        default="auto",
        choices=DEVICES,
        help="auto takes a GPU if there is one; cuda fails without one",
    )
    add("--channel", type=_channel, help="channel of the audio, from 0; by default their average")
    add(
        "--decoder",
        choices=DECODERS,
        help="decoder of a hybrid model; by default the model's own choice",
    )
    add(
        "--precision",
        default="auto",
        choices=PRECISIONS,
        help="of the model's weights; auto is bf16 on a GPU that has it, else fp32",
    )
    add("--resume", action="store_true", help="go on with an unfinished run in the output folder")
    add(
        "--no_retry_failures",
        dest="retry_failures",
        action="store_false",
        help="with --resume, keep the failures of the unfinished run as they are",
    )
    add("--overwrite", action="store_true", help="replace the results in the output folder")
    add(
        "--max_failure_fraction",
        default=0.1,
        type=_fraction,
        help="the job fails, while it runs, if a larger part of the rows, and at least 100, failed",
    )
    add(
        "--num_shards",
        type=_shards,
        help="files that the transcripts are written to; by default one for each "
        f"{RECORDS_A_SHARD} of them",
    )
    add("--compression", choices=COMPRESSIONS, help="of transcripts and failures; none by default")
    add(
        "--batch_timeout",
        default=1800.0,
        type=_seconds,
        help="seconds that a forward pass may take; then its worker process ends, and the runner "
        "tries again in another",
    )
    add(
        "--tarred_audio",
        action="append",
        type=_inputs,
        metavar="PATTERN",
        help="the tars of a tarred data set of NeMo's, whose manifests are the input: path, URI, "
        "glob or _OP_0..511_CL_; repeatable, and comma-separated",
    )
    add(
        "--storage_options",
        default={},
        type=_storage_options,
        metavar="JSON",
        help="what each storage's fsspec file system is opened with, by protocol, or the path of a "
        'file of it: {"s3": {"endpoint_url": "..."}}',
    )
    add(
        "--audio_timeout", default=300.0, type=_seconds, help="seconds that reading a file may take"
    )
    add(
        "--max_concurrent_reads",
        default=32,
        type=_count,
        help="most files that a worker process reads at one time",
    )
    add(
        "--allowed_audio_prefixes",
        action="append",
        type=_inputs,
        metavar="PREFIX",
        help="folders, buckets and hosts that rows may point to, for manifests that are not "
        "trusted; repeatable, and comma-separated; by default anything",
    )
    add(
        "--watch",
        nargs="?",
        const=60.0,
        type=_seconds,
        metavar="SECONDS",
        help="go on for ever: look for new inputs each so many seconds (60 if none are given), and "
        "write what came within a window of time into a folder of its own",
    )
    add(
        "--output_window",
        default=600.0,
        type=_seconds,
        metavar="SECONDS",
        help="with --watch or Pub/Sub, seconds of arrivals that are written together",
    )
    add(
        "--accelerator",
        type=_accelerator,
        metavar="SPEC",
        help="on Dataflow, the GPU of the workers of the model's step alone (right fitting), as "
        "type:nvidia-l4;count:1;install-nvidia-driver; not with worker_accelerator, which gives "
        "one to all workers",
    )
    add(
        "--model_copies",
        default=1,
        type=_count,
        metavar="NUMBER",
        help="worker processes that share a GPU, each with a model of its own and its part of the "
        "memory",
    )
    add(
        "--segmentation",
        default="vad",
        choices=SEGMENTATIONS,
        help="how a long row is cut into segments: vad in pauses, leaving silence out; fixed by "
        "the clock, with overlaps; none gives each row to the model in one piece",
    )
    add(
        "--max_segment_seconds",
        type=_segment_seconds,
        metavar="SECONDS",
        help="a longer row is cut into segments of at most so many seconds; by default what suits "
        "the family of the model and its attention",
    )
    add(
        "--attention",
        default="full",
        choices=ATTENTIONS,
        help="of the encoder: full; local, where the model has it; chunked encodes windows of "
        "10-10-5 s, whose frames are decoded as one (CTC, RNNT and TDT)",
    )
    add(
        "--partial",
        default="fail",
        choices=PARTIALS,
        help="what becomes of a long row of which some segments failed: a failure, or a transcript "
        "that has them in segments_failed",
    )
    add(
        "--timestamps",
        action="append",
        type=_timestamps,
        metavar="KIND",
        help="write words, segments (sentences) or chars (tokens) with their times in the file: "
        f"{', '.join(TIMESTAMPS)}; repeatable, and comma-separated",
    )
    add(
        "--confidence",
        choices=CONFIDENCES,
        help="write how sure the model is, from 0 to 1, of each word or of the row",
    )
    add(
        "--n_best",
        default=0,
        type=_count,
        metavar="NUMBER",
        help="write so many texts with their scores, best first; above 1 by beam search",
    )
    add(
        "--formats",
        action="append",
        type=_formats,
        metavar="FORMAT",
        help="also write, in a folder for each format, files of one transcript (as srt) or of many "
        f"(as parquet, or nemo, manifests to train with): {', '.join(FORMATS)}; repeatable, and "
        "comma-separated",
    )
    add(
        "--models",
        action="append",
        type=_inputs,
        metavar="MODELS",
        help="several models: LANG=NAME for the rows of a language, or the path of a YAML or JSON "
        "file of routes; repeatable, and comma-separated",
    )
    add(
        "--route_key",
        type=_word,
        metavar="FIELD",
        help="with --models, the field by which a row's model is chosen; by default lang",
    )
    add(
        "--unmapped",
        choices=UNMAPPED,
        help="what becomes of a row that --models do not take: a failure, or --model_name "
        "transcribes it, which is the default where that is given",
    )
    for flag, what in (("--source_lang", "spoken"), ("--target_lang", "written")):
        add(
            flag,
            type=_word,
            metavar="LANG",
            help=f"language {what}, for a model that takes a prompt, as Canary; a row's own field "
            f"{flag[2:]} comes first",
        )
    add(
        "--task",
        choices=TASKS,
        help="of a model that takes a prompt; a row's own field taskname comes first",
    )
    add(
        "--pnc",
        choices=PNC,
        help="punctuation and capitals, of a model that takes a prompt; a row's own field pnc "
        "comes first",
    )
    add("--min_duration", type=_seconds, metavar="SECONDS", help="shorter audio is not transcribed")
    add("--max_duration", type=_seconds, metavar="SECONDS", help="longer audio is not transcribed")
    add(
        "--required_sample_rate",
        type=_count,
        metavar="HZ",
        help="audio whose file has another rate is not transcribed; by default any is resampled",
    )
    add(
        "--required_channels",
        type=_count,
        metavar="NUMBER",
        help="audio whose file has more or fewer channels is not transcribed",
    )
    add(
        "--audio_checks",
        default="fail",
        choices=AUDIO_CHECKS,
        help="what becomes of a row that one of the four above refuses: a failure, or a filtered "
        "row, of which no job fails",
    )
    add(
        "--reference_key",
        type=_word,
        metavar="FIELD",
        help="the field of the reference text: writes each row's WER and CER, and those of the "
        "corpus into summary.json",
    )
    add(
        "--normalizer",
        default="none",
        choices=NORMALIZERS,
        help="of both texts before they are compared; whisper is its one for English",
    )
    add(
        "--quality",
        action="store_true",
        help="write signals of a transcript's quality: characters a second, repetitions, ...",
    )
    add(
        "--keep",
        type=_expression,
        metavar="EXPRESSION",
        help="rows for which it does not hold are written apart, as filtered: "
        "'wer <= 0.3 and duration < 30'",
    )
    add(
        "--gpus",
        type=_gpus,
        metavar="NUMBER",
        help="of a worker machine, each with a process and a model of its own; a fraction, as 0.5, "
        "has so many processes share one",
    )
    add("--cpus", type=_count, metavar="NUMBER", help="that a worker process may use")
    add(
        "--gpu_memory_gb",
        type=_seconds,
        metavar="GB",
        help="of its GPU's memory, that a worker process may use",
    )
    return parser


def _word(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty")
    return text


def _inputs(text: str) -> list[str]:
    return [_word(part) for part in split_commas(text)]


def _storage_options(text: str) -> dict[str, dict[str, Any]]:
    try:
        if not text.lstrip().startswith("{"):
            text = Path(text).expanduser().read_text(encoding="utf-8")
        return json.loads(text)
    except OSError as error:
        raise argparse.ArgumentTypeError(
            f"is neither a JSON object nor the path of a file of one ({error.strerror}: {text!r})"
        ) from None
    except ValueError as error:  # not with the text: it may hold secrets
        raise argparse.ArgumentTypeError(f"is not JSON ({error})") from None


def _among(text: str, allowed: Sequence[str]) -> list[str]:
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if part not in allowed:
            raise argparse.ArgumentTypeError(f"{part!r} is none of {', '.join(allowed)}")
    return parts


def _timestamps(text: str) -> list[str]:
    return _among(text, TIMESTAMPS)


def _formats(text: str) -> list[str]:
    return _among(text, tuple(FORMATS))


def _segment_seconds(text: str) -> float:
    if not MIN_SEGMENT_SECONDS <= _number(text) < math.inf:
        raise argparse.ArgumentTypeError(
            f"{text} is not a number of {MIN_SEGMENT_SECONDS:g} or more"
        )
    return _number(text)


def _expression(text: str) -> str:
    try:
        return conditions.parse(text).text
    except conditions.ExpressionError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _gpus(text: str) -> float:
    value = _number(text)
    if value >= 1 and value == round(value):
        return value
    if 0 < value < 1 and abs(1 / value - round(1 / value)) < 0.05:
        return value
    raise argparse.ArgumentTypeError(
        f"{text} is neither a whole number nor a fraction such as 0.5, 0.33 or 0.25"
    )


def _accelerator(text: str) -> str:
    if not ACCELERATOR.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not of the form type:TYPE;count:NUMBER;install-nvidia-driver"
        )
    return text


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def _seconds(text: str) -> float:
    if not 0 < _number(text) < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds above 0")
    return _number(text)


def _fraction(text: str) -> float:
    if not 0 <= _number(text) <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not within 0 and 1")
    return _number(text)


def _whole(text: str, least: int) -> int:
    if not text.isdigit() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {least} or more")
    return int(text)


def _count(text: str) -> int:
    return _whole(text, 1)


def _shards(text: str) -> int:
    count = _count(text)
    if count > MAX_SHARDS:
        raise argparse.ArgumentTypeError(f"{text} is more than {MAX_SHARDS}, the most there can be")
    return count


def _channel(text: str) -> int:
    return _whole(text, 0)
