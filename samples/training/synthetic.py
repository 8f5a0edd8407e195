"""Makes a NeMo manifest of synthetic speech, so that the model hears words that no prompt says.

The texts are complete lists of what telephone systems speak (numbers, ordinals, letters, days,
months, times) and sentences from Debian's fortunes; the voices are those of flite and espeak-ng.

    apt-get install flite espeak-ng fortunes
    python samples/training/synthetic.py --output synthetic --clips 6000
"""

from __future__ import annotations

import argparse
import json
import random
import re
import string
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import inflect
import soundfile
import soxr

FORTUNES = Path("/usr/share/games/fortunes")
FLITE_VOICES = ["slt", "rms", "awb", "kal16"]
ESPEAK_VOICES = ["en-us+f2", "en-us+f3", "en-us+f4", "en-us+m3", "en-gb+f2"]
SAMPLE_RATE = 16_000
INFLECT = inflect.engine()
DAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
MONTHS = (
    "january february march april may june july august september october november december"
).split()


def words(text: str) -> str:
    return " ".join(re.sub(r"[^a-z' ]", " ", text.lower().replace("-", " ")).split())


def spoken_lists(rng: random.Random) -> list[str]:
    """Numbers, ordinals, letters, dates and times, as phrases of one to four of them."""
    numbers = [INFLECT.number_to_words(n) for n in range(101)]
    single = [words(number) for number in numbers + "hundred thousand million billion".split()]
    single += [words(INFLECT.ordinal(number)) for number in single]
    single += list(string.ascii_lowercase) + DAYS + MONTHS
    single += [f"{INFLECT.number_to_words(hour)} o'clock" for hour in range(1, 13)]
    return [" ".join(rng.sample(single, rng.choice([1, 1, 2, 3, 4]))) for _ in range(2000)]


def sentences(rng: random.Random) -> list[str]:
    found = set()
    for path in FORTUNES.iterdir():
        if path.suffix:
            continue
        text = path.read_text(encoding="utf-8", errors="ignore").replace("\n", " ")
        for sentence in re.split(r"[.!?;:%]|--", text):
            if re.fullmatch(r"[A-Za-z',\- ]+", sentence) and 3 <= len(sentence.split()) <= 14:
                found.add(words(sentence))
    return rng.sample(sorted(found), len(found))


def speak(text: str, voice: str, rng: random.Random, path: Path) -> None:
    wav = path.with_suffix(".wav")
    if voice in FLITE_VOICES:
        stretch = f"duration_stretch={rng.uniform(0.85, 1.2):.2f}"
        command = ["flite", "-voice", voice, "--setf", stretch, "-t", text, "-o", str(wav)]
    else:
        command = ["espeak-ng", "-v", voice, "-s", str(rng.randint(130, 190))]
        command += ["-p", str(rng.randint(35, 70)), "-w", str(wav), text]
    subprocess.run(command, check=True, capture_output=True)
    samples, rate = soundfile.read(wav, dtype="float32")
    wav.unlink()
    soundfile.write(path, soxr.resample(samples, rate, SAMPLE_RATE), SAMPLE_RATE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=6000)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    texts = (spoken_lists(rng) + sentences(rng))[: args.clips]
    voices = [rng.choice(FLITE_VOICES * 2 + ESPEAK_VOICES) for _ in texts]

    def make(index: int) -> dict:
        path = args.output / f"{index:05d}.flac"
        speak(texts[index], voices[index], random.Random(index), path)
        seconds = soundfile.info(path).duration
        row = {"audio_filepath": path.name, "duration": round(seconds, 4), "text": texts[index]}
        return row | {"speaker": voices[index]}

    with ThreadPoolExecutor(4) as pool, open(args.output / "manifest.jsonl", "w") as out:
        for row in pool.map(make, range(len(texts))):
            out.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
