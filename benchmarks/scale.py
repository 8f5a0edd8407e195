"""How a job would run at sizes that nobody here has run: a simulation from measured rates.

    .venv/bin/python -m benchmarks.scale

Prints the tables of docs/scale.md. Workers start, read and group the rows, and take windows of
audio until none is left; each is as fast as the slowest of its model, its reading, and its part of
what the object store answers. Nothing here is a measurement: the source of each figure is stated
by the first table.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from beam_asr.inputs.json_lines import RANGE_BYTES
from beam_asr.outputs.journal import HEARTBEAT_SECONDS
from beam_asr.settings import RECORDS_A_SHARD
from beam_asr.storage.storage import LISTING_THREADS
from beam_asr.transforms.chunk_recognizer import CHUNK_SECONDS

HOUR = 3600.0
WINDOWS_LOST = 2  # that are with a worker when its machine is taken away
CONCURRENT_READS = 32  # the default of --max_concurrent_reads

# Measured: benchmarks/RESULTS.md.
CLIP_SECONDS = 8.0
AUDIO_BYTES = 23_200.0  # of FLAC, for a second
READ_SECONDS = 0.0029  # of CPU, to read a clip from a server and to decode it
LOCKED_SHARE = 0.45  # of that, holding Python's lock
MP3_SECONDS = 0.011  # of CPU, that a clip of MP3 at 44.1 kHz in stereo takes more
ROW_SECONDS = 0.000119  # of the whole graph for a row, without audio
JOB_SHARE = 0.949  # of the speed of the model alone that a job reaches

# Published.
A100_RTFX = 3332.74
BANDWIDTH = {"L4": 300.0, "A100 40 GB": 1555.0, "A100 80 GB": 2039.0, "H100": 3350.0}  # GB/s
READS_PER_SECOND = 5000.0  # of a bucket, at first
WRITES_PER_SECOND = 1000.0
DOUBLING_SECONDS = 1200.0
WRITES_OF_AN_OBJECT = 1.0  # a second
EGRESS_BYTES = 25e9  # a second, that a project reads in a region

# Listed prices, US dollars, in us-central1.
VCPU_HOUR, GIB_HOUR = 0.056, 0.003557  # Dataflow, batch
DATAFLOW_GPU = 1.2  # times Compute Engine's price of the GPU
SHUFFLED_GB = 0.011
READ_REQUEST, WRITE_REQUEST = 0.4e-6, 5e-6

# Assumed.
START_SECONDS = 480.0
START_SPREAD = 0.25
WINDOW_SPREAD = 0.15
SLOW_SHARE, SLOW_SPEED = 0.05, 0.8
PREEMPTIONS_PER_HOUR = 0.05
LATENCY_SECONDS = 0.05
ROW_BYTES = 250.0
SHUFFLED_BYTES = 1600.0
PAGE_NAMES, PAGE_SECONDS, NAME_BYTES = 1000, 0.1, 2000.0

SIZES = {1_000: 4, 100_000: 100, 10_000_000: 1000}  # hours of audio, workers


@dataclass(frozen=True)
class Machine:
    """A worker: a machine with one GPU.

    Attributes:
        gpu_price, price, spot: US dollars an hour, of the GPU alone and of the machine.
    """

    name: str
    gpu: str
    vcpus: int
    memory_gib: int
    gpu_price: float
    price: float
    spot: float

    @property
    def dataflow(self) -> float:
        """US dollars an hour of such a worker of Dataflow, without shuffle and disk."""
        host = self.vcpus * VCPU_HOUR + self.memory_gib * GIB_HOUR
        return host + DATAFLOW_GPU * self.gpu_price


L4 = Machine("g2-standard-8", "L4", 8, 32, 0.5600, 0.8536, 0.3414)
L4_16 = Machine("g2-standard-16", "L4", 16, 64, 0.5600, 1.1473, 0.4589)
A100 = Machine("a2-highgpu-1g", "A100 40 GB", 12, 85, 2.9339, 3.6734, 1.4694)
H100 = Machine("a3-highgpu-1g", "H100", 26, 234, 9.7966, 10.9791, 6.5710)
MACHINES = (L4, L4_16, A100, H100)


def rates(machine: Machine, more_seconds: float = 0.0) -> dict[str, float]:
    """Seconds of audio a second that each part of a worker does, by its name.

    Args:
        more_seconds: of CPU, that a clip takes beyond those of FLAC; taken to hold no lock.
    """
    model = A100_RTFX * BANDWIDTH[machine.gpu] / BANDWIDTH["A100 80 GB"] * JOB_SHARE
    cores = max(1, machine.vcpus - 1)  # one is busy with the model's thread
    # Amdahl's law: what holds the lock is done by one thread at a time.
    locked = READ_SECONDS * LOCKED_SHARE
    a_clip = locked + (READ_SECONDS - locked + more_seconds) / cores + ROW_SECONDS
    return {
        "model": model,
        "decoding": CLIP_SECONDS / a_clip,
        "latency": CLIP_SECONDS * CONCURRENT_READS / LATENCY_SECONDS,
    }


def limit(machine: Machine, more_seconds: float = 0.0) -> str:
    """The slowest part of a worker."""
    each = rates(machine, more_seconds)
    return min(each, key=each.__getitem__)


def speed(machine: Machine) -> float:
    """Seconds of audio a second of a worker that waits for nobody else."""
    return min(rates(machine).values())


def reads_allowed(seconds: float) -> float:
    """Requests a second that a bucket answers, so long after the first ones."""
    return READS_PER_SECOND * 2 ** (seconds / DOUBLING_SECONDS)


@dataclass
class Run:
    """What became of a job.

    Attributes:
        seconds: from the first machine's start to the last window's end.
        spent: seconds of all workers, by what they went into: ``work``, ``start``, ``grouping``,
            ``storage`` (waiting for requests and bytes), ``lost`` (done again after a preemption)
            and ``tail`` (waiting for the last window).
    """

    machine: Machine
    workers: int
    seconds: float = 0.0
    spent: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @property
    def hours(self) -> float:
        return self.seconds / HOUR

    @property
    def worker_hours(self) -> float:
        return self.workers * self.hours

    @property
    def bottleneck(self) -> str:
        """What takes most of the workers' time; if that is work, the slowest part of a worker."""
        most = max(self.spent, key=self.spent.__getitem__)
        return limit(self.machine) if most == "work" else most

    def share(self, name: str) -> float:
        return self.spent[name] / sum(self.spent.values())


