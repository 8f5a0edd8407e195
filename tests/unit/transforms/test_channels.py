"""Rows and their channels through whole pipelines: texts, records, formats, counts and resume.

The engine knows two voices and says which of them it hears, so that a text tells the channel.
"""

from __future__ import annotations

import copy
import io
import json
import tarfile
from collections import Counter

import apache_beam as beam
import numpy as np
import pytest
import soundfile
from lhotse import CutSet

from beam_asr import ReadManifest, ScoreTranscripts, Transcribe, WriteManifest
from beam_asr.models import engine
from beam_asr.outputs.journal import Journal
from beam_asr.records.outcome import Recognition
from tests.support.audio_files import RATE, encode
from tests.support.job_files import read_records, write_manifest
from tests.support.tiny_models import speechlike

SECONDS = 3.0
AGENT, CUSTOMER = speechlike(45.0, 1), speechlike(45.0, 2)
SIZE = 2**20  # of the spectra: 45 s, and 20 s of a segment
VOICES = {
    name: (np.tile(np.pad(voice, (0, SIZE - len(voice))), 2), np.fft.rfft(voice, SIZE))
    for name, voice in {"agent": AGENT, "customer": CUSTOMER}.items()
}


class Voices:
    """A model that recognizes who speaks; it fails on voices in ``fails_on``."""

    sample_rate = RATE
    default_batch_seconds = max_clip_seconds = 60.0
    segment_seconds = 20.0
    batch_overhead_seconds = 0.0
    weight_bytes, prompt_fields = 0, frozenset()
    fails_on = ""
    recognized = 0

    def warm_up(self, batch_size):
        pass

    def encode(self, waveforms, _prompt):
        self.recognized += len(waveforms)
        return [self.text(waveform) for waveform in waveforms]

    def text(self, waveform) -> str:
        spectrum = np.conj(np.fft.rfft(waveform, SIZE))
        likeness = {}
        for name, (voice, spectrum_of_voice) in VOICES.items():
            found = np.fft.irfft(spectrum * spectrum_of_voice, SIZE)
            at = int(np.abs(found).argmax())
            part = voice[at : at + len(waveform)]
            norms = np.linalg.norm(part) * np.linalg.norm(waveform) + 1e-9
            likeness[name] = float(np.abs(found).max() / norms)
        best = max(likeness.values())
        least = best if best > 0.85 else 0.5  # one voice alone, or a mixture
        return " ".join(name for name, value in likeness.items() if value >= least)

    def decode(self, texts):
        if self.fails_on and self.fails_on in texts:
            raise ValueError("not this voice")
        return [
            Recognition(text, tuple(f"▁{word}" for word in text.split()), *self.times(text))
            for text in texts
        ]

    def times(self, text):
        count = len(text.split())
        return tuple(0.1 + number for number in range(count)), tuple(
            0.5 + number for number in range(count)
        )

    def describe(self):
        return {"model": "voices"}


@pytest.fixture(autouse=True)
def model(monkeypatch):
    from beam_asr.models.serving import pool

    voices = Voices()
    monkeypatch.setattr(engine, "load", lambda *_, **__: voices)
    monkeypatch.setattr(pool, "pool", type(pool.pool)())
    return voices


def call(seconds=SECONDS, start=0.0) -> np.ndarray:
    part = slice(round(start * RATE), round((start + seconds) * RATE))
    return np.stack([AGENT[part], CUSTOMER[part]], axis=1)


def write(path, samples):
    if path.suffix == ".m4a":
        encode(path, samples, codec="aac", layout="stereo" if samples.ndim == 2 else "mono")
    else:
        soundfile.write(path, samples, RATE)
    return path


def run(source, out, *, reference=None, formats=(), resume=False, finish=True, **settings):
    journal = Journal(str(out), resume=resume)
    tarred = settings.get("tarred_audio") is not None
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        recognized = pipeline | ReadManifest(str(source))
        recognized |= Transcribe("any", journal=journal, **settings)
        if reference is not None:
            recognized |= ScoreTranscripts(reference)
        if finish:
            recognized | WriteManifest(
                str(out), journal=journal, formats=formats, tarred=tarred, max_failure_fraction=1
            )
    return read_records(out, "transcripts"), read_records(out, "failures")


def summary(out) -> dict:
    return json.loads((out / "summary.json").read_text())


def by_channel(records) -> dict:
    return {(record.get("channel"), record["pred_text"]) for record in records}


def nist(out, kind) -> set[tuple[str, str]]:
    """The channel and the text of each file of CTM or STM."""
    lines = [path.read_text().splitlines() for path in (out / kind).iterdir()]
    return {(each.split()[1], each.split()[-1]) for file in lines for each in file}


