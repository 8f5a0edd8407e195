"""Defines Beam's portable runners that need no configuration: job servers, and Prism."""

from __future__ import annotations

from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions

from beam_asr.cli.runners import RunnerProfile


def ends_with_launcher(options: PipelineOptions) -> bool:
    """Returns whether Prism's workers are threads of the launching process, as by default."""
    return options.view_as(PortableOptions).environment_type in (None, "LOOPBACK")


JOB_SERVER = RunnerProfile(has_own_flags=True)
PRISM = RunnerProfile(ends_with_launcher=ends_with_launcher)
