"""What the launcher of the Flex Template runs: its parameters become ``beam-asr``'s command line.

The launcher gives every parameter as ``--name=value``. A switch of argparse takes no value, so
``--resume=true`` becomes ``--resume``, and ``--resume=false`` nothing. A parameter that was left
empty counts as not given.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from apache_beam.options.pipeline_options import PipelineOptions, _BeamArgumentParser

from beam_asr.cli import main
from beam_asr.cli.messages import flag_of
from beam_asr.records.setting_fields import all_settings
from beam_asr.settings import GROUPS

# The image that this runs in, which the workers are to have too; Dockerfile sets it.
IMAGE = "BEAM_ASR_IMAGE"


def command_line(parameters: Sequence[str]) -> list[str]:
    """The command line of ``beam-asr`` for what the launcher gives.

    Raises:
        SystemExit: a switch has a value that is neither true nor false.
    """
    flags = switches()
    args = ["transcribe"]
    for parameter in parameters:
        flag, equals, value = parameter.partition("=")
        if not equals or (value and flag not in flags):
            args.append(parameter)
        elif value.lower() == "true":
            args.append(flag)
        elif value.lower() not in ("false", ""):
            sys.exit(f"{flag} is {value!r}, but must be true or false")
    image = os.environ.get(IMAGE)
    if image and not any(arg.startswith("--sdk_container_image=") for arg in args):
        args.append(f"--sdk_container_image={image}")
    return args


def switches() -> set[str]:
    """The flags that take no value: ours, and Beam's, of which the launcher gives some itself."""
    flags = {flag_of(each) for each in all_settings(GROUPS) if each.value_type is bool}
    for group in PipelineOptions.__subclasses__():
        parser = _BeamArgumentParser(add_help=False)
        group._add_argparse_args(parser)
        for action in parser._actions:
            if action.nargs == 0:
                flags.update(action.option_strings)
    return flags


if __name__ == "__main__":
    sys.exit(main.main(command_line(sys.argv[1:])))