EACH = {(0, "agent"), (1, "customer")}


@pytest.mark.parametrize("ending", ["wav", "ogg", "m4a"])
def test_a_row_has_the_channel_that_it_names(tmp_path, ending):
    write(tmp_path / f"call.{ending}", call())
    named = [0, 1, [1], "1", 1.0, "average", None, "", -1, [0, 1], "left", True, 7, 1.5]
    rows = [
        {"audio_filepath": f"call.{ending}", "channel": channel, "number": number}
        for number, channel in enumerate(named)
    ]
    listed = write_manifest(tmp_path / "m.jsonl", rows)
    done, failed = run(listed, tmp_path / "out", formats=["ctm", "stm"], timestamps="word")
    texts = {record["number"]: record["pred_text"] for record in done}
    one, both = "customer", "agent customer"
    assert texts == {0: "agent", 1: one, 2: one, 3: one, 4: one, 5: both, 6: both, 7: both}
    kinds = {record["number"]: record["error"]["type"] for record in failed}
    assert kinds == {
        **dict.fromkeys([8, 9, 10, 11, 13], "BadFieldError"),
        12: "ChannelError",
    }
    messages = {record["number"]: record["error"]["message"] for record in failed}
    assert "`channel_key`" in messages[10]
    assert "channel=each" in messages[9]
    assert all(record["channel"] == named[record["number"]] for record in done)
    for kind in ("ctm", "stm"):
        assert nist(tmp_path / "out", kind) == {
            ("1", "agent"), ("2", "customer"), ("1", "customer"),  # the last one of the average
        }  # fmt: skip


def test_the_setting_is_for_rows_without_a_channel_and_is_said(tmp_path):
    write(tmp_path / "call.flac", call())
    write(tmp_path / "mono.flac", call()[:, 0])
    rows = [{"audio_filepath": "call.flac"}, {"audio_filepath": "call.flac", "channel": 0}]
    listed = write_manifest(tmp_path / "m.jsonl", rows)
    done, _ = run(listed, tmp_path / "out", channel=1, formats=["ctm", "nemo"], timestamps="word")
    assert by_channel(done) == EACH
    assert {record["file_channels"] for record in done} == {2}
    assert nist(tmp_path / "out", "ctm") == {("1", "agent"), ("2", "customer")}
    assert summary(tmp_path / "out")["nemo"] == {"rows": 0, "left_out": {"one_channel": 2}}

    listed = write_manifest(
        tmp_path / "mono.jsonl", [{"audio_filepath": "mono.flac", "channel": 0}]
    )
    done, _ = run(listed, tmp_path / "mono", formats=["nemo"])
    assert "file_channels" not in done[0]
    assert summary(tmp_path / "mono")["nemo"] == {"rows": 1, "left_out": {}}


def test_another_field_names_the_channel(tmp_path):
    write(tmp_path / "call.wav", call())
    row = {"audio_filepath": "call.wav", "channel": "whatsapp"}
    listed = write_manifest(tmp_path / "m.jsonl", [row, {**row, "side": 1}])
    done, failed = run(listed, tmp_path / "out", channel_key="side", channel="each")
    assert failed == []
    assert Counter((r["channel"], r["side"], r["pred_text"]) for r in done) == {
        ("whatsapp", 0, "agent"): 1,
        ("whatsapp", 1, "customer"): 2,
    }


