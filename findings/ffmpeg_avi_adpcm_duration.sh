#!/bin/sh
# FFmpeg (PyAV 18.1.0): an AVI of 10 s of ADPCM, by its own muxer, states almost three hours to its own demuxer.
# Good guess: the stated duration is that of the sound, within a block, as it is with PCM.
# Seen: the muxer counts blocks, and the demuxer takes the count for samples of a block each. Packets
# have the right times, and decoding returns 10 s; only the duration is a thousand times too long.
# Output seen:
#   pcm_s16le: 10.1 s stated, 10.0 s decoded
#   adpcm_ima_wav: 10350.0 s stated, 10.1 s decoded
#   adpcm_ms: 10350.0 s stated, 10.1 s decoded
# Exits 0 while this is so.
set -e
T="$(mktemp -d)"; trap 'rm -rf "$T"' EXIT; cd "$T"
python3 -m venv "$T/v"; "$T/v/bin/pip" -q install av==18.1.0 numpy==2.2.6
"$T/v/bin/python" - <<'PY'
import sys

import av
import numpy as np

RATE = 16_000
sound = (9_830 * np.sin(2 * np.pi * 300 * np.arange(10 * RATE) / RATE)).astype(np.int16)
seen = {}
for codec in ("pcm_s16le", "adpcm_ima_wav", "adpcm_ms"):
    with av.open("a.avi", "w") as file:
        stream = file.add_stream(codec, rate=RATE, layout="mono")
        for at in range(0, len(sound), 1024):
            frame = av.AudioFrame.from_ndarray(sound[None, at : at + 1024], format="s16", layout="mono")
            frame.sample_rate, frame.pts = RATE, at
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    with av.open("a.avi") as file:
        stream = file.streams.audio[0]
        stated = float(stream.duration * stream.time_base)
        count = sum(frame.samples for frame in file.decode(stream)) / RATE
    seen[codec] = (stated > 10_000, 9.9 < count < 10.2)
    print(f"{codec}: {stated:.1f} s stated, {count:.1f} s decoded")
sys.exit(seen != {"pcm_s16le": (False, True), "adpcm_ima_wav": (True, True), "adpcm_ms": (True, True)})
PY
