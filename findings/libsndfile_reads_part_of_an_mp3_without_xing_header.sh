#!/bin/sh
# libsndfile 1.2.2 (soundfile 0.14.0): of a valid MP3 of a variable bit rate without a Xing header it
# reads only as many frames as it guesses from the bit rate of the first ones and the file's size, and
# says that this is all: no error, no warning. Here that is 2.4 of 6.0 s: most of the first half, quiet,
# and nothing of the loud one. FFmpeg (PyAV 18.1.0) decodes the same file whole. Without a Xing header are the MP3s of
# recorders and streams that cannot go back to the start of what they have written; the frames
# themselves carry all that a decoder needs (ISO/IEC 11172-3). Where the guess is too long, as
# for a file with a large picture in its ID3 tag, `frames` is too large instead.
#
# Output seen:
#   encoded: 6.00 s
#   PyAV decodes 6.08 s
#   soundfile: frames says 2.43 s, read() gives 2.43 s, and no error
#
# Exits 0 while that is so, 1 when it has changed.
set -e
T="$(mktemp -d)"; trap 'rm -rf "$T"' EXIT; cd "$T"
python3 -m venv "$T/v"
"$T/v/bin/pip" -q install soundfile==0.14.0 av==18.1.0 numpy==2.2.6
"$T/v/bin/python" - <<'PY'
import sys
import av
import numpy as np
import soundfile

RATE, SIZE = 16_000, 576
noise = np.random.default_rng(0).normal(0, 1, 6 * RATE).astype("float32")
samples = noise * np.repeat([2e-4, 0.2], 3 * RATE).astype("float32")
with av.open("a.mp3", "w", options={"write_xing": "0", "id3v2_version": "0"}) as out:
    stream = out.add_stream("mp3", rate=RATE, layout="mono",
                            options={"flags": "+qscale", "global_quality": "590"})
    stream.codec_context.format = "fltp"
    for start in range(0, len(samples), SIZE):
        block = np.ascontiguousarray(samples[None, start : start + SIZE])
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = RATE, start
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))
with av.open("a.mp3") as file:
    decoded = sum(frame.samples for frame in file.decode(audio=0))
with soundfile.SoundFile("a.mp3") as file:
    stated, read = file.frames, len(file.read())
print(f"encoded: {len(samples) / RATE:.2f} s")
print(f"PyAV decodes {decoded / RATE:.2f} s")
print(f"soundfile: frames says {stated / RATE:.2f} s, read() gives {read / RATE:.2f} s, and no error")
sys.exit(not (decoded >= len(samples) and stated == read < 0.9 * len(samples)))
PY
