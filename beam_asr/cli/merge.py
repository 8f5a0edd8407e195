"""Merges the results of several finished jobs into one folder: ``beam-asr merge``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from beam_asr.cli import afterwards
from beam_asr.cli.afterwards import KEYS, SEVERAL, Finished
from beam_asr.errors import SetupError

ROWS = ("rows", "rows_digest")  # of an identity: known only once the folders are merged


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the command."""
    parser.add_argument(
        "folders",
        nargs="+",
        metavar="OUTPUT",
        help="output folders of finished jobs; of a row that several have transcribed, the last "
        "one's transcript is taken",
    )
    afterwards.add_arguments(parser, required=("output",))


def run(arguments: argparse.Namespace) -> int:
    """Writes the rows of all folders, each once, and says what differs."""
    from beam_asr.storage.uris import join

    sources = [afterwards.find(name, arguments.storage_options) for name in arguments.folders]
    if len(sources) < 2:
        raise SetupError("name two or more folders to merge")
    differing = _differing(sources)
    for text in differing:
        afterwards.warn(f"warning: {text}")
    options = afterwards.requested(sources[-1], arguments)
    summary = afterwards.write(
        sources, options, {"differing": differing} if differing else {}, _identity(sources)
    )
    if summary is None:
        return 0
    both, conflicts = summary.get("rows_of_several_runs", 0), summary.get("conflicts", 0)
    if both:
        afterwards.show(f"{both} rows are in several folders, {conflicts} with different texts")
    for example in summary.get("examples_conflicts", ()):
        afterwards.show(f"  {example}")
    afterwards.show(afterwards.ended(summary, arguments.output))
    if conflicts:
        afterwards.show(f"all numbers of conflicts are in {join(arguments.output, 'summary.json')}")
    return 0


def _identity(sources: Sequence[Finished]) -> dict[str, Any]:
    """Returns the identity of the merged run: what differs is none's, so that none appends."""
    identities = [afterwards.identity_of(source) for source in sources]
    return {
        name: None if name in ROWS else value if _is_of_all(name, value, identities) else SEVERAL
        for name, value in identities[-1].items()
    }


def _is_of_all(name: str, value: Any, identities: Sequence[dict[str, Any]]) -> bool:
    return all(identity.get(name) == value for identity in identities)


def _differing(sources: Sequence[Finished]) -> list[str]:
    """Returns what differs between each folder and the last: models, settings.

    Raises:
        SetupError: the fields of rows have other names.
    """
    from beam_asr.cli.finished import of_records
    from beam_asr.outputs.journal import differences

    last = sources[-1]
    texts = []
    for source in sources[:-1]:
        for name in KEYS:
            one, other = (getattr(each.options.names, name) for each in (source, last))
            if one != other:
                raise SetupError(
                    f"{name} is {one!r} in {source.folder!r} and {other!r} in {last.folder!r}, "
                    "whose records cannot be merged"
                )
        one, other = (afterwards.identity_of(each) for each in (source, last))
        now = {name: value for name, value in other.items() if name not in ROWS}
        found = differences(one, now)
        found += differences(*(of_records(each.run.details["options"]) for each in (source, last)))
        if found:
            texts.append(f"in {source.folder} and {last.folder} {'; '.join(found)}")
    return texts
