"""Scores the transcripts of a finished job: ``beam-asr score``."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beam_asr.cli import afterwards
from beam_asr.errors import SetupError

if TYPE_CHECKING:
    from beam_asr.cli.options import TranscribeOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the command."""
    afterwards.add_folder(parser)
    parser.add_argument(
        "--json", action="store_true", help="print the scores as summary.json would have them"
    )
    afterwards.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Prints the scores, and writes them with the transcripts if a folder is named."""
    source = afterwards.find(arguments.folder, arguments.storage_options)
    options = afterwards.requested(source, arguments)
    if options.names.reference_key is None:
        raise SetupError("name the field of the reference text, as `reference_key`=text")
    if arguments.output is None:
        scores, warnings = _scores(source, options)
        for warning in warnings:
            afterwards.warn(warning)
    else:
        summary = afterwards.write([source], options)
        if summary is None:
            return 0
        scores = summary["scores"]
        if not arguments.json:
            afterwards.show(afterwards.ended(summary, arguments.output))
            return 0
    if arguments.json:
        print(json.dumps(scores, indent=2, ensure_ascii=False))
    else:
        afterwards.show("\n".join(afterwards.score_lines(scores)))
    return 0


def _scores(
    source: afterwards.Finished, options: TranscribeOptions
) -> tuple[dict[str, Any], list[str]]:
    """Scores transcripts by the job's own steps, and writes nothing; returns warnings as well.

    Raises:
        SetupError: the runner's workers are elsewhere, and could not say the scores here.
    """
    import apache_beam as beam

    from beam_asr.cli import beam_flags, job, runners
    from beam_asr.cli.messages import as_flags
    from beam_asr.outputs import summary
    from beam_asr.records.statistics import Statistics, from_json, total
    from beam_asr.transforms.read_output import ReadOutput

    afterwards.check([source], options)
    beam_options = beam_flags.parse(options.beam_args)
    if not runners.profile_of(beam_options).is_local:
        raise SetupError("on this runner the scores need a folder to be written to: name `output`")
    runners.apply_runner_defaults(beam_options, None, options.resources)
    with tempfile.TemporaryDirectory(prefix="beam-asr-") as folder:
        place = Path(folder) / "statistics.json"
        with beam.Pipeline(options=beam_options) as pipeline:
            read = pipeline | "ReadOutput" >> ReadOutput(afterwards.stored_run(source, options))
            step = job.score_step(options, afterwards.lang_key_of(options))
            scored = read | "ScoreTranscripts" >> step
            sums = scored.typed.statistics | "SumStatistics" >> beam.CombineGlobally(total)
            _ = sums | "Keep" >> beam.Map(_keep, str(place))
        statistics: Statistics = from_json(json.loads(place.read_text()))
    return summary.scores(statistics), [as_flags(text) for text in summary.warnings(statistics)]


def _keep(statistics: Any, place: str) -> None:
    from beam_asr.records.statistics import to_json

    Path(place).write_text(json.dumps(to_json(statistics)))