@pytest.mark.parametrize("ending", ["flac", "ogg", "m4a"])
def test_each_channel_is_a_record(tmp_path, ending):
    for name in ("a", "b"):
        write(tmp_path / f"{name}.{ending}", call(start=10 if name == "b" else 0))
    write(tmp_path / "mono.wav", call()[:, 1])
    rows = [
        *({"audio_filepath": f"{name}.{ending}", "text": "agent"} for name in ("a", "b")),
        {"audio_filepath": "mono.wav", "text": "customer"},
        {"audio_filepath": f"a.{ending}", "channel": 1, "text": "customer"},
        {"audio_filepath": "missing.wav"},
    ]
    listed, out = write_manifest(tmp_path / "m.jsonl", rows), tmp_path / "out"
    done, failed = run(
        listed,
        out,
        reference="text",
        channel="each",
        timestamps="word",
        formats=["srt", "stm", "ctm", "nemo", "documents"],
    )
    assert Counter((r["audio_filepath"][0], r.get("channel"), r["pred_text"]) for r in done) == {
        ("a", 0, "agent"): 1,
        ("a", 1, "customer"): 2,
        ("b", 0, "agent"): 1,
        ("b", 1, "customer"): 1,
        ("m", None, "customer"): 1,
    }
    assert [record["audio_filepath"] for record in failed] == ["missing.wav"]
    assert "channel" not in failed[0]
    counts = summary(out)
    assert (counts["rows_in"], counts["further_channels"]) == (5, 2)
    assert (counts["transcribed"], counts["failed"]) == (6, 1)
    exports = [path for record in done for path in record["exports"].values()]
    assert len(exports) == len(set(exports)) == 3 * 6
    assert nist(out, "stm") == nist(out, "ctm") == {
        ("1", "agent"), ("2", "customer"), ("1", "customer"),  # the last one of the mono file
    }  # fmt: skip
    # What both sides said is no reference of one, and no text to train the average with.
    assert {r["audio_filepath"][0]: r["wer"] for r in done if "wer" in r} == {"a": 0, "m": 0}
    assert counts["scores"]["without_reference"] == 4
    assert counts["nemo"] == {"rows": 1, "left_out": {"one_channel": 5}}
    documents = [
        json.loads(line)["id"]
        for path in (out / "documents").iterdir()
        for line in path.read_text().splitlines()
    ]
    assert len(set(documents)) == 6


def test_one_channel_fails_alone_and_can_be_input_again(tmp_path, model):
    write(tmp_path / "call.wav", call())
    model.fails_on = "customer"
    listed = write_manifest(tmp_path / "m.jsonl", [{"audio_filepath": str(tmp_path / "call.wav")}])
    done, failed = run(listed, tmp_path / "out", channel="each")
    assert by_channel(done) == {(0, "agent")}
    assert [(r["channel"], r["error"]["type"]) for r in failed] == [(1, "ValueError")]
    model.fails_on = ""
    again = next((tmp_path / "out").glob("failures-*"))
    done, failed = run(again, tmp_path / "again", channel="each")
    assert by_channel(done) == {(1, "customer")}
    assert failed == []


def test_a_mute_side_is_a_transcript_and_silence_a_failure(tmp_path):
    mute = call()
    mute[:, 1] = 0
    write(tmp_path / "mute.wav", mute)
    write(tmp_path / "silent.flac", 0 * mute)
    rows = [{"audio_filepath": "mute.wav"}, {"audio_filepath": "silent.flac"}]
    listed = write_manifest(tmp_path / "m.jsonl", rows)
    for segmentation in ("vad", "fixed"):
        out = tmp_path / segmentation
        done, failed = run(listed, out, channel="each", segmentation=segmentation)
        assert by_channel(done) == {(0, "agent"), (1, "")}
        assert [r["channel"] for r in done if r.get("no_speech")] == [1]
        assert [r["error"]["type"] for r in failed] == ["SilentAudioError"]


@pytest.mark.parametrize("segmentation", ["vad", "fixed"])
def test_long_rows_have_segments_for_each_channel(tmp_path, segmentation):
    samples = call(40.0)
    samples[: 20 * RATE, 1] = 0  # the customer speaks in the second half alone
    write(tmp_path / "call.flac", samples)
    listed = write_manifest(tmp_path / "m.jsonl", [{"audio_filepath": "call.flac", "lang": "en"}])
    out = tmp_path / "out"
    settings = {"segmentation": segmentation, "max_segment_seconds": 8.0, "timestamps": "word"}
    done, failed = run(listed, out, channel="each", formats=["stm"], **settings)
    assert failed == []
    words = {record["channel"]: record["words"] for record in done}
    assert {word["word"] for word in words[0]} == {"agent"}
    assert {word["word"] for word in words[1]} == {"customer"}
    assert words[0][0]["start"] < 10
    assert words[1][0]["start"] > 15
    assert {record["split_channels"] for record in done} == {2}
    counts = summary(out)
    assert (counts["rows_in"], counts["further_channels"], counts["long_rows"]) == (1, 1, 2)


def tar(path, members: dict[str, bytes]):
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def content_of(samples, format="FLAC") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format=format)
    return file.getvalue()


