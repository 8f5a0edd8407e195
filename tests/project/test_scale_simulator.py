"""The simulation of large jobs: its page shows what it prints, and it behaves as jobs do."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from beam_asr.cli import options
from benchmarks import scale
from benchmarks.scale import A100, H100, HOUR, L4, MACHINES, simulate
from tests.support.job_files import REPOSITORY

PAGE = (REPOSITORY / "docs/scale.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", scale.TABLES)
def test_the_page_shows_the_table_that_is_printed(name):
    assert f"\n\n{scale.table(name)}\n" in PAGE


def test_the_page_has_no_other_table():
    assert len(re.findall(r"^\| --- ", PAGE, re.MULTILINE)) == len(scale.TABLES)


@pytest.mark.parametrize("machine", [A100, H100])
def test_few_cores_make_decoding_the_limit(machine):
    few = replace(machine, vcpus=2)
    assert scale.limit(few, scale.MP3_SECONDS) == "decoding"
    assert scale.speed(replace(H100, vcpus=2)) < scale.speed(H100)
    speeds = [scale.speed(replace(machine, vcpus=vcpus)) for vcpus in (2, 4, 8, 16, 64)]
    assert speeds == sorted(speeds)


def test_more_cores_do_not_help_a_small_gpu():
    assert scale.limit(L4) == "model"
    assert scale.speed(replace(L4, vcpus=64)) == scale.speed(L4)


def test_no_number_of_cores_reads_faster_than_pythons_lock_allows():
    locked = scale.CLIP_SECONDS / (scale.READ_SECONDS * scale.LOCKED_SHARE)
    assert scale.rates(replace(H100, vcpus=1000))["decoding"] < locked


def test_twice_the_workers_take_half_the_time_until_the_bucket_is_the_limit():
    ten, twenty = simulate(100_000, L4, 10), simulate(100_000, L4, 20)
    assert ten.bottleneck == twenty.bottleneck == "model"
    assert ten.hours / twenty.hours == pytest.approx(2, rel=0.03)
    many, more = simulate(100_000, L4, 1000), simulate(100_000, L4, 2000)
    assert many.bottleneck == more.bottleneck == "storage"
    assert many.hours / more.hours == pytest.approx(1, rel=0.03)


def test_tars_ask_the_bucket_for_less():
    files, tars = (simulate(100_000, L4, 1000, files_a_clip=each) for each in (1.0, 0.002))
    assert tars.spent["storage"] == 0
    assert tars.hours < files.hours / 2


def test_the_bytes_of_all_audio_take_their_time_whatever_the_workers_are():
    least = 1_000_000 * HOUR * scale.AUDIO_BYTES / scale.EGRESS_BYTES
    run = simulate(1_000_000, H100, 1000, files_a_clip=0.0)
    assert least < run.seconds < 1.5 * least
    assert run.bottleneck == "storage"


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
@pytest.mark.parametrize("workers", [1, 20, 300])
def test_a_job_never_costs_less_than_its_gpus(machine, workers):
    hours = 20_000
    least = hours / scale.rates(machine)["model"] * machine.gpu_price
    run = simulate(hours, machine, workers)
    assert run.worker_hours * machine.price > run.worker_hours * machine.gpu_price > least
    assert scale.dataflow_cost(run, hours) > least
    spot = simulate(hours, machine, workers, preemptions_per_hour=0.05)
    assert run.worker_hours * machine.price > spot.worker_hours * machine.spot


def test_slow_workers_hold_up_a_job_whose_parts_are_given_out_at_the_beginning():
    shared = simulate(20_000, L4, 50, slow_share=0.1)
    parts = simulate(20_000, L4, 50, slow_share=0.1, shared=False)
    even = simulate(20_000, L4, 50, slow_share=0.0, shared=False)
    assert shared.share("tail") < 0.01 < even.share("tail") + 0.01 < parts.share("tail")
    assert parts.hours > 1.15 * shared.hours


def test_in_the_end_of_a_shared_job_nobody_waits_longer_than_some_windows_take():
    run = simulate(20_000, L4, 50, slow_share=0.1)
    a_window = scale.CHUNK_SECONDS / scale.speed(L4)
    assert run.spent["tail"] / run.workers < 3 * a_window / scale.SLOW_SPEED


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("preemptions", [0.0, 2.0])
def test_all_time_of_the_workers_is_accounted_for_and_all_work_is_done(shared, preemptions):
    run = simulate(20_000, A100, 60, shared, preemptions)
    assert sum(run.spent.values()) == pytest.approx(run.workers * run.seconds)
    least = 20_000 * HOUR / scale.speed(A100)
    assert least < 1.01 * run.spent["work"]
    assert run.spent["work"] < least / scale.SLOW_SPEED


def test_machines_that_are_taken_away_cost_their_start_and_little_work():
    quiet, rough = (simulate(20_000, L4, 50, preemptions_per_hour=each) for each in (0.0, 1.0))
    assert rough.hours > quiet.hours
    assert rough.spent["start"] > 1.5 * quiet.spent["start"]
    assert quiet.spent["lost"] == 0
    assert 0 < rough.share("lost") < 0.01


def test_a_seed_gives_the_same_run_and_another_one_another():
    first, again, other = (simulate(1000, L4, 4, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.seconds != other.seconds


def test_a_bucket_takes_twice_as_much_after_twenty_minutes():
    assert scale.reads_allowed(0) == 5000
    assert scale.reads_allowed(1200) == 10_000


def test_there_are_as_many_of_all_things_as_hours():
    some, more = scale.counts(1000), scale.counts(2000)
    assert some.windows == 3000
    assert more.rows == 2 * some.rows
    assert more.removing_seconds == 2 * some.removing_seconds


def test_reads_at_a_time_are_those_of_the_job():
    given = options.parse_args(["transcribe", "--input=i", "--output=o", "--model_name=m"])
    assert given.reading.max_concurrent_reads == scale.CONCURRENT_READS
