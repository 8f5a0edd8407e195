#!/bin/sh
# libsndfile 1.2.2 (soundfile 0.14.0): after a seek in an MP3 of a variable bit rate, the first samples
# are not those that reading from the start gives at the same place, by up to a quarter of full scale.
# Its documentation says that sf_seek() is to the sample, and of other lossy formats (Ogg Vorbis) it
# is. The frames before the place are needed for their bits (the bit reservoir of MP3), and too few of
# them are decoded. Nothing is raised; libmpg123 writes "part2_3_length ... too large for available bit
# count" on stderr. A seek to half a second before, whose samples are dropped, gives the right ones.
#
# Output seen:
#   bit rate mode CONSTANT: differs by at most 0.0000 after a seek, 0.0000 with half a second before
#   bit rate mode VARIABLE: differs by at most 0.2776 after a seek, 0.0000 with half a second before
#
# Exits 0 while that is so, 1 when it has changed.
set -e
T="$(mktemp -d)"; trap 'rm -rf "$T"' EXIT; cd "$T"
python3 -m venv "$T/v"
"$T/v/bin/pip" -q install soundfile==0.14.0 numpy==2.2.6
"$T/v/bin/python" - 2>"$T/stderr" <<'PY'
import sys
import numpy as np
import soundfile

RATE = 16_000
t = np.arange(6 * RATE) / RATE
sweep = 0.4 * np.sin(2 * np.pi * (200 * t + 150 * t**2))
samples = (sweep + 0.001 * np.random.default_rng(0).standard_normal(len(t))).astype("float32")
worst = {}
for mode in ("CONSTANT", "VARIABLE"):
    soundfile.write("a.mp3", samples, RATE, bitrate_mode=mode, compression_level=0.5)
    whole, _ = soundfile.read("a.mp3", dtype="float32")
    errors = [0.0, 0.0]
    for start in range(8_000, 80_000, 4_001):
        for which, before in enumerate((0, RATE // 2)):
            with soundfile.SoundFile("a.mp3") as file:
                file.seek(start - before)
                part = file.read(before + 2_000, dtype="float32")[before:]
            errors[which] = max(errors[which], float(np.abs(part - whole[start : start + 2_000]).max()))
    worst[mode] = errors
    print(f"bit rate mode {mode}: differs by at most {errors[0]:.4f} after a seek, "
          f"{errors[1]:.4f} with half a second before")
as_seen = worst["VARIABLE"][0] > 0.05 and worst["VARIABLE"][1] < 1e-4 and worst["CONSTANT"][0] < 1e-4
sys.exit(not as_seen)
PY