def simulate(
    hours: float,
    machine: Machine,
    workers: int,
    shared: bool = True,
    preemptions_per_hour: float = 0.0,
    slow_share: float = SLOW_SHARE,
    files_a_clip: float = 1.0,
    seed: int = 0,
) -> Run:
    """Runs a job of so many hours of audio.

    Args:
        shared: whether a worker that has nothing left takes of what is left to all, as on Dataflow;
            or each has its part from the beginning, as on Flink.
        slow_share: of the workers that have ``SLOW_SPEED`` of the others' speed.
        files_a_clip: requests to the bucket for each clip; far below one for tars.
    """
    chance = random.Random(seed)
    windows = math.ceil(hours * HOUR / CHUNK_SECONDS)
    run = Run(machine, workers)
    starts = [START_SECONDS * _spread(chance, START_SPREAD) for _ in range(workers)]
    slow = [chance.random() < slow_share for _ in range(workers)]
    own = [speed(machine) * (SLOW_SPEED if each else 1.0) for each in slow]
    # No window is started before all rows are read, grouped and counted.
    grouping = hours * HOUR / CLIP_SECONDS * ROW_SECONDS / workers
    ready = sum(starts) / workers + grouping
    left = _Left(windows, workers, shared)
    free, preempted_at = [], []
    for worker, start in enumerate(starts):
        run.spent["start"] += start
        run.spent["grouping"] += max(0.0, ready - start)
        free.append((max(start, ready), worker))
        preempted_at.append(max(start, ready) + _next(chance, preemptions_per_hour))
    heapq.heapify(free)
    ended = [0.0] * workers
    while free:
        now, worker = heapq.heappop(free)
        if not left.of(worker):
            ended[worker] = max(ended[worker], now)
            continue
        wanted = own[worker] * (len(free) + 1)  # seconds of audio a second, of all workers
        requests = wanted / CLIP_SECONDS * files_a_clip / reads_allowed(now - ready)
        waits = max(1.0, requests, wanted * AUDIO_BYTES / EGRESS_BYTES)
        a_window = CHUNK_SECONDS / own[worker]
        # Many windows at once where many are left: as one by one, and quicker to compute.
        # Not for long where the storage is what is waited for: it will soon answer more.
        most = 120.0 / (a_window * waits) if waits > 1 else math.inf
        count = left.take(worker, most)
        work = count * a_window * _spread(chance, WINDOW_SPREAD / math.sqrt(count))
        end = now + work * waits
        if end > preempted_at[worker]:
            gone = (preempted_at[worker] - now) / (end - now)
            done = max(0, int(gone * count) - WINDOWS_LOST)
            left.give_back(worker, count - done)
            again = START_SECONDS * _spread(chance, START_SPREAD)
            run.spent["work"] += work * done / count
            run.spent["lost"] += work * (gone - done / count)
            run.spent["storage"] += work * gone * (waits - 1)
            run.spent["start"] += again
            end = preempted_at[worker] + again
            preempted_at[worker] = end + _next(chance, preemptions_per_hour)
        else:
            run.spent["work"] += work
            run.spent["storage"] += work * (waits - 1)
        heapq.heappush(free, (end, worker))
    run.seconds = max(ended)
    run.spent["tail"] += sum(run.seconds - end for end in ended)
    return run


