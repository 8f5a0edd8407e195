#!/bin/sh
# libsndfile 1.2.2 (soundfile 0.14.0): the first seek in an open Ogg Vorbis is exact, and later ones are not.
# Good guess: a seek ends at the same sample wherever the file was before.
# Seen: after a seek that does not start from sample 0, the samples are not those of that place, and
# no error says so. A seek to 0 before each seek makes all of them exact, as does a newly opened file.
# Output seen:
#   seek after seek: 48 of 51 seeks end elsewhere
#   seek after seek(0): 0 of 51 seeks end elsewhere
#   seek in a newly opened file: 0 of 51 seeks end elsewhere
# Exits 0 while this is so.
set -e
T="$(mktemp -d)"; trap 'rm -rf "$T"' EXIT; cd "$T"
python3 -m venv "$T/v"; "$T/v/bin/pip" -q install soundfile==0.14.0 numpy==2.2.6
"$T/v/bin/python" - <<'PY'
import sys

import numpy as np
import soundfile

noise = np.random.default_rng(0).standard_normal(96_000)
soundfile.write("a.ogg", np.convolve(noise, np.ones(8) / 40, "same"), 16_000, subtype="VORBIS")
whole, _ = soundfile.read("a.ogg")
places = range(1_000, 90_000, 1_777)


def wrong(file, place):
    file.seek(place)
    return np.abs(file.read(500) - whole[place : place + 500]).max() > 1e-3


with soundfile.SoundFile("a.ogg") as file:
    after_seek = sum(wrong(file, place) for place in places)
after_zero = 0
with soundfile.SoundFile("a.ogg") as file:
    for place in places:
        file.seek(0)
        after_zero += wrong(file, place)
opened = 0
for place in places:
    with soundfile.SoundFile("a.ogg") as file:
        opened += wrong(file, place)
print(f"seek after seek: {after_seek} of {len(places)} seeks end elsewhere")
print(f"seek after seek(0): {after_zero} of {len(places)} seeks end elsewhere")
print(f"seek in a newly opened file: {opened} of {len(places)} seeks end elsewhere")
sys.exit(not (after_seek > 40 and after_zero == opened == 0))
PY
