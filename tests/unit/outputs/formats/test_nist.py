"""CTM and STM as other programs read them."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile

import pytest

from beam_asr.outputs.formats.registry import render
from tests.support.job_files import REPOSITORY
from tests.support.timed_records import (
    TEXTS,
    record_of,
)


def test_ctm_is_read_by_lhotse_with_its_words_times_and_confidences(tmp_path):
    import lhotse  # which takes seconds, for torch

    record = record_of(TEXTS["english"], first=60.25, channel=1)
    for number, word in enumerate(record["words"]):
        word["confidence"] = number / 100
    path = tmp_path / "a.ctm"
    path.write_text(render("ctm", record))
    whole = lhotse.SupervisionSegment("1", "a_clip", 0.0, 100.0, channel=2)
    segments = lhotse.SupervisionSet.from_segments([whole])
    (read,) = segments.with_alignment_from_ctm(path, match_channel=True)
    assert [(item.symbol, item.start, item.end, item.score) for item in read.alignment["word"]] == [
        (word["word"], word["start"], word["end"], word["confidence"]) for word in record["words"]
    ]


def test_words_of_ctm_hold_no_spaces_and_unknown_confidences_are_left_out():
    words = [
        {"word": "New\u00a0York", "start": 1.0, "end": 1.5, "confidence": None},
        {"word": "\n", "start": 1.5, "end": 1.5},
        {"word": "a\x00b", "start": 1.5004, "end": 1.5004, "confidence": float("nan")},
    ]
    record = {"audio_filepath": ";; x\ty.wav", "pred_text": "", "words": words}
    assert render("ctm", record) == "x_y 1 1.000 0.500 New_York\nx_y 1 1.500 0.000 ab\n"


def test_stm_has_a_line_a_sentence():
    record = record_of("One two. Three four", speaker="A. B.")
    record["words"][3] = {"word": "four", "start": 9.0, "end": 9.0}
    assert render("stm", record) == (
        "a_clip 1 A._B. 0.250 1.150 One two.\n"
        "a_clip 1 A._B. 1.250 1.650 Three\n"
        "a_clip 1 A._B. 9.000 9.001 four\n"
    )


def test_a_text_that_begins_like_a_label_is_no_label():
    assert render("stm", record_of("<unk> x")).endswith(" unknown 0.250 1.150 <O> <unk> x\n")


@pytest.fixture(scope="session")
def sclite() -> str:
    """NIST's scoring tool, from Debian's package, which is not installed."""
    if not shutil.which("apt-get"):
        pytest.skip("NIST's sclite comes from Debian's package sctk, and apt-get is not here")
    folder = REPOSITORY / ".cache" / "sctk"
    if not folder.exists():
        with tempfile.TemporaryDirectory() as work:
            # apt drops its rights to a user that must be able to write here.
            os.chmod(work, 0o755)
            download = "apt-get download -o APT::Sandbox::User=root sctk"
            fetch = f"{download} || (apt-get update && {download})"
            command = f"({fetch}) && dpkg -x sctk_*.deb sctk"
            subprocess.run(command, shell=True, cwd=work, check=True)
            folder.parent.mkdir(exist_ok=True)
            shutil.move(f"{work}/sctk", folder)
    return str(folder / "usr/lib/sctk/bin/sclite")


def test_sclite_scores_ctm_by_stm(sclite, tmp_path):
    records = [
        record_of(text, audio_filepath=f"/data/{name}.wav", speaker=name)
        for name, text in TEXTS.items()
        if name != "marks"  # braces mean alternatives there
    ]
    records.append(record_of("<unk> and so on", audio_filepath="/data/label.wav", speaker="label"))
    for format in ("stm", "ctm"):
        content = "".join(render(format, record) for record in records)
        (tmp_path / f"a.{format}").write_text(content, encoding="utf-8")
    # The wrong word is named, so a right score is no accident.
    wrong = (tmp_path / "a.ctm").read_text(encoding="utf-8").replace(" longer.", " shorter.")
    (tmp_path / "wrong.ctm").write_text(wrong, encoding="utf-8")
    for name, errors in {"a.ctm": "0", "wrong.ctm": "1"}.items():
        run = subprocess.run(
            [sclite, "-r", "a.stm", "stm", "-h", name, "ctm", "-o", "rsum", "stdout"],
            cwd=tmp_path,
            check=True,
            capture_output=True,
            text=True,
        )
        total = next(line for line in run.stdout.splitlines() if "Sum" in line).split()
        words = str(sum(len(record["words"]) for record in records))
        assert total[4] == words, run.stdout
        assert total[10] == errors, run.stdout