class _Left:
    """The windows that nobody has taken."""

    def __init__(self, windows: int, workers: int, shared: bool):
        self._workers = workers
        self._shared = shared
        part, more = divmod(windows, workers)
        self._own = [windows] if shared else [part + (n < more) for n in range(workers)]

    def of(self, worker: int) -> int:
        return self._own[0 if self._shared else worker]

    def take(self, worker: int, most: float) -> int:
        sharers = self._workers if self._shared else 1
        count = max(1, int(min(most, self.of(worker) / (16 * sharers))))
        self._own[0 if self._shared else worker] -= count
        return count

    def give_back(self, worker: int, count: int) -> None:
        self._own[0 if self._shared else worker] += count


def _spread(chance: random.Random, deviation: float) -> float:
    """A factor of mean 1 and this standard deviation, never below 0."""
    sigma = math.sqrt(math.log1p(deviation**2))
    return chance.lognormvariate(-(sigma**2) / 2, sigma)


def _next(chance: random.Random, per_hour: float) -> float:
    return chance.expovariate(per_hour / HOUR) if per_hour else math.inf


@dataclass(frozen=True)
class Counts:
    """What a job has many of.

    Attributes:
        listing_seconds, listing_bytes: to find the windows of a journal, for ``--resume``; by one
            worker, in its memory.
        removing_seconds: of the journal, by one worker, when all else is done.
    """

    rows: float
    manifest_bytes: float
    pieces: int
    shuffled_bytes: float
    windows: int
    shards: int
    listing_seconds: float
    listing_bytes: float
    removing_seconds: float


def counts(hours: float) -> Counts:
    rows = hours * HOUR / CLIP_SECONDS
    windows = math.ceil(hours * HOUR / CHUNK_SECONDS)
    return Counts(
        rows=rows,
        manifest_bytes=rows * ROW_BYTES,
        pieces=math.ceil(rows * ROW_BYTES / RANGE_BYTES),
        shuffled_bytes=rows * SHUFFLED_BYTES,
        windows=windows,
        shards=math.ceil(rows / RECORDS_A_SHARD),
        listing_seconds=windows / PAGE_NAMES * PAGE_SECONDS,
        listing_bytes=windows * NAME_BYTES,
        removing_seconds=windows / min(WRITES_PER_SECOND, LISTING_THREADS / LATENCY_SECONDS),
    )


def requests_cost(hours: float) -> float:
    """US dollars of reading each clip and writing each window's file and each shard."""
    many = counts(hours)
    return many.rows * READ_REQUEST + (many.windows + many.shards) * WRITE_REQUEST


def dataflow_cost(run: Run, hours: float) -> float:
    """US dollars of a run on Dataflow, with its shuffle."""
    shuffle = counts(hours).shuffled_bytes / 1e9 * SHUFFLED_GB
    return run.worker_hours * run.machine.dataflow + shuffle


