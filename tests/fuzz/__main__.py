"""The command: fuzzes targets in processes of their own, and says what was found."""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.engine import Finding, Journal
from tests.fuzz.targets import HEADER, TARGETS

FRAME = re.compile(r'File "([^"]+)", line (\d+)')


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="manifest|audio|tar", help="default: all")
    parser.add_argument("--minutes", type=float, default=5, help="for each target (default: 5)")
    parser.add_argument("--executions", type=int, default=sys.maxsize, help="for each target")
    parser.add_argument("--seed", type=int, help="of the mutations; printed where none is given")
    parser.add_argument("--timeout", type=float, default=20, help="seconds an input may take")
    parser.add_argument("--out", type=Path, default=Path("out/fuzz"), help="folder of the findings")
    parser.add_argument("--replay", type=Path, nargs="+", help="findings (.bin) to run once more")
    options = parser.parse_args()
    unknown = set(options.targets) - TARGETS.keys()
    if unknown:
        parser.error(f"unknown target {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    if options.replay:
        return replay(options)
    options.out.mkdir(parents=True, exist_ok=True)
    seed = random.randrange(2**32) if options.seed is None else options.seed
    print(f"seed {seed}; findings go to {options.out}", flush=True)
    for target in options.targets or TARGETS:
        fuzz(target, seed, options)
    found = sorted(options.out.glob("*.txt"))
    for report in found:
        print(f"{report.with_suffix('.bin')}: {first_line(report)}")
    print(f"{len(found)} findings in {options.out}")
    return min(1, len(found))


def fuzz(target: str, seed: int, options: argparse.Namespace) -> None:
    """Fuzzes one target, in a new process after each crash, hang or want of memory."""
    journal = Journal(options.out / f"{target}.journal")
    start, end = time.monotonic(), time.monotonic() + 60 * options.minutes
    first, last = journal.runs, journal.runs + options.executions
    while (left := end - time.monotonic()) > 0 and journal.runs < last:
        limits = [f"--seconds={left}", f"--executions={last - journal.runs}"]
        if journal.runs > first:
            limits.append("--mutations-only")  # it may have been a seed that crashed the last one
        crash = run_worker(target, options.out, journal, [*limits, f"--seed={seed}"], options)
        if crash:
            crash.save(options.out, target)
        seed += 1
    runs = journal.runs - first
    rate = runs / (time.monotonic() - start)
    print(f"{target}: {runs} executions, {rate:.0f} a second", flush=True)


def run_worker(
    target: str, out: Path, journal: Journal, arguments: list[str], options: argparse.Namespace
) -> Finding | None:
    """Runs a worker to its end; gives the input that ended it before its time."""
    command = [sys.executable, "-m", "tests.fuzz.worker", target, str(out), *arguments]
    command.append(f"--timeout={options.timeout}")
    log = out / f"{target}.log"
    with tempfile.TemporaryDirectory() as scratch, log.with_suffix(".err").open("w") as errors:
        # The decoders chatter; and who crashes leaves files behind.
        status = subprocess.run(
            command,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env={**os.environ, "TMPDIR": scratch},
        ).returncode
    if status == 0:
        return None
    report = log.read_text("utf-8", "replace")
    if status > 0 and "Timeout" not in report:
        raise RuntimeError(f"the worker itself failed; {errors.name} says why")
    kind = "hang" if status > 0 else signal.Signals(-status).name
    frames = [f"{Path(file).name}:{line}" for file, line in FRAME.findall(report)]
    start = journal.data[HEADER : HEADER + 4]  # tells formats, and so decoders, apart
    return Finding(f"{kind} at {' '.join(frames[:2])} of {start!r}", report, journal.data)


def replay(options: argparse.Namespace) -> int:
    """Runs inputs of findings, each in a process of its own; the file's name says the target."""
    failing = 0
    for file in options.replay:
        target = file.name.partition("-")[0]
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder)
            journal = Journal(out / f"{target}.journal")
            arguments = ["--seconds=60", "--executions=1", "--seed=0", f"--replay={file}"]
            crash = run_worker(target, out, journal, arguments, options)
            if crash:
                crash.save(out, target)
            reports = list(out.glob("*.txt"))
            failing += bool(reports)
            print(f"{file}: {first_line(reports[0]) if reports else 'passes'}", flush=True)
    return min(1, failing)


def first_line(report: Path) -> str:
    return report.read_text("utf-8").partition("\n")[0]


if __name__ == "__main__":
    sys.exit(main())
