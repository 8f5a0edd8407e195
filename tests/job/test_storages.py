"""The whole job with everything in a bucket or behind HTTP, and with servers that fail."""

from __future__ import annotations

import io
import json
import shutil
import tarfile

import pytest
import soundfile

from beam_asr.storage import retry
from beam_asr.storage.storage import Storage
from tests.support.job_files import read_records, transcripts_of, write_manifest
from tests.support.tiny_models import speechlike

RATE = 16_000


@pytest.fixture(scope="module")
def model(tiny_model):
    return tiny_model("ctc_bpe")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A folder as it is to lie in a bucket: a manifest and its clips."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "clips").mkdir()
    rows = []
    for index in range(8):
        name = f"clips/{index}.{'wav' if index % 2 else 'flac'}"
        soundfile.write(folder / name, speechlike(0.6 + 0.4 * index, seed=index), RATE)
        rows.append({"audio_filepath": name, "n": index})
    rows.append({"audio_filepath": "clips/0.flac", "offset": 0.1, "duration": 0.4, "n": 8})
    write_manifest(folder / "m.jsonl", rows)
    return folder


@pytest.fixture(scope="module")
def expected(corpus, model, tmp_path_factory):
    """What a job on the local disk hears."""
    out = tmp_path_factory.mktemp("expected") / "out"
    return texts(transcripts_of(corpus / "m.jsonl", model, out))