def sources() -> Iterator[list[str]]:
    def row(what: str, value: str, source: str) -> list[str]:
        return [what, value, source]

    results = "measured, RESULTS.md"
    yield row("clip", f"{CLIP_SECONDS:g} s of FLAC, {AUDIO_BYTES / 1000:g} kB/s", results)
    yield row("CPU of reading a clip", f"{1000 * READ_SECONDS:g} ms", f"{results}, 2.5 to 3.0")
    yield row(
        "of that with Python's lock",
        f"{LOCKED_SHARE:g}",
        f"{results}: 0.40 s take 0.29 s with 8 threads on 2 cores; Amdahl's law beyond",
    )
    yield row(
        "more for MP3, 44.1 kHz, stereo",
        f"{1000 * MP3_SECONDS:g} ms",
        "measured 2026-11-23, the machine of RESULTS.md: 12.5 to 13.5 ms for 1.6; no lock: assumed",
    )
    yield row("graph, for a row", f"{1000 * ROW_SECONDS:g} ms", results)
    yield row("speed of a job to its model's", f"{JOB_SHARE:g}", f"{results}, on a CPU, the large")
    yield row(
        "RTFx of the model, A100 80 GB",
        f"{A100_RTFX:,.0f}",
        "Open ASR Leaderboard, parakeet-tdt-0.6b-v3, as localaimaster.com had it in 2026",
    )
    yield row(
        "of other GPUs",
        ", ".join(f"{name}: {value:,.0f}" for name, value in BANDWIDTH.items()),
        "scaled by the memory's bandwidth, GB/s, of NVIDIA's data sheets, from memory",
    )
    yield row(
        "requests a bucket takes",
        f"{READS_PER_SECOND:g} reads, {WRITES_PER_SECOND:g} writes a second, doubled each "
        f"{DOUBLING_SECONDS / 60:g} minutes",
        "Cloud Storage's guidelines for request rates, read 2026-11",
    )
    yield row(
        "writes of one object",
        f"{WRITES_OF_AN_OBJECT:g} a second",
        "Cloud Storage's quotas, from memory 2026-11",
    )
    yield row(
        "reads of a project",
        f"{8 * EGRESS_BYTES / 1e9:g} Gbit/s in a region",
        "Cloud Storage's default quota, from memory 2026-11",
    )
    yield row(
        "g2-standard-8, -16",
        f"${L4.price}, ${L4_16.price}; Spot ${L4.spot}, ${L4_16.spot}",
        "from memory 2026-11; Spot as 60 % less",
    )
    yield row(
        "a2-highgpu-1g",
        f"${A100.price}; Spot ${A100.spot}",
        "google-cloud-pricing-cost-calculator, list of 2024-11-07",
    )
    yield row(
        "a3-highgpu-1g",
        f"${H100.price}; Spot ${H100.spot}",
        "silybench-data from Google's billing catalog, 2026-09-26; to be had as Spot only",
    )
    yield row(
        "Dataflow, batch",
        f"vCPU ${VCPU_HOUR}, GiB ${GIB_HOUR}, GPU {DATAFLOW_GPU:g} times Compute Engine's, "
        f"shuffle ${SHUFFLED_GB} a GB",
        "vCPU and GiB: prices of Dataflow as published in 2019; the rest from memory 2026-11",
    )
    yield row(
        "requests",
        f"${1e6 * READ_REQUEST:g} a million reads, ${1e6 * WRITE_REQUEST:g} a million writes",
        "Cloud Storage's prices, from memory 2026-11",
    )
    yield row(
        "start of a worker",
        f"{START_SECONDS:g} s, give or take {START_SPREAD:.0%}",
        "assumed: machine 90, driver 120, image 180, Python and model 90 (NeMo: 40 measured)",
    )
    yield row("spread of a window's time", f"{WINDOW_SPREAD:.0%}", "assumed")
    yield row("slow workers", f"{SLOW_SHARE:.0%} at {SLOW_SPEED:g} of the speed", "assumed")
    yield row("Spot machines taken away", f"{PREEMPTIONS_PER_HOUR:g} an hour of each", "assumed")
    yield row("an answer of the storage", f"after {1000 * LATENCY_SECONDS:g} ms", "assumed")
    yield row(
        "bytes of a row",
        f"{ROW_BYTES:g} in a manifest, {SHUFFLED_BYTES:g} in three shuffles",
        "assumed",
    )
    yield row(
        "listing",
        f"pages of {PAGE_NAMES}, {PAGE_SECONDS:g} s each, {NAME_BYTES:g} bytes of memory a name",
        "assumed",
    )


def workers_alone() -> Iterator[list[str]]:
    for machine in MACHINES:
        each = rates(machine)
        per_hour = 1000 / speed(machine)  # of a machine, for 1,000 hours
        yield [
            machine.name,
            *(f"{value:,.0f}" for value in each.values()),
            limit(machine),
            f"{per_hour * machine.price:.2f}",
            f"{per_hour * machine.spot:.2f}",
            f"{per_hour * machine.dataflow:.2f}",
        ]


def whole_jobs() -> Iterator[list[str]]:
    for hours, workers in SIZES.items():
        for machine in MACHINES:
            run = simulate(hours, machine, workers)
            spot = simulate(hours, machine, workers, preemptions_per_hour=PREEMPTIONS_PER_HOUR)
            yield [
                f"{hours:,}",
                machine.name,
                str(workers),
                f"{run.hours:.2f}",
                *(f"{run.share(name):.0%}" for name in ("start", "grouping", "storage", "tail")),
                run.bottleneck,
                _dollars(run.worker_hours * machine.price),
                _dollars(spot.worker_hours * machine.spot),
                _dollars(dataflow_cost(run, hours)),
            ]