def test_members_of_a_tarred_data_set(tmp_path):
    contents = {"a.flac": call(), "long.flac": call(30.0), "mono.flac": call()[:, 0]}
    tar(tmp_path / "audio_0.tar", {name: content_of(each) for name, each in contents.items()})
    rows = [{"audio_filepath": name, "shard_id": 0, "duration": 3.0} for name in contents]
    rows[1]["duration"] = 30.0
    rows.append({**rows[0], "channel": 1})
    listed = write_manifest(tmp_path / "manifest_0.json", rows)
    settings = {"tarred_audio": str(tmp_path / "audio_0.tar"), "max_segment_seconds": 8.0}
    out = tmp_path / "out"
    done, failed = run(listed, out, channel="each", formats=["nemo"], **settings)
    assert failed == []
    texts = Counter(
        (r["audio_filepath"], r.get("channel"), *sorted(set(r["pred_text"].split()))) for r in done
    )
    assert texts == {
        ("a.flac", 0, "agent"): 1,
        ("a.flac", 1, "customer"): 2,
        ("long.flac", 0, "agent"): 1,
        ("long.flac", 1, "customer"): 1,
        ("mono.flac", None, "agent"): 1,
    }
    counts = summary(out)
    assert (counts["rows_in"], counts["further_channels"]) == (4, 2)
    lines = [json.loads(line) for line in (out / "nemo/manifest_0.json").read_text().splitlines()]
    assert [line["text"] for line in lines if not line.get("_skipme")] == ["agent"]
    assert {line["audio_filepath"] for line in lines} == set(contents)


def test_samples_of_a_webdataset(tmp_path):
    members = {
        "a.flac": content_of(call()),
        "a.json": b'{"speaker": "x"}',
        "b.ogg": content_of(call(), "OGG"),
        "b.json": b'{"channel": 1}',
        "c.flac": content_of(call()),
        "c.json": b'{"channel": "whatsapp"}',
    }
    tar(tmp_path / "data.tar", members)
    done, failed = run(tmp_path / "data.tar", tmp_path / "out", channel="each")
    assert Counter((r.get("speaker"), r["channel"], r["pred_text"]) for r in done) == {
        ("x", 0, "agent"): 1,
        ("x", 1, "customer"): 1,
        (None, 1, "customer"): 1,
    }
    assert [r["error"]["type"] for r in failed] == ["BadFieldError"]
    assert summary(tmp_path / "out")["further_channels"] == 1


def cut(path, channel, kind, **fields):
    source = {"type": "file", "channels": [4, 2], "source": str(path)}
    recording = {
        "id": "r", "sources": [source], "sampling_rate": RATE, "num_samples": 3 * RATE,
        "duration": 3.0, "channel_ids": [4, 2],
    }  # fmt: skip
    times = {"start": 0.0, "duration": 3.0}
    return {"id": "c", "type": kind, "channel": channel, "recording": recording, **times, **fields}


def test_cuts_become_those_of_their_channels(tmp_path):
    """The channels of the recording are numbered 4 and 2, in the order of the file."""
    path = write(tmp_path / "call.wav", call())
    spoken = [
        {"id": f"s{channel}", "recording_id": "r", "start": 0.0, "duration": 3.0, "text": text,
         "channel": channel}
        for channel, text in ((4, "from the agent"), (2, "from the customer"), ([2, 4], "of both"))
    ]  # fmt: skip
    cuts = [cut(path, [2, 4], "MultiCut", supervisions=spoken), cut(path, 2, "MonoCut", id="d")]
    listed, out = write_manifest(tmp_path / "cuts.jsonl", cuts), tmp_path / "out"
    done, failed = run(listed, out, channel="each", formats=["ctm", "nemo"], timestamps="word")
    assert failed == []
    assert {(r["id"], r["channel"], r["pred_text"]) for r in done} == {
        ("c-4", 4, "agent"),
        ("c-2", 2, "customer"),
        ("d", 2, "customer"),
    }
    assert nist(out, "ctm") == {("1", "agent"), ("2", "customer")}
    assert summary(out)["nemo"] == {"rows": 0, "left_out": {"one_channel": 3}}
    (whole,) = CutSet.from_dicts([copy.deepcopy(cuts[0])])
    for record in done:
        if record["id"] != "d":
            expected = whole.with_channels(record["channel"])
            (ours,) = CutSet.from_dicts([{k: record[k] for k in cuts[0]}])
            assert ours.id == expected.id
            assert ours.channel == expected.channel
            assert ours.supervisions == expected.supervisions


def test_each_model_has_its_channel(tmp_path):
    write(tmp_path / "call.wav", call())
    rows = [{"audio_filepath": "call.wav", "lang": lang} for lang in ("en", "es", "fr")]
    listed = write_manifest(tmp_path / "m.jsonl", rows)
    models = {
        "en": {"model_name": "one", "channel": "each"},
        "es": {"model_name": "two", "channel": 1},
        "fr": "three",
    }
    out = tmp_path / "out"
    done, failed = run(listed, out, models={"models": models}, formats=["ctm"], timestamps="word")
    assert failed == []
    assert {(r["lang"], r.get("channel"), r["pred_text"]) for r in done} == {
        ("en", 0, "agent"),
        ("en", 1, "customer"),
        ("es", 1, "customer"),
        ("fr", None, "agent customer"),
    }
    assert ("2", "customer") in nist(out, "ctm")
    assert summary(out)["further_channels"] == 1