@pytest.fixture(autouse=True)
def small_cache_and_short_waits(monkeypatch, tmp_path):
    monkeypatch.setenv("BEAM_ASR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(retry, "FIRST_WAIT_SECONDS", 0.02)


def texts(records):
    return sorted((record["n"], record["pred_text"]) for record in records)


def upload(storage: Storage, folder, uri: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            storage.write(f"{uri}/{path.relative_to(folder)}", [path.read_bytes()])


def test_the_whole_job_in_a_bucket(bucket, corpus, model, expected, transcribe, tmp_path):
    storage = Storage(bucket.storage_options)
    upload(storage, corpus, f"{bucket.uri}/data")
    storage.write(f"{bucket.uri}/models/tiny.nemo", [model.read_bytes()])
    (tmp_path / "options.json").write_text(json.dumps(bucket.storage_options))
    out = f"{bucket.uri}/out/run 1"
    flags = [
        f"--input={bucket.uri}/data/*.jsonl",
        f"--output={out}",
        f"--model_name={bucket.uri}/models/tiny.nemo",
        f"--storage_options={tmp_path / 'options.json'}",
    ]
    status, printed, errors = transcribe(*flags)
    assert status == 0, errors
    assert f"9 rows: 9 transcribed, 0 failed; 0.005 h of audio; transcripts in {out}" in printed

    names = ["_SUCCESS", "_index", "summary.json", "transcripts-00000-of-00001.jsonl"]
    assert storage.list_names(out) == names
    fs = bucket.filesystem()
    lines = fs.cat_file(f"{out}/{names[-1]}").decode().splitlines()
    assert texts(map(json.loads, lines)) == expected
    summary = fs.cat_file(f"{out}/summary.json").decode()
    for options in bucket.storage_options.values():
        for secret in options.values():
            assert f'"{secret}"' not in summary

    status, _, errors = transcribe(*flags)
    assert (status, "is not empty" in errors) == (2, True)
    assert transcribe(*flags, "--overwrite")[0] == 0
    assert storage.list_names(out) == names
    assert transcribe(*flags, "--resume")[0] == 0


@pytest.mark.parametrize("pattern", ["clips", "clips/*.flac", "clips/{0,2,4,6}.flac"])
def test_audio_in_a_bucket_needs_no_manifest(
    gs_bucket, corpus, model, expected, transcribe, tmp_path, pattern
):
    upload(Storage(gs_bucket.storage_options), corpus, gs_bucket.uri)
    out = tmp_path / "out"
    status, _, errors = transcribe(
        f"--input={gs_bucket.uri}/{pattern}",
        f"--output={out}",
        f"--model_name={model}",
        f"--storage_options={json.dumps(gs_bucket.storage_options)}",
    )
    assert status == 0, errors
    recognized = {
        record["audio_filepath"].rpartition("/")[2][0]: record["pred_text"]
        for record in read_records(out, "transcripts")
    }
    numbers = range(8) if pattern == "clips" else range(0, 8, 2)
    assert recognized == {str(n): dict(expected)[n] for n in numbers}


@pytest.mark.parametrize(
    "behavior",
    [
        {},
        {"ranges": False, "length": "chunked", "head": 405},
        {"status": 503, "times": 2},
        {"cut": 0.5, "times": 1},
    ],
    ids=str,
)
def test_the_whole_job_over_http(
    http_server, corpus, model, expected, transcribe, tmp_path, behavior
):  # fmt: skip
    http_server.files = corpus
    shutil.copy(model, corpus / "tiny.nemo")
    http_server.behave(**behavior)
    out = tmp_path / "out"
    status, _, errors = transcribe(
        f"--input={http_server.url('m.jsonl')}",
        f"--output={out}",
        f"--model_name={http_server.url('tiny.nemo')}",
    )
    assert status == 0, errors
    assert texts(read_records(out, "transcripts")) == expected
    assert read_records(out, "failures") == []
    assert http_server.count("tiny.nemo", "GET") <= 6


def test_each_way_in_which_a_server_fails_costs_its_own_row(
    http_server, forbidden, corpus, model, expected, transcribe, tmp_path
):  # fmt: skip
    http_server.files = corpus
    for name in ("busy", "gone", "refused", "stalls", "cut", "moved"):
        shutil.copy(corpus / "clips/5.wav", corpus / f"{name}.wav")
    http_server.behave("busy.wav", status=503)
    http_server.behave("gone.wav", status=404)
    http_server.behave("refused.wav", status=403)
    http_server.behave("stalls.wav", stall=0.5)
    http_server.behave("cut.wav", cut=0.5)
    http_server.behave("moved.wav", redirect=forbidden.url("secret.wav"))
    elsewhere = [forbidden.url("secret.wav"), "/etc/passwd", "file:///etc/passwd"]
    bad = [http_server.url(f"{name}.wav") for name in ("busy", "gone", "refused", "stalls")]
    bad += [http_server.url("cut.wav"), http_server.url("moved.wav"), *elsewhere]
    listed = write_manifest(tmp_path / "bad.jsonl", [{"audio_filepath": uri} for uri in bad])
    out = tmp_path / "out"
    status, _, errors = transcribe(
        f"--input={http_server.url('m.jsonl')},{listed}",
        f"--output={out}",
        f"--model_name={model}",
        "--audio_timeout=4",
        f"--allowed_audio_prefixes={http_server.address}/",
    )
    assert status == 0, errors
    assert texts(read_records(out, "transcripts")) == expected
    failures = {
        record["audio_filepath"]: record["error"] for record in read_records(out, "failures")
    }
    assert {error["stage"] for error in failures.values()} == {"audio"}
    kinds = [failures[uri]["type"] for uri in bad]
    assert kinds == [
        "ClientResponseError",
        "AudioNotFoundError",
        "AudioAccessError",
        "AudioTimeoutError",
        "ClientPayloadError",
        "RequestNotAllowedError",
        "NotAllowedError",
        "NotAllowedError",
        "NotAllowedError",
    ]
    attempts = [failures[uri]["attempts"] for uri in bad]
    assert attempts == [retry.ATTEMPTS, 1, 1, 1, retry.ATTEMPTS, 1, 1, 1, 1]
    assert "503" in failures[bad[0]]["message"]


def test_a_prefix_that_cannot_be_one_is_refused_at_launch(corpus, model, transcribe, tmp_path):
    flags = [f"--input={corpus / 'm.jsonl'}", f"--output={tmp_path / 'o'}", f"--model_name={model}"]
    status, _, errors = transcribe(*flags, "--allowed_audio_prefixes=gs://")
    assert (status, "'gs://'" in errors) == (2, True)


def test_a_model_that_would_write_elsewhere_when_unpacked_is_refused(corpus, transcribe, tmp_path):
    with tarfile.open(tmp_path / "bad.nemo", "w") as tar:
        member = tarfile.TarInfo("../../escaped")
        member.size = 4
        tar.addfile(member, io.BytesIO(b"evil"))
    status, _, errors = transcribe(
        f"--input={corpus / 'm.jsonl'}",
        f"--output={tmp_path / 'out'}",
        f"--model_name={tmp_path / 'bad.nemo'}",
    )
    assert status == 1
    assert "../../escaped" in errors
    assert "not safe to unpack" in errors
