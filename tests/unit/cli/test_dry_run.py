"""What a job would do, and a sample of its rows, without a model."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import soundfile

from beam_asr.cli import dry_run, main
from tests.support.job_files import REPOSITORY, write_manifest

ROWS = 50


@pytest.fixture
def plan(tmp_path, capsys):
    """Returns the exit status of a dry run, and what it prints."""

    def run(*inputs, flags=()) -> tuple[int, str]:
        places = [f"--output={tmp_path / 'out'}", "--model_name=org/m", "--dry_run"]
        status = main.main(["transcribe", *map(str, inputs), *places, *flags])
        printed = capsys.readouterr()
        assert not (tmp_path / "out").exists()
        return status, printed.out + printed.err

    return run


@pytest.fixture
def manifest(tmp_path):
    rows = [{"audio_filepath": f"{number}.wav", "duration": 3600.0} for number in range(ROWS - 2)]
    return write_manifest(tmp_path / "m.jsonl", [*rows, '{"duration": 1}', "no JSON"])


def test_it_counts_rows_and_hours_and_shows_what_would_fail(plan, manifest):
    status, text = plan(manifest, flags=["--runner=FlinkRunner", "--parallelism=3"])
    assert status == 0
    lines = text.splitlines()
    assert lines[0] == "input: 50 rows of 1 file"
    assert lines[1] == f"  {manifest}: 50 rows"
    assert lines[2] == "2 of them would fail before any audio is read, as:"
    assert "m.jsonl:49: the row has no 'audio_filepath'" in lines[3]
    assert "model: org/m, for 48 rows" in lines
    assert "audio: 48.00 h in the 48 rows with a duration" in lines
    assert "parallelism=3" in text
    l4 = next(line for line in lines if "L4" in line)
    assert l4 == "  g2-standard-8 (L4): 0.10 h, $0.09 on demand, $0.04 Spot, $0.13 on Dataflow"
    assert lines[-1] == "nothing was transcribed: leave out --dry_run to start the job"


def test_without_durations_it_reads_some_headers(plan, tmp_path):
    for number in range(3):
        soundfile.write(tmp_path / f"{number}.flac", np.zeros(16_000 * 60, np.int16), 16_000)
    (tmp_path / "3.wav").write_bytes(b"RIFF")
    status, text = plan(tmp_path / "*.[fw]*")
    assert status == 0
    assert "input: 4 rows\n" in text
    assert "1 of 4 files could not be read, as:" in text
    assert "audio: about 0.07 h in the 4 rows without, by the headers of 3" in text


def test_routes_say_how_many_rows_each_model_takes(plan, tmp_path):
    rows = [{"audio_filepath": "a", "lang": lang} for lang in ["en", "en", "es", "fr"]]
    listed = write_manifest(tmp_path / "m.jsonl", rows)
    status, text = plan(listed, flags=["--models=en=a/b,es=c/d"])
    assert status == 0
    assert "model: a/b, for 2 rows" in text
    assert "model: c/d, for 1 rows" in text


def test_what_the_launch_would_refuse_is_refused(plan, tmp_path):
    assert plan(tmp_path / "nothing.jsonl")[0] == 2


def test_the_machines_are_those_of_the_page():
    page = (REPOSITORY / "docs" / "scale.md").read_text()
    table = page.partition("## One worker")[2].partition("## Whole jobs")[0]
    for machine in dry_run.MACHINES:
        row = next(line for line in table.splitlines() if line.startswith(f"| {machine.name} |"))
        cells = [cell.strip().replace(",", "") for cell in row.strip("|").split("|")]
        assert int(cells[1]) == machine.rtfx
        assert [*map(float, cells[5:8])] == [machine.on_demand, machine.spot, machine.dataflow]


def test_a_sample_is_the_same_each_time_and_fair(tmp_path):
    from beam_asr.transforms.read_manifest import ReadManifest

    rows = [{"audio_filepath": f"{number}.wav"} for number in range(1000)]
    for part in range(2):
        write_manifest(tmp_path / f"{part}.jsonl", rows[part * 500 : (part + 1) * 500])

    def sample(limit: int) -> list[str]:
        read = ReadManifest(str(tmp_path / "*.jsonl"), limit=limit).read_here()
        return sorted(row.fields["audio_filepath"] for row in read)

    taken = sample(100)
    assert taken == sample(100)
    assert len(set(taken)) == 100
    assert set(taken) < set(sample(200))
    numbers = [int(re.match(r"\d+", name)[0]) for name in taken]
    assert 25 < sum(number < 500 for number in numbers) < 75
    assert len(sample(5000)) == 1000


def test_workers_take_the_same_sample(tmp_path):
    import apache_beam as beam
    from apache_beam.testing.util import assert_that, equal_to

    from beam_asr.transforms.read_manifest import ReadManifest

    rows = [{"audio_filepath": f"{number}.wav"} for number in range(300)]
    listed = str(write_manifest(tmp_path / "m.jsonl", rows))
    expected = [row.line for row in ReadManifest(listed, limit=20).read_here()]
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        found = pipeline | ReadManifest(listed, limit=20) | beam.Map(lambda row: row.line)
        assert_that(found, equal_to(expected))
    assert len({json.loads(line)["audio_filepath"] for line in expected}) == 20


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--watch", "--runner=PrismRunner"], "--limit is not for an input without an end"),
        (["--tarred_audio=a.tar"], "--limit would leave most of --tarred_audio without rows"),
    ],
)
def test_a_sample_that_cannot_be_taken_is_refused(plan, manifest, flags, reason):
    status, text = plan(manifest, flags=["--limit=3", *flags])
    assert status == 2
    assert re.search(reason, text), text


def test_a_sample_of_a_tar_is_refused_at_launch(plan, tmp_path):
    import tarfile

    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(write_manifest(tmp_path / "1.json", [{}]), "1.json")
    status, text = plan(tmp_path / "a.tar", flags=["--limit=3"])
    assert status == 2
    assert "which are known only when the file is read" in text
