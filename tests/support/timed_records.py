"""Records of words with times, and readers of the files that are made of them."""

from __future__ import annotations

from pathlib import Path

import praatio.textgrid
from hypothesis import strategies as st

TEXTS = {
    "english": "Well, this is a test. It has two sentences, and the second one is longer.",
    "marks": 'He said "a --> b" & <i>left</i>. 1 00:00:01,000 --> 00:00:02,000 {x} \\N "" end',
    "hebrew": "שלום לכם. מה שלומכם היום?",
    "czech": "Příliš žluťoučký kůň úpěl ďábelské ódy.",
}


def record_of(text: str, first: float = 0.25, **fields) -> dict:
    """A transcript of words of 0.4 seconds each half a second."""
    words = [
        {"word": word, "start": first + 0.5 * number, "end": first + 0.5 * number + 0.4}
        for number, word in enumerate(text.split())
    ]
    return {"audio_filepath": "/data/a clip.wav", **fields, "pred_text": text, "words": words}


def read_grid(text: str, folder: Path) -> praatio.textgrid.Textgrid:
    path = folder / "a.TextGrid"
    path.write_text(text, encoding="utf-8")
    return praatio.textgrid.openTextgrid(str(path), includeEmptyIntervals=True)


words = st.lists(
    st.tuples(
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
        | st.sampled_from(["-->", "<b>", "&amp;", '"', '""', "a", "end."]),
        st.floats(0, 3) | st.just(0.0),
        st.floats(0, 2) | st.just(0.0),
    ),
    max_size=12,
)


def record_with(said) -> dict:
    record, time = record_of(" ".join(word for word, _, _ in said)), 0.0
    record["words"] = []
    for word, gap, length in said:
        record["words"].append({"word": word, "start": time + gap, "end": time + gap + length})
        time += gap + length
    return record


SECRET = "s3cr3t"


HOSTILE = {
    "../../../etc/passwd": "passwd",
    "/etc/shadow": "shadow",
    "..": "audio",
    "/": "audio",
    "a/..": "audio",
    "~/../x.wav": "x",
    "..\\..\\x.wav": "x",
    "C:\\a\\b.wav": "b",
    "a\0b.wav": "a_b",
    "a\nb\r.wav": "a_b",
    "-rf.wav": "rf",
    ".hidden.wav": "hidden",
    "CON.wav": "_CON",
    "/x/nul.tar.gz": "_nul.tar",
    "lpt1.wav": "_lpt1",
    "日本語.wav": "audio",
    "Žluťoučký kůň.wav": "Zlutoucky_kun",
    "x" * 5000 + ".wav": "x" * 60,
    "$(rm -rf ~);`x`.wav": "rm_-rf_x",
    "https://host/a%20b.wav?token=" + SECRET: "a_b",
    "https://host/a.wav?token=" + SECRET * 1000 + "/x/y.wav": "a",
    "https://host/a.wav%3Ftoken=" + SECRET: "a",
    "https://host/%2e%2e%2f%2e%2e%2fx.wav#" + SECRET: "x",
    "https://user:" + SECRET + "@host/a.wav": "a",
    "https://" + SECRET + "@host": "audio",
    "https://host/?" + SECRET: "audio",
    "gs://bucket/a/b.c.wav": "b.c",
    "zip://in/a.wav::gs://bucket/c.zip": "a",
    "zip://../../a.wav::gs://bucket/c.zip": "a",
    "simplecache::https://host/b.wav?" + SECRET: "b",
    "data:audio/wav;base64," + SECRET: "audio",
    "": "audio",
}
