"""Runs the job on good clips with and without faults among them, and compares."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from beam_asr.cli import main
from tests.faults.kinds import Fault


@dataclass(frozen=True)
class Verdict:
    """What became of one fault.

    Attributes:
        became: the stage and type of error that its row ended as, or what happened instead.
    """

    fault: Fault
    became: str

    @property
    def right(self) -> bool:
        return self.became == f"{self.fault.stage} {self.fault.error}"


@dataclass(frozen=True)
class Findings:
    """What faults have done to a job.

    Attributes:
        changed: good rows that did not end as they do without the faults.
        counts: rows in, transcribed and failed, by the job's own count.
    """

    verdicts: list[Verdict]
    changed: list[str]
    counts: tuple[int, int, int]

    @property
    def wrong(self) -> list[str]:
        """All that is not as it should be, one line each."""
        return [
            *(
                f"{each.fault.name}: {each.became}, not {each.fault.stage} {each.fault.error}"
                for each in self.verdicts
                if not each.right
            ),
            *(f"a good row was changed: {row}" for row in self.changed),
            *(["rows are lost or doubled"] if self.counts[0] != sum(self.counts[1:]) else []),
        ]


def inject(
    faults: Sequence[Fault], good: Sequence[dict], folder: Path, flags: Sequence[str]
) -> Findings:
    """Has the good rows transcribed alone, and with the faults among them.

    Args:
        folder: for manifests and outputs.
        flags: of ``beam-asr transcribe``, at least the model's.
    """
    lines = [json.dumps(row).encode() for row in good]
    undisturbed = _run(lines, folder / "undisturbed", flags)
    mixed = [*lines, *(fault.line for fault in faults)]
    random.Random(1).shuffle(mixed)
    disturbed = _run(mixed, folder / "disturbed", flags)
    expected = sorted(json.dumps(each) for each in undisturbed.transcripts)
    got = sorted(json.dumps(each) for each in disturbed.transcripts)
    changed = sorted({*expected} ^ {*got})
    verdicts = [Verdict(fault, _became(fault, mixed, disturbed.failures)) for fault in faults]
    summary = disturbed.summary
    counts = (summary["rows_in"], summary["transcribed"], summary["failed"])
    return Findings(verdicts, changed, counts)


@dataclass(frozen=True)
class _Output:
    transcripts: list[dict]
    failures: list[dict]
    summary: dict


def _run(lines: list[bytes], folder: Path, flags: Sequence[str]) -> _Output:
    folder.mkdir(parents=True)
    manifest, out = folder / "manifest.jsonl", folder / "out"
    manifest.write_bytes(b"\n".join(lines) + b"\n")
    status = main.main(
        ["transcribe", f"--input={manifest}", f"--output={out}", "--max_failure_fraction=1", *flags]
    )
    if status:
        raise RuntimeError(f"the job ended with status {status}")
    kinds = ("transcripts", "failures")
    found = [
        [json.loads(line) for shard in out.glob(f"{kind}-*") for line in shard.open("rb")]
        for kind in kinds
    ]
    return _Output(*found, json.loads((out / "summary.json").read_text()))


def _became(fault: Fault, lines: list[bytes], failures: list[dict]) -> str:
    """Which failure is that of a fault: by its line's place, or by its fields."""
    number = lines.index(fault.line) + 1
    try:
        fields = json.loads(fault.line)
    except (ValueError, RecursionError):
        fields = None
    found = [
        failure["error"]
        for failure in failures
        if failure.get("line_number") == number
        or ("line" not in failure and {k: v for k, v in failure.items() if k != "error"} == fields)
    ]
    if len(found) != 1:
        return f"{len(found)} failures"
    return f"{found[0]['stage']} {found[0]['type']}"
