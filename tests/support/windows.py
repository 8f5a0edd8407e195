"""Collections in windows of time, and the folders of windows."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import apache_beam as beam
from apache_beam.transforms.window import FixedWindows, TimestampedValue

SIZE = 60.0  # seconds of a window


def window_folder(out: Path, name: str, inputs: Iterable[object], whole: bool = True) -> Path:
    folder = out / name
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps({"inputs": [str(each) for each in inputs]}))
    if whole:
        (folder / "_SUCCESS").touch()
    return folder


def at_times(pipeline, label: str, values: list[tuple[float, object]], size: float = SIZE):
    return (
        pipeline
        | label >> beam.Create(values)
        | f"{label}Time" >> beam.Map(lambda each: TimestampedValue(each[1], each[0]))
        | f"{label}Window" >> beam.WindowInto(FixedWindows(size))
    )


def window_folders(out: Path) -> dict[float, Path]:
    """The folders by the starts of their windows, which are minutes of the first hour of 1970."""
    return {
        60.0 * int(path.name.partition("-")[0][11:13]): path
        for path in sorted(out.iterdir())
        if path.is_dir()
    }


def summary_of(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())
