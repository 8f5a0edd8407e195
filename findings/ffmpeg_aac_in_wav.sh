#!/bin/sh
# FFmpeg (of PyAV 18.1.0): its WAV muxer takes AAC and writes a file that its own WAV demuxer opens and cannot decode.
# Writing raises no error. The same samples, encoded in the same way, come back from MP4.
# Output seen:
#   mp4: 48000 samples written, 49152 read
#   wav: 48000 samples written, 0 read, InvalidDataError
# Exits 0 while this is so.
set -e
T="$(mktemp -d)"; trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/v"; "$T/v/bin/pip" -q install av==18.1.0 numpy==2.2.6
cd "$T"; "$T/v/bin/python" - <<'PY'
import sys
import av
import numpy as np
samples = (0.3 * np.sin(2 * np.pi * 300 * np.arange(48000) / 16000)).astype(np.float32)
seen = {}
for container in ("mp4", "wav"):
    with av.open(f"x.{container}", "w", format=container) as file:
        stream = file.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = 16000
        for packet in stream.encode(frame) + stream.encode(None):
            file.mux(packet)
    count, error = 0, ""
    try:
        with av.open(f"x.{container}") as file:
            for frame in file.decode(audio=0):
                count += frame.samples
    except av.FFmpegError as raised:
        error = f", {type(raised).__name__}"
    seen[container] = (count > 0, bool(error))
    print(f"{container}: {len(samples)} samples written, {count} read{error}")
sys.exit(seen != {"mp4": (True, False), "wav": (False, True)})
PY
