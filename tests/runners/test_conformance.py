"""The same cases on every runner; their table is in docs/runners.md."""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections import Counter
from pathlib import Path

import jiwer
import numpy as np
import pytest
import soundfile

from beam_asr.transcripts.normalizers import normalizer
from tests.faults.model_faults import MARKED
from tests.support.job_files import REPOSITORY, SAMPLES, read_records, write_manifest
from tests.support.tiny_models import speechlike

RATE = 16_000
CLIPS = 40
LONG = "long.flac"
SAID = ("One, two!", "", "Ünïcode", None, "It, the of lls")  # references of the rows
KEEP = "text is None or cer < 2"
ASKED = (
    "--max_segment_seconds=8",
    "--timestamps=word",
    "--reference_key=text",
    "--normalizer=basic",
    f"--keep={KEEP}",
)
RUNNERS = (
    "DirectRunner, threads",
    "DirectRunner, processes",
    "portable embed, worker pool",
    "Prism",
    "Flink embedded",
    "Flink standalone, worker pool",
)
# Of the same cluster, with the image's entry point for each worker: rows only.
BY_PROCESS = "Flink standalone, processes"
CASES = (
    "every row once, the same records",
    "a long row's words and times, the same",
    "a model load for each process",
    "failures of their own class",
    "shards and compression as requested",
    "tars, and rows whose audio is in them",
    "no rows",
    "too many failures",
    "no such model",
    "workers that die, and resuming elsewhere",
)
PAGE = REPOSITORY / "docs" / "runners.md"
passed: set[tuple[str, str]] = set()


@pytest.fixture(params=RUNNERS)
def on(request, runner):
    return runner(request.param)


every_runner = pytest.mark.parametrize("on", [*RUNNERS, BY_PROCESS], indirect=True)


@pytest.fixture
def passes(on, request):
    """Notes a case for the table, if its test gets to its end."""
    noted = []
    yield lambda case: noted.append(CASES.index(case))
    if request.node.rep_call.passed:
        passed.update((on.name, CASES[each]) for each in noted)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, tiny_model):
    """Rows of all sorts: good ones, of parts of files, equal ones, and some that fail.

    Gives their manifest, the model of most, and that of the rows in Spanish.
    """
    folder = tmp_path_factory.mktemp("corpus")
    rows: list[dict | str] = []
    for index in range(CLIPS):
        seconds = 0.4 + 0.1 * (index % 17)
        path = folder / f"{index:03d}.flac"
        soundfile.write(path, speechlike(seconds, seed=index), RATE)
        row = {"audio_filepath": path.name, "duration": seconds, "größe": ["ü", index]}
        lang = {} if index % 3 else {"lang": "es"}
        rows.append({**row, "text": SAID[index % len(SAID)], **lang})
    rows += [{"audio_filepath": "016.flac", "offset": 0.5, "duration": 0.75}]
    rows += [dict(rows[3])] * 2
    soundfile.write(folder / LONG, prompts_with_pauses(), RATE)
    rows += [{"audio_filepath": LONG}, {"audio_filepath": LONG, "offset": 9.0, "duration": 16.0}]
    (folder / "text.wav").write_text("this is no audio")
    rows += [{"audio_filepath": "text.wav"}, {"audio_filepath": "missing.wav"}, "{no row", "{}"]
    models = tiny_model("ctc_bpe"), tiny_model("rnnt_bpe")
    return write_manifest(folder / "m.jsonl", rows), *models