def test_a_run_goes_on_with_the_rows_whose_channels_are_not_done(tmp_path, model):
    write(tmp_path / "both.wav", call())
    write(tmp_path / "half.flac", call(start=20))
    write(tmp_path / "long.flac", call(30.0, start=10))
    names = ("both.wav", "half.flac", "long.flac")
    both = write_manifest(tmp_path / "m.jsonl", [{"audio_filepath": name} for name in names])
    out, settings = tmp_path / "out", {"channel": "each", "max_segment_seconds": 8.0}
    run(both, out, finish=False, **settings)
    before, whole = model.recognized, run(both, tmp_path / "whole", **settings)[0]
    assert model.recognized == 2 * before
    # What is done is not read again: the files are gone.
    for name in ("both.wav", "half.flac"):
        (tmp_path / name).unlink()
    done, failed = run(both, out, resume=True, **settings)
    assert failed == []
    assert model.recognized == 2 * before
    key = lambda record: (record["audio_filepath"], record["channel"])  # noqa: E731
    assert sorted(done, key=key) == sorted(whole, key=key)
    counts = summary(out)
    assert (counts["rows_in"], counts["further_channels"]) == (3, 3)
    assert counts["resumed"] == counts["transcribed"] == 6


@pytest.mark.parametrize("retry", [True, False])
def test_a_channel_that_failed_is_tried_again_with_its_row(tmp_path, model, retry):
    write(tmp_path / "call.wav", call())
    listed = write_manifest(tmp_path / "m.jsonl", [{"audio_filepath": "call.wav"}])
    out = tmp_path / "out"
    model.fails_on = "customer"
    run(listed, out, finish=False, channel="each")
    model.fails_on = ""
    journal = Journal(str(out), resume=True, retry_failures=retry)
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        recognized = pipeline | ReadManifest(str(listed))
        recognized |= Transcribe("any", journal=journal, channel="each")
        recognized | WriteManifest(str(out), journal=journal, max_failure_fraction=1)
    done, failed = read_records(out, "transcripts"), read_records(out, "failures")
    assert by_channel(done) == (EACH if retry else {(0, "agent")})
    assert [record["channel"] for record in failed] == ([] if retry else [1])
    assert summary(out)["further_channels"] == 1


@pytest.mark.parametrize("ending", ["wav", "ogg"])
def test_channels_that_cancel_are_said(tmp_path, ending):
    agent = AGENT[: 30 * RATE]
    write(tmp_path / f"call.{ending}", np.stack([agent, -agent], axis=1))
    rows = [
        {"audio_filepath": f"call.{ending}"},
        {"audio_filepath": f"call.{ending}", "offset": 3.0, "duration": 4.0},
        {"audio_filepath": f"call.{ending}", "channel": 1, "duration": 4.0},
    ]
    listed, out = write_manifest(tmp_path / "m.jsonl", rows), tmp_path / "out"
    settings = {"max_segment_seconds": 8.0, "timestamps": "word", "formats": ["ctm", "nemo"]}
    done, failed = run(listed, out, **settings)
    assert failed == []
    assert {word for record in done for word in record["pred_text"].split()} == {"agent"}
    assert Counter((r["channel"], r["file_channels"], r.get("channels_cancel")) for r in done) == {
        (done[0]["channel"] if "channels_cancel" in done[0] else 0, 2, True): 2,
        (1, 2, None): 1,
    }
    assert summary(out)["nemo"]["left_out"] == {"one_channel": 3}


def test_lost_channels_stop_the_job(tmp_path, monkeypatch):
    """A channel that came out nowhere is noticed, as a row is."""
    from beam_asr.transforms.job_context import JobContext

    write(tmp_path / "call.wav", call())
    listed = write_manifest(tmp_path / "m.jsonl", [{"audio_filepath": "call.wav"}])
    events = JobContext.channels_ended
    monkeypatch.setattr(
        JobContext, "channels_ended", lambda *args, **kwargs: list(events(*args, **kwargs))[:-1]
    )
    with pytest.raises(
        Exception, match="1 rows with 1 further channels went in, but 1 transcripts"
    ):
        run(listed, tmp_path / "out", channel="each")
    assert not (tmp_path / "out" / "_SUCCESS").exists()