def more_workers() -> Iterator[list[str]]:
    one = simulate(100_000, L4, 1)
    for workers in (1, 10, 30, 100, 300, 1000, 3000):
        run = simulate(100_000, L4, workers)
        tars = simulate(100_000, L4, workers, files_a_clip=0.002)
        yield [
            str(workers),
            f"{run.hours:.2f}",
            f"{one.hours / run.hours:.0f}",
            run.bottleneck,
            _dollars(run.worker_hours * L4.price),
            f"{tars.hours:.2f}",
            tars.bottleneck,
        ]


def cores() -> Iterator[list[str]]:
    for machine in (L4, A100, H100):
        for vcpus in (2, 4, 8, 16, 32):
            some = replace(machine, vcpus=vcpus)
            cells = [machine.gpu, str(vcpus), f"{rates(some)['model']:,.0f}"]
            for more_seconds in (0.0, MP3_SECONDS):
                each = rates(some, more_seconds)
                busy = min(each.values()) / each["model"]
                cells += [f"{each['decoding']:,.0f}", limit(some, more_seconds), f"{busy:.0%}"]
            yield cells


def stragglers() -> Iterator[list[str]]:
    for share in (0.0, SLOW_SHARE):
        for shared in (True, False):
            run = simulate(100_000, L4, 100, shared=shared, slow_share=share)
            yield [
                f"{share:.0%}",
                "taken from all" if shared else "a part each",
                f"{run.hours:.2f}",
                f"{run.share('tail'):.1%}",
            ]


def large_numbers() -> Iterator[list[str]]:
    many = {hours: counts(hours) for hours in SIZES}

    def row(what: str, of: Callable[[Counts], float], form: str = "{:,.0f}") -> list[str]:
        return [what, *(form.format(of(each)) for each in many.values())]

    yield row("rows", lambda each: each.rows)
    yield row("manifest, GB", lambda each: each.manifest_bytes / 1e9, "{:,.1f}")
    yield row("pieces it is read in", lambda each: each.pieces)
    yield row(
        "audio, TB", lambda each: each.windows * CHUNK_SECONDS * AUDIO_BYTES / 1e12, "{:,.1f}"
    )
    yield row("shuffled, GB", lambda each: each.shuffled_bytes / 1e9, "{:,.1f}")
    yield row("shards of transcripts", lambda each: each.shards)
    yield row("files of the journal", lambda each: each.windows)
    yield row("listing it, minutes", lambda each: each.listing_seconds / 60, "{:,.1f}")
    yield row("listing it, GB of memory", lambda each: each.listing_bytes / 1e9, "{:,.1f}")
    yield row("removing it, hours", lambda each: each.removing_seconds / HOUR, "{:,.1f}")
    beats = [f"{workers / HEARTBEAT_SECONDS:.1f}" for workers in SIZES.values()]
    yield ["looks at the sign of life a second", *beats]
    yield ["requests, $", *(_dollars(requests_cost(hours)) for hours in SIZES)]


def _dollars(amount: float) -> str:
    return f"{amount:,.2f}" if amount < 100 else f"{amount:,.0f}"


COST = ["on demand $", "Spot $", "Dataflow $"]
TABLES: dict[str, tuple[list[str], Callable[[], Iterable[list[str]]]]] = {
    "What it is computed from": (["figure", "value", "from"], sources),
    "One worker": (
        [
            "machine",
            "model",
            "decoding",
            "latency",
            "limit",
            *(f"1,000 h, {each}" for each in COST),
        ],
        workers_alone,
    ),
    "Whole jobs": (
        ["hours", "machine", "workers", "hours it takes", "start", "grouping", "storage", "tail"]
        + ["most time", *COST],
        whole_jobs,
    ),
    "More workers": (
        ["workers", "hours it takes", "times as fast", "most time", "on demand $"]
        + ["from tars: hours", "from tars: most time"],
        more_workers,
    ),
    "Cores for a GPU": (
        ["GPU", "vCPUs", "model"]
        + ["decoding FLAC", "limit", "GPU busy", "decoding MP3", "limit", "GPU busy"],
        cores,
    ),
    "Slow workers": (["slow", "windows are", "hours it takes", "GPUs idle at the end"], stragglers),
    "Large numbers": (["hours", *(f"{hours:,}" for hours in SIZES)], large_numbers),
}


def table(name: str) -> str:
    """A table of docs/scale.md, in Markdown."""
    header, rows = TABLES[name]
    lines = [header, ["---"] * len(header), *rows()]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def main() -> None:
    for name in TABLES:
        print(f"{name}\n\n{table(name)}", flush=True)


if __name__ == "__main__":
    main()