def prompts_with_pauses() -> np.ndarray:
    """Half a minute of recorded speech, float32 of shape (samples,)."""
    pause = np.zeros(RATE // 2, np.float32)
    clips = [soundfile.read(path, dtype="float32")[0] for path in sorted(SAMPLES.glob("*.flac"))]
    return np.concatenate([part for clip in clips for part in (clip, pause)])


def records(out: Path) -> Counter[str]:
    kinds = ("transcripts", "failures", "filtered")
    found = [record for kind in kinds for record in read_records(out, kind)]
    for record in found:
        record.pop("manifest", None)
        if "error" in record:  # its message names the manifest, too
            record["error"] = {key: record["error"][key] for key in ("stage", "type")}
    return Counter(json.dumps(record, sort_keys=True) for record in found)


@pytest.fixture(scope="module")
def finished(fork_server, corpus, tmp_path_factory) -> Path:
    """The output folder of a job on the default runner."""
    out = tmp_path_factory.mktemp("expected") / "out"
    run = fork_server.run(*given(corpus), f"--output={out}", *ASKED)
    assert run.status() == 0, run.output()
    return out


@pytest.fixture(scope="module")
def expected(finished):
    found = records(finished)
    assert sum(found.values()) == CLIPS + 1 + 2 + 2 + 4
    assert filtered(found)
    return found


def given(corpus: tuple[Path, Path, Path]) -> list[str]:
    manifest, model, spanish = corpus
    return [f"--input={manifest}", f"--model_name={model}", f"--models=es={spanish}"]


def filtered(found: Counter[str]) -> int:
    return sum(count for record, count in found.items() if "filtered" in json.loads(record))


@every_runner
def test_rows(on, corpus, expected, passes, tmp_path):
    out = tmp_path / "out"
    flags = ["--num_shards=3", "--compression=gzip", f"--output={out}", *ASKED]
    ended = on.run(*given(corpus), *flags)
    assert ended.status == 0, ended.said
    # Not always the last line: Prism may still say that it is done.
    apart = filtered(expected)
    said = f"^49 rows: {45 - apart} transcribed, 4 failed .*, {apart} filtered"
    assert re.search(said, ended.said, re.MULTILINE), ended.said
    assert (out / "_SUCCESS").exists()
    assert not (out / "_journal").exists()
    assert records(out) == expected
    summary = json.loads((out / "summary.json").read_text())
    ends = [summary[each] for each in ("transcribed", "failed", "filtered")]
    assert (summary["rows_in"], ends) == (49, [45 - apart, 4, apart])
    assert_scored(summary["scores"], read_records(out, "transcripts"))
    passes(CASES[0])
    assert summary["long_rows"] == 2
    assert summary["segments"] >= 6
    whole, part = (
        each["words"]
        for each in sorted(read_records(out, "transcripts"), key=lambda each: "offset" in each)
        if each["audio_filepath"] == LONG
    )
    assert part[0]["start"] > 8
    assert part[-1]["end"] <= 25.0
    assert whole[0]["start"] < 8
    passes(CASES[1])
    loads = Counter(ended.loads)
    assert 1 <= len(loads) <= 2
    assert max(loads.values()) <= 2  # there are two models
    assert summary["model_evictions"] == 0
    assert Counter(ended.decoded).total() == 43 + summary["segments"]
    passes(CASES[2])
    types = Counter(each["error"]["type"] for each in read_records(out, "failures"))
    assert types == {
        "NotAudioError": 1,
        "AudioNotFoundError": 1,
        "NotJsonError": 1,
        "MissingAudioError": 1,
    }
    passes(CASES[3])
    names = {each.name for each in out.iterdir()}
    assert {f"transcripts-0000{n}-of-00003.jsonl.gz" for n in range(3)} <= names
    passes(CASES[4])


def assert_scored(scores: dict, transcripts: list[dict]) -> None:
    """The rates of a summary are those of jiwer over the transcripts that were written."""
    basic = normalizer("basic")
    scored = [each for each in transcripts if each.get("text") is not None]
    assert scores["without_reference"] == len(transcripts) - len(scored)
    of_model = {
        name: [each for each in scored if each["model"] == name] for name in scores["by_model"]
    }
    assert len(of_model) == 2
    pairs = [(scores["corpus"], scored), *((scores["by_model"][m], of_model[m]) for m in of_model)]
    for score, rows in pairs:
        texts = [[basic(each[key]) for each in rows] for key in ("text", "pred_text")]
        assert score["wer"] == pytest.approx(jiwer.wer(*texts), abs=1e-4)
        assert score["cer"] == pytest.approx(jiwer.cer(*texts), abs=1e-4)


def test_tars(on, corpus, expected, passes, tmp_path):
    manifest, model, _ = corpus
    folder = manifest.parent
    lines = [json.loads(line) for line in manifest.read_text().splitlines()[:CLIPS]]
    for shard in range(2):
        with tarfile.open(tmp_path / f"audio_{shard}.tar", "w") as tar:
            for line in lines[shard::2]:
                tar.add(folder / line["audio_filepath"], line["audio_filepath"])
        rows = [{**line, "shard_id": shard} for line in lines[shard::2]]
        write_manifest(tmp_path / f"m_{shard}.jsonl", rows)
    out = tmp_path / "out"
    ended = on.run(
        f"--input={tmp_path}/m__OP_0..1_CL_.jsonl",
        f"--tarred_audio={tmp_path}/audio__OP_0..1_CL_.tar",
        f"--model_name={model}",
        f"--output={out}",
    )
    assert ended.status == 0, ended.said
    assert 1 <= len(ended.loads) == len(set(ended.loads)) <= 2
    texts = {each["audio_filepath"]: each["pred_text"] for each in read_records(out, "transcripts")}
    assert len(texts) == CLIPS
    of_this_model = {
        each["audio_filepath"]: each["pred_text"]
        for each in map(json.loads, expected)
        if each.get("model") == str(model) and "error" not in each
        if "offset" not in each and each["audio_filepath"] != LONG
    }
    assert len(of_this_model) > CLIPS // 2
    assert of_this_model.items() <= texts.items()
    passes(CASES[5])


@pytest.mark.parametrize("on", ["Prism", "Flink standalone, worker pool"], indirect=True)
def test_results_are_filtered_again(on, runner, finished, tmp_path):
    command = [finished, "--normalizer=none", "--keep=cer < 1.5", "--formats=txt,nemo"]
    found = {}
    for where in (runner(RUNNERS[0]), on):
        out = tmp_path / where.name
        ended = where.run(*command, f"--output={out}", command="filter")
        assert ended.status == 0, ended.said
        assert not ended.loads
        found[where.name] = records(out), json.loads((out / "summary.json").read_text())["scores"]
        texts = {path.name: path.read_text() for path in (out / "txt").iterdir()}
        assert texts.keys() == {
            Path(each["exports"]["txt"]).name for each in read_records(out, "transcripts")
        }
    assert found[on.name] == found[RUNNERS[0]]
    assert filtered(found[on.name][0])


def test_no_rows(on, corpus, passes, tmp_path):
    empty = write_manifest(tmp_path / "empty.jsonl", [])
    out = tmp_path / "out"
    ended = on.run(f"--input={empty}", f"--model_name={corpus[1]}", f"--output={out}")
    assert ended.status == 0, ended.said
    assert (out / "_SUCCESS").exists()
    assert (out / "transcripts-00000-of-00001.jsonl").read_bytes() == b""
    passes(CASES[6])


def test_too_many_failures(on, corpus, passes, tmp_path):
    bad = write_manifest(
        tmp_path / "bad.jsonl", [{"audio_filepath": f"{n}.wav"} for n in range(150)]
    )
    out = tmp_path / "out"
    ended = on.run(f"--input={bad}", f"--model_name={corpus[1]}", f"--output={out}")
    assert ended.status == 1, ended.said
    assert re.search("job failed: .*max_failure_fraction", ended.said), ended.said
    assert not (out / "_SUCCESS").exists()
    passes(CASES[7])


def test_no_such_model(on, corpus, passes, tmp_path):
    broken = tmp_path / "broken.nemo"
    broken.write_text("no model")
    out = tmp_path / "out"
    ended = on.run(f"--input={corpus[0]}", f"--model_name={broken}", f"--output={out}")
    assert ended.status == 1, ended.said
    assert re.search(rf"job failed: .*cannot load the model '{broken}'", ended.said), ended.said
    assert not (out / "_SUCCESS").exists()
    passes(CASES[8])


def test_workers_that_die(on, runner, corpus, expected, passes, tmp_path):
    manifest, *models = corpus
    marked = manifest.parent / "marked.wav"
    soundfile.write(marked, speechlike(MARKED / RATE, 99)[:MARKED], RATE)
    rows = [*manifest.read_text().splitlines(), json.dumps({"audio_filepath": marked.name})]
    manifest = write_manifest(manifest.parent / "marked.jsonl", rows)
    out = tmp_path / "out"
    flags = [*given((manifest, *models)), f"--output={out}", "--max_batch_seconds=2", *ASKED]
    ended = on.run(*flags, fault="lost_card", scale=1 / 200)
    assert ended.status == 1, ended.said
    assert not (out / "_SUCCESS").exists()
    elsewhere = runner(RUNNERS[0])
    again = elsewhere.run(*flags, "--resume")
    assert again.status == 0, again.said
    more = {key: n for key, n in records(out).items() if marked.name not in key}
    assert more == expected
    passes(CASES[9])


def test_the_table_is_that_of_the_run():
    """With WRITE_TABLE=1 it is written."""
    skipped = [each for each in RUNNERS if not any(name == each for name, _ in passed)]
    if skipped:
        pytest.skip(f"not run: {', '.join(skipped)}")
    rows = [f"| {case} | {' | '.join(_mark(each, case) for each in RUNNERS)} |" for case in CASES]
    table = "\n".join([
        f"| case | {' | '.join(RUNNERS)} |", f"| --- |{' --- |' * len(RUNNERS)}", *rows
    ])  # fmt: skip
    marked = re.compile(r"(?<=<!-- conformance -->\n).*?(?=\n<!-- -->)", re.DOTALL)
    page = PAGE.read_text(encoding="utf-8")
    assert len(marked.findall(page)) == 1
    if os.environ.get("WRITE_TABLE"):
        PAGE.write_text(marked.sub(lambda _: table, page), encoding="utf-8")
    else:
        assert marked.search(page)[0] == table


def _mark(name: str, case: str) -> str:
    return "passes" if (name, case) in passed else "-"
