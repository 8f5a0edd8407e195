#!/bin/sh
# FFmpeg (PyAV 18.1.0): after a seek in a WAV of Yamaha's ADPCM, the sound never becomes right again.
# Good guess: as with IMA ADPCM in WAV, samples after a seek are those of a decoding from the start,
# at the latest a block later, since a seek ends at a block.
# Seen: a block of Yamaha's ADPCM does not hold the state that it starts with, and FFmpeg seeks to one all the
# same. Four seconds later the sound is still nearly gone. No error is raised, and the timestamps are right.
# Output seen:
#   adpcm_ima_wav: 4 s after a seek, 100 % of the level
#   adpcm_yamaha: 4 s after a seek, 3 % of the level
# Exits 0 while this is so.
set -e
T="$(mktemp -d)"; trap 'rm -rf "$T"' EXIT; cd "$T"
python3 -m venv "$T/v"; "$T/v/bin/pip" -q install av==18.1.0 numpy==2.2.6
"$T/v/bin/python" - <<'PY'
import sys

import av
import numpy as np

RATE = 16_000
seconds = np.arange(10 * RATE) / RATE
sound = (9_830 * np.sin(2 * np.pi * (300 + 200 * np.floor(seconds)) * seconds)).astype(np.int16)


def decoded(path, start):
    with av.open(path) as file:
        stream = file.streams.audio[0]
        if start:
            file.seek(int(start / stream.time_base), stream=stream)
        frames = list(file.decode(stream))
        return np.concatenate([frame.to_ndarray().astype(float).ravel() for frame in frames])


kept = {}
for codec in ("adpcm_ima_wav", "adpcm_yamaha"):
    with av.open("a.wav", "w") as file:
        stream = file.add_stream(codec, rate=RATE, layout="mono")
        for at in range(0, len(sound), 1024):
            frame = av.AudioFrame.from_ndarray(sound[None, at : at + 1024], format="s16", layout="mono")
            frame.sample_rate, frame.pts = RATE, at
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    loudness = [decoded("a.wav", start)[-RATE:].std() for start in (0, 5)]
    kept[codec] = loudness[1] / loudness[0]
    print(f"{codec}: 4 s after a seek, {100 * kept[codec]:.0f} % of the level")
sys.exit(not (kept["adpcm_ima_wav"] > 0.9 and kept["adpcm_yamaha"] < 0.5))
PY
