"""Makes NeMo manifests of the Asterisk English prompts, split into training and held out.

The recordings are those of the Debian package asterisk-core-sounds-en-g722, the sentences those of
asterisk-core-sounds-en (core-sounds-en.txt.gz). The split is by sentence, so that no held-out
sentence is spoken in a training clip: the sentences are ordered by the SHA-256 of their normalised
text and the first ones that cover at least ``HELD_OUT_CLIPS`` clips are held out. Sentences with a
clip longer than ``LONGEST_HELD_OUT`` stay in training: one of 73 s would be a quarter of the words.

    python samples/training/prompts.py --sounds /usr/share/asterisk/sounds/en \\
        --sentences /usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz --output prompts
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import re
import shutil
from pathlib import Path

import av
import numpy as np
import soundfile

HELD_OUT_CLIPS = 72
LONGEST_HELD_OUT = 12.0  # seconds
SAMPLE_EVERY = 6  # of the held-out clips, in order of their names, is shown as a sample
SAMPLE_RATE = 16_000

# What the voice says where the sentence list writes it otherwise or not at all.
SPOKEN = {
    'IAX (note: does not say "2")': "i a x",
    "www.asterisk.org": "w w w dot asterisk dot org",
    "H.323": "h three two three",
    "3D": "three d",
    "28.8": "twenty eight point eight",
    "8500": "eight five zero zero",
    "4242": "four two four two",
    "1234": "one two three four",
    "500": "five zero zero",
    "600": "six zero zero",
    "A.M.": "a m",
    "P.M.": "p m",
    "fourtieth": "fortieth",
    "represenatives": "representatives",
    "umute": "unmute",
    "exclaimation": "exclamation",
    "Un-indentified": "unidentified",
    "witheld": "withheld",
    "thru": "through",
    "kilobit": "kilobit",
    "PBX": "p b x",
    "IVR": "i v r",
    "IP": "i p",
    "IAX": "i a x",
    "MGCP": "m g c p",
    "USB": "u s b",
    "#": " pound ",
    "*": " star ",
}
DIGITS = "zero one two three four five six seven eight nine".split()
# Signs that the list repeats in brackets after the words: "dash [-]"; sounds: "[sound of …]".
IN_BRACKETS = re.compile(r"\[[^\]]*\]|\([^)]*\)|<[^>]*>")


def normalise(sentence: str) -> str:
    """Lower-case words a-z and apostrophes, as they are spoken; empty for a sound without words."""
    for written, spoken in SPOKEN.items():
        sentence = sentence.replace(written, spoken)
    sentence = IN_BRACKETS.sub(" ", sentence).lower()
    sentence = re.sub(r"\d", lambda digit: f" {DIGITS[int(digit[0])]} ", sentence)
    sentence = re.sub(r"[^a-z' ]", " ", sentence)
    return " ".join(sentence.split())


def decode(path: Path) -> np.ndarray:
    """The clip as int16 samples at 16 kHz, shape ``(samples,)``."""
    with av.open(str(path), format="g722") as container:
        frames = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    return np.concatenate(frames).astype(np.int16)


def held_out_sentences(rows: list[dict]) -> set[str]:
    """The sentences whose clips are held out, by the rule in the module's docstring."""
    too_long = {row["text"] for row in rows if row["duration"] > LONGEST_HELD_OUT}
    spoken = [row["text"] for row in rows if row["text"] and row["text"] not in too_long]
    chosen: set[str] = set()
    for sentence in sorted(set(spoken), key=lambda s: hashlib.sha256(s.encode()).hexdigest()):
        if sum(s in chosen for s in spoken) >= HELD_OUT_CLIPS:
            break
        chosen.add(sentence)
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sounds", type=Path, required=True)
    parser.add_argument("--sentences", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--samples", type=Path, help="folder for every sixth held-out clip")
    args = parser.parse_args()

    listed: dict[str, str] = {}
    with gzip.open(args.sentences, "rt", encoding="utf-8") as sentences:
        for line in sentences:
            name, colon, sentence = line.strip().partition(":")
            if colon and not line.startswith(";"):
                listed[name] = sentence.strip()

    args.output.mkdir(parents=True, exist_ok=True)
    rows = []
    for path in sorted(args.sounds.rglob("*.g722")):
        name = str(path.relative_to(args.sounds).with_suffix(""))
        samples = decode(path)
        clip = name.replace("/", "_") + ".flac"
        soundfile.write(args.output / clip, samples, SAMPLE_RATE)
        rows.append(
            {
                "audio_filepath": clip,
                "duration": round(len(samples) / SAMPLE_RATE, 4),
                "text": normalise(listed.get(name, "")),
                "prompt": listed.get(name, ""),
            }
        )
    held_out = held_out_sentences(rows)
    for name, chosen in {
        "all": rows,
        "train": [row for row in rows if row["text"] not in held_out],
        "held_out": [row for row in rows if row["text"] in held_out],
    }.items():
        with open(args.output / f"{name}.jsonl", "w", encoding="utf-8") as out:
            for row in chosen:
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
        minutes = sum(row["duration"] for row in chosen) / 60
        print(f"{name}: {len(chosen)} clips, {minutes:.1f} minutes")
    if args.samples:
        args.samples.mkdir(parents=True, exist_ok=True)
        with open(args.samples / "manifest.jsonl", "w", encoding="utf-8") as out:
            for row in [row for row in rows if row["text"] in held_out][::SAMPLE_EVERY]:
                shutil.copy(args.output / row["audio_filepath"], args.samples)
                out.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
