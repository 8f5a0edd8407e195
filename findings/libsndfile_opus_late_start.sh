#!/bin/sh
# libsndfile 1.2.2 (soundfile 0.14.0) decodes an Ogg Opus whose clock does not begin at 0, as every
# recording of a live stream has it (RFC 7845, section 4.3), with its pre-skip left in, until the first
# seek, even one to where it is.
#
# Good guess: reading a file, and seeking to 0 and reading it again, give the same samples.
# Seen: the first read is late by the 312 samples that the header says to drop, and lacks as many at
# the end; after seek(0) all is right. Where the clock begins at 0, both reads are the same.
#   clock from 0 s: the first read is late by 0 samples
#   clock from 4 s: the first read is late by 312 samples
# Exits 1 if that changes.
set -e
T="$(mktemp -d)"; trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/v"; "$T/v/bin/pip" -q install soundfile==0.14.0 av==18.1.0 numpy==2.2.6
"$T/v/bin/python" - "$T" <<'RUN'
import sys
from fractions import Fraction

import av
import numpy as np
import soundfile

random = np.random.default_rng(0)
sound = np.convolve(random.standard_normal(4 * 48000), np.ones(8) / 40, "same").astype(np.float32)
late = {}
for start in (0, 4):
    path = f"{sys.argv[1]}/{start}.ogg"
    with av.open(path, "w") as output:
        stream = output.add_stream("libopus", rate=48000, layout="mono")
        for at in range(0, len(sound), 960):
            frame = av.AudioFrame.from_ndarray(sound[None, at : at + 960], format="flt", layout="mono")
            frame.sample_rate, frame.time_base = 48000, Fraction(1, 48000)
            frame.pts = start * 48000 + at
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    with soundfile.SoundFile(path) as file:
        first = file.read(dtype="float32")
        file.seek(0)
        second = file.read(dtype="float32")
    assert len(first) == len(second) == len(sound)
    size = 2 * len(sound)
    match = np.fft.irfft(np.fft.rfft(first, size) * np.conj(np.fft.rfft(second, size)), size)
    late[start] = int(match.argmax())
    print(f"clock from {start} s: the first read is late by {late[start]} samples")
sys.exit(late != {0: 0, 4: 312})
RUN
