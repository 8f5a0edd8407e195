#!/bin/sh
# libsndfile 1.2.2 (soundfile 0.13.1): XI (FastTracker) and WVE (Psion) take any sample rate and give back another one.
# Neither format has a field for the rate. Both open, write and close without an error at 16000 Hz; XI is then read
# at 44100 Hz (3 s become 1.09 s, speech 2.75 times too fast) and WVE at 8000 Hz (3 s become 6 s).
# Output seen:
#   XI: written at 16000 Hz, 3.00 s; read at 44100 Hz, 1.09 s
#   WVE: written at 16000 Hz, 3.00 s; read at 8000 Hz, 6.00 s
# Exits 0 while this is so.
set -e
T="$(mktemp -d)"; trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/v"; "$T/v/bin/pip" -q install soundfile==0.13.1 numpy==2.2.6
cd "$T"; "$T/v/bin/python" - <<'PY'
import sys
import numpy as np
import soundfile as sf
samples = 0.3 * np.sin(2 * np.pi * 300 * np.arange(48000) / 16000)
read = {}
for format, subtype in (("XI", "DPCM_16"), ("WVE", "ALAW")):
    assert sf.check_format(format, subtype)
    sf.write("x", samples, 16000, format=format, subtype=subtype)
    info = sf.info("x")
    read[format] = info.samplerate
    print(f"{format}: written at 16000 Hz, 3.00 s; read at {info.samplerate} Hz, {info.duration:.2f} s")
sys.exit(read != {"XI": 44100, "WVE": 8000})
PY
