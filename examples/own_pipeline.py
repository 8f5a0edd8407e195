"""Transcribes a manifest in a pipeline with a step of its own, which hides digits.

python examples/own_pipeline.py --input=samples/manifest.jsonl --output=out/own \
    --model_name=samples/model.nemo

All other flags are Beam's, as --runner=FlinkRunner.
"""

from __future__ import annotations

import argparse
import re
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

import beam_asr

DIGIT = re.compile(r"\b(zero|one|two|three|four|five|six|seven|eight|nine|\d)\b")


class HideDigits(beam.PTransform):
    """Replaces each digit of a transcript by ``#``, and counts them in a field ``hidden``."""

    def expand(self, transcripts):
        return transcripts | beam.Map(self.hide)

    @staticmethod
    def hide(row: dict[str, Any]) -> dict[str, Any]:
        text, count = DIGIT.subn("#", row["pred_text"])
        # A new dict: Beam's elements must not be changed in place.
        return {**row, "pred_text": text, "hidden": count}


def main(args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--input", required=True, help="a manifest, or a glob of several")
    parser.add_argument("--output", required=True, help="a folder that is empty or not there")
    parser.add_argument("--model_name", required=True, help="a name on a hub, or a .nemo file")
    own, beam_args = parser.parse_known_args(args)

    # The last --runner counts. Beam's own default would first look for Prism on the network.
    options = PipelineOptions(["--runner=FnApiRunner", *beam_args])
    with beam.Pipeline(options=options) as pipeline:
        results = (
            pipeline
            | beam_asr.ReadManifest(own.input)
            | beam_asr.Transcribe(model_name=own.model_name)
        )
        hidden = results.transcripts | HideDigits()
        # The failures stay in `results`, so WriteManifest writes them, and checks that every row
        # of the manifest ends as one record.
        results._replace(transcripts=hidden) | beam_asr.WriteManifest(own.output)


if __name__ == "__main__":
    main()
