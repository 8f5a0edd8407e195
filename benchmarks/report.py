"""Makes the report of 100,000 rows, and opens it in a browser: seconds, megabytes.

python -m benchmarks.report [--rows=100000] [--normalizer=basic] [--keep=FOLDER]
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from beam_asr.cli import main
from beam_asr.outputs.shards import TRANSCRIPTS, encode, numbered
from beam_asr.settings import RECORDS_A_SHARD
from beam_asr.transcripts import quality, scoring
from beam_asr.transcripts.normalizers import normalizer
from tests.support.job_files import SAMPLES

RECORDING_SECONDS = 60.0
WORDS = 20_000  # of the vocabulary, whose frequencies are those of a language (Zipf)


def vocabulary(chance: random.Random) -> list[str]:
    """Returns words that can be pronounced."""
    syllables = [one + two for one in "bdfgklmnprstvz" for two in ("a", "e", "i", "o", "u", "en")]
    words: dict[str, None] = {}
    while len(words) < WORDS:
        words["".join(chance.choices(syllables, k=chance.choice((1, 2, 2, 3, 3, 4))))] = None
    return list(words)


def records(rows: int, normalizer_name: str, audio: Path):
    """Yields transcripts with scores and signals, of which about one word of ten is wrong."""
    chance = random.Random(0)
    words = vocabulary(chance)
    weights = [1 / (place + 10) for place in range(len(words))]
    spoken = chance.choices(words, weights, k=2_000_000)
    normalize = normalizer(normalizer_name)
    for row in range(rows):
        start, count = chance.randrange(len(spoken) - 60), chance.choice((1, 4, 8, 12, 16, 24, 40))
        said = spoken[start : start + count]
        wrong = chance.choice((0.0, 0.0, 0.05, 0.1, 0.3))
        recognized = [w if chance.random() >= wrong else chance.choice(spoken) for w in said]
        if row % 997 == 0:
            recognized += recognized[-1:] * chance.randrange(5, 40)
        text, seconds = " ".join(recognized), round(count * chance.uniform(0.25, 0.5) + 0.3, 3)
        reference = " ".join(said).capitalize() + "."
        score = scoring.score(reference, text, normalize, seconds)
        yield (
            {
                "audio_filepath": str(audio),
                "offset": round(chance.uniform(0, RECORDING_SECONDS - seconds), 3),
                "duration": seconds,
                "text": reference,
                "lang": ("en", "de", "fr", "es")[row % 4],
                "row": row,
                "pred_text": text,
                "confidence": round(chance.betavariate(8, 1.5), 3),
                **scoring.fields(score),
                **quality.signals(text, seconds),
            },
            score,
        )


def write_run(folder: Path, rows: int, normalizer_name: str) -> None:
    """Writes an output folder as a job would."""
    folder.mkdir(parents=True)
    audio = folder.parent / "speech.flac"
    speech = [soundfile.read(each, dtype="int16") for each in sorted(SAMPLES.glob("*.flac"))]
    rate = speech[0][1]
    joined = np.concatenate([samples for samples, _ in speech] * 9)
    soundfile.write(audio, joined[: int(rate * RECORDING_SECONDS)], rate)
    shards = -(-rows // RECORDS_A_SHARD)
    files = [
        (folder / f"{numbered(TRANSCRIPTS, shard, shards)}.jsonl").open("wb")
        for shard in range(shards)
    ]
    corpus, languages = scoring.Score(), {}
    for number, (record, score) in enumerate(records(rows, normalizer_name, audio)):
        files[number % shards].write(encode(record))
        corpus += score
        language = record["lang"]
        languages[language] = languages.get(language, scoring.Score()) + score
    for file in files:
        file.close()
    summary = {
        "rows_in": rows,
        "transcribed": rows,
        "failed": 0,
        "audio_hours": corpus.seconds / 3600,
        "rtfx_end_to_end": 512.4,
        "scores": {
            "reference_key": "text",
            "normalizer": normalizer_name,
            "without_reference": 0,
            "corpus": scoring.summary(corpus),
            "by_language": {name: scoring.summary(each) for name, each in languages.items()},
        },
        "options": {"input": ["manifest.jsonl"], "output": str(folder), "quality": True},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "_SUCCESS").touch()


def seconds_to_open(page: Path) -> float:
    """Returns the seconds from the request of a page to the end of its script."""
    from tests.support.chromium import launched

    with launched() as browser:
        tab = browser.new_page()
        tab.goto("about:blank")
        start = time.perf_counter()
        tab.goto(page.as_uri())
        tab.wait_for_selector("#rows tbody tr")
        return time.perf_counter() - start


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--normalizer", default="basic")
    parser.add_argument("--keep", type=Path, help="folder for the run and its report")
    arguments = parser.parse_args()
    work = arguments.keep or Path(tempfile.mkdtemp())
    out = work / "out"
    if not out.exists():
        write_run(out, arguments.rows, arguments.normalizer)
    start, before = time.perf_counter(), time.process_time()
    assert main.main(["report", str(out)]) == 0
    wall, cpu = time.perf_counter() - start, time.process_time() - before
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    page = out / "report.html"
    opened = seconds_to_open(page)
    print(
        f"{arguments.rows:,} rows: made in {wall:.1f} s ({cpu:.1f} s of CPU, {memory:.0f} MiB), "
        f"{page.stat().st_size / 1e6:.1f} MB, opened in {opened:.2f} s"
    )
    if arguments.keep is None:
        shutil.rmtree(work)


if __name__ == "__main__":
    run()
