"""Makes NeMo manifests of the prompts of Asterisk, split into training and held out.

The recordings are those of the Debian package asterisk-core-sounds-en-g722, the sentences those of
asterisk-core-sounds-en (core-sounds-en.txt.gz), or of the same packages for another language. The
split is by sentence, so that no held-out sentence is spoken in a training clip: the sentences are
ordered by the SHA-256 of their normalized text and the first ones that cover at least
``HELD_OUT_CLIPS`` clips are held out. Sentences with a clip longer than ``LONGEST_HELD_OUT`` stay
in training: one of 73 s would be a quarter of the words.

    python samples/training/prompts.py --sounds /usr/share/asterisk/sounds/en \\
        --sentences /usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz --output prompts

With ``--extra_sounds`` the same voice's extra sounds (asterisk-extra-sounds-en-g722) are written to
``extra.jsonl``, for training only: the split is that of the core sounds, and a sentence that is
held out is left out.
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
from languages import LANGUAGES, Language

HELD_OUT_CLIPS = 72
LONGEST_HELD_OUT = 12.0  # seconds
LONGEST_EXTRA = 16.0  # seconds
MOST_LETTERS_A_SECOND = 22  # of a clip whose sentence in the list is not what the voice says
SAMPLE_RATE = 16_000


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


def sentences_of(path: Path) -> dict[str, str]:
    """Returns what each clip says, by its name, from a list of sentences, gzipped or not."""
    opened = gzip.open if path.suffix == ".gz" else open
    listed: dict[str, str] = {}
    with opened(path, "rt", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            name, colon, sentence = line.strip().partition(":")
            if colon and not line.startswith(";"):
                listed[name] = sentence.strip()
    return listed


def extra_rows(args: argparse.Namespace, language: Language, held_out: set[str]) -> list[dict]:
    """Writes the clips of the extra sounds whose words are known, and returns their rows."""
    listed = sentences_of(args.extra_sentences)
    rows = []
    for name, sentence in sorted(listed.items()):
        path = args.extra_sounds / f"{name}.g722"
        text = language.normalize(sentence)
        unknown = re.search(r"\d\d|[A-Z]\.?[A-Z]|[\[<*]|silence", sentence)
        if unknown or not text or text in held_out or not path.is_file():
            continue
        samples = decode(path)
        seconds = len(samples) / SAMPLE_RATE
        if seconds > LONGEST_EXTRA or not 2 < len(text) / seconds < MOST_LETTERS_A_SECOND:
            continue
        clip = args.output / f"extra_{name.replace('/', '_')}.flac"
        rows.append(write_clip(samples, clip) | {"text": text})
    return rows


def write_clip(samples: np.ndarray, path: Path) -> dict:
    soundfile.write(path, samples, SAMPLE_RATE)
    return {"audio_filepath": path.name, "duration": round(len(samples) / SAMPLE_RATE, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sounds", type=Path, required=True)
    parser.add_argument("--sentences", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--extra_sounds", type=Path, help="folder of more clips, for training")
    parser.add_argument("--extra_sentences", type=Path, help="list of what these clips say")
    parser.add_argument(
        "--language",
        choices=LANGUAGES,
        help="written in each row; English, unwritten, if not given",
    )
    parser.add_argument("--samples", type=Path, help="folder for some of the held-out clips")
    parser.add_argument(
        "--sample_every", type=int, default=6, help="of the held-out clips, in order of their names"
    )
    args = parser.parse_args()
    language = LANGUAGES[args.language or "en"]

    listed = sentences_of(args.sentences)
    listed |= language.listed

    args.output.mkdir(parents=True, exist_ok=True)
    rows = []
    for path in sorted(args.sounds.rglob("*.g722")):
        name = str(path.relative_to(args.sounds).with_suffix(""))
        sentence = listed.get(name, "")
        if not language.known(sentence):
            continue
        clip = args.output / (name.replace("/", "_") + ".flac")
        rows.append(
            write_clip(decode(path), clip)
            | {"text": language.normalize(sentence), "prompt": sentence}
            | ({"lang": args.language} if args.language else {})
        )
    held_out = held_out_sentences(rows)
    extra = extra_rows(args, language, held_out) if args.extra_sounds else []
    for name, chosen in {
        "all": rows,
        "train": [row for row in rows if row["text"] not in held_out],
        "held_out": [row for row in rows if row["text"] in held_out],
        **({"extra": extra} if extra else {}),
    }.items():
        with open(args.output / f"{name}.jsonl", "w", encoding="utf-8") as out:
            for row in chosen:
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
        minutes = sum(row["duration"] for row in chosen) / 60
        print(f"{name}: {len(chosen)} clips, {minutes:.1f} minutes")
    if args.samples:
        args.samples.mkdir(parents=True, exist_ok=True)
        with open(args.samples / "manifest.jsonl", "w", encoding="utf-8") as out:
            for row in [row for row in rows if row["text"] in held_out][:: args.sample_every]:
                shutil.copy(args.output / row["audio_filepath"], args.samples)
                out.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
