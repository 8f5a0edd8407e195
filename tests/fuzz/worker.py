"""A process that fuzzes one target until it is stopped, crashes or hangs."""

from __future__ import annotations

import argparse
import faulthandler
import time
from itertools import chain, islice
from pathlib import Path

from tests.fuzz import engine
from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import TARGETS


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--executions", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--timeout", type=float, required=True)
    parser.add_argument("--mutations-only", action="store_true")
    parser.add_argument("--replay", type=Path)
    options = parser.parse_args()
    with (options.folder / f"{options.target}.log").open("w") as log:
        faulthandler.enable(log)
        engine.limit_memory()
        fuzz(options, engine.Watchdog(options.timeout, log))


def fuzz(options: argparse.Namespace, watchdog: engine.Watchdog) -> None:
    name = options.target
    journal = engine.Journal(options.folder / f"{name}.journal")
    seeds = [options.replay.read_bytes()] if options.replay else SEEDS[name]()
    explorer = engine.Explorer(name, TARGETS[name], seeds, options.seed)
    first = () if options.mutations_only else seeds
    mutations = () if options.replay else explorer.mutations()
    end = time.monotonic() + options.seconds
    for data in islice(chain(first, mutations), options.executions):
        if time.monotonic() > end:
            break
        journal.begin(data)
        watchdog.begin()
        finding = explorer.run(data)
        if finding:
            finding.save(options.folder, name)
    watchdog.end()


if __name__ == "__main__":
    main()
