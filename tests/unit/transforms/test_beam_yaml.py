"""The steps for Beam YAML, run as its users run them."""

# Annotations are no strings here: Beam's schemas read those of `Call`.

import json
import re
import shlex
from pathlib import Path
from typing import NamedTuple, Optional

import apache_beam as beam
import numpy as np
import pytest
import soundfile
import yaml
from apache_beam.typehints.schemas import named_fields_from_element_type
from apache_beam.utils.timestamp import Timestamp
from apache_beam.yaml import main

from beam_asr.transforms import beam_yaml, transcribe
from beam_asr.transforms.beam_yaml import ReadNeMoManifest, TranscribeNeMo
from tests.support.job_files import REPOSITORY, SAMPLE_MODEL, SAMPLES, read_records, transcripts_of

DOCS = (REPOSITORY / "docs/beam.md").read_text(encoding="utf-8")
RATE = 16_000
PROVIDERS = Path(beam_yaml.__file__).parent / "yaml_provider.yaml"

given: list = []  # what a pipeline gave: FnApiRunner runs it in this process


def give(element):
    given.append(element)


class Call(NamedTuple):
    audio_filepath: str
    number: Optional[int]  # noqa: UP045  (Beam's schemas do not know `int | None`)
    when: Timestamp
    raw: bytes
    duration: Optional[float]  # noqa: UP045
    pred_text: str


beam.coders.registry.register_coder(Call, beam.coders.RowCoder)


def run(pipeline: str, tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_text(pipeline, encoding="utf-8")
    main.run([f"--yaml_pipeline_file={file}", "--runner=FnApiRunner"])


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """What the job makes of the samples, by the audio's name."""
    out = tmp_path_factory.mktemp("job") / "out"
    rows = transcripts_of(SAMPLES / "manifest.jsonl", SAMPLE_MODEL, out)
    return {Path(row["audio_filepath"]).name: row["pred_text"] for row in rows}


def by_name(rows: list[dict]) -> dict[str, str]:
    return {Path(row["audio_filepath"]).name: row["pred_text"] for row in rows}


def test_the_example_of_the_docs_gives_the_texts_of_the_job(texts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "samples").symlink_to(SAMPLES)
    (example,) = re.findall(r"```yaml\n(.*?)```", DOCS, re.DOTALL)
    (command,) = re.findall(r"^\$ (python .*)", DOCS, re.MULTILINE)
    (tmp_path / "pipeline.yaml").write_text(example, encoding="utf-8")

    main.run(shlex.split(command)[3:])

    rows = read_records(tmp_path / "out/transcripts", "transcripts")
    assert by_name(rows) == texts
    assert all(row["prompt"] and row["text"] and row["duration"] > 0 for row in rows)
    for row in rows:
        assert [word["word"] for word in row["words"]] == row["pred_text"].split()
    assert (tmp_path / "out/failures/_SUCCESS").exists()
    assert read_records(tmp_path / "out/failures", "transcripts") == []


def test_rows_are_transcribed_and_broken_ones_go_to_the_errors(texts, tmp_path):
    names = ["digits_4.flac", "missing.flac", "vm-INBOX.flac"]
    rows = [
        {"audio": str(SAMPLES / name), "number": index, "lang": "en"}
        for index, name in enumerate(names)
    ]

    run(
        f"""
        providers: [{{include: {PROVIDERS}}}]
        pipeline:
          transforms:
            - type: Create
              config: {{elements: {json.dumps(rows)}}}
            - type: TranscribeNeMo
              input: Create
              config:
                model_name: {SAMPLE_MODEL}
                filepath_key: audio
                pred_text_key: recognized
                device: cpu
                batch_size: 2
                segmentation: none
                error_handling: {{output: failures}}
            - type: MapToFields
              name: Shorter
              input: TranscribeNeMo
              config:
                language: python
                fields: {{recognized: recognized, next: number + 1}}
            - type: WriteNeMoManifest
              name: Good
              input: Shorter
              config: {{path: {tmp_path / "good"}}}
            - type: WriteNeMoManifest
              name: Bad
              input: TranscribeNeMo.failures
              config: {{path: {tmp_path / "bad"}}}
        """,
        tmp_path,
    )

    good = read_records(tmp_path / "good", "transcripts")
    assert sorted((row["next"], row["recognized"]) for row in good) == [
        (1, texts["digits_4.flac"]),
        (3, texts["vm-INBOX.flac"]),
    ]
    (bad,) = read_records(tmp_path / "bad", "transcripts")
    assert bad["element"] == rows[1]
    assert bad["msg"].startswith("AudioNotFoundError: ")
    assert (bad["stage"], bad["type"], bad["attempts"]) == ("audio", "AudioNotFoundError", 1)


@pytest.mark.usefixtures("texts")  # for the model
def test_without_error_handling_a_broken_row_fails_the_pipeline(tmp_path):
    pipeline = f"""
        providers: [{{include: {PROVIDERS}}}]
        pipeline:
          type: chain
          transforms:
            - type: Create
              config: {{elements: [{{audio_filepath: {tmp_path / "missing.flac"}}}]}}
            - type: TranscribeNeMo
              config: {{model_name: {SAMPLE_MODEL}}}
        """
    with pytest.raises(Exception, match=r"AudioNotFoundError: .*error_handling: {output: NAME}"):
        run(pipeline, tmp_path)


def test_fields_keep_their_types_and_values(texts):
    calls = [
        Call(str(SAMPLES / "digits_4.flac"), None, Timestamp(1.5), b"\xff\0", None, ""),
        Call(str(SAMPLES / "vm-INBOX.flac"), 2**40, Timestamp(7), b"", float("nan"), "old"),
    ]
    given.clear()
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        rows = pipeline | beam.Create(calls).with_output_types(Call)
        recognized = rows | TranscribeNeMo(
            str(SAMPLE_MODEL), timestamps=["word"], confidence="word"
        )
        recognized | beam.Map(give)
        kinds = dict(named_fields_from_element_type(recognized.element_type))
    words = kinds.pop("words")
    assert kinds.pop("no_speech") is kinds.pop("channels_cancel") is bool
    assert kinds.pop("channel") is not None
    assert list(kinds.items()) == named_fields_from_element_type(Call)
    assert [name for name, _ in words.__args__[0]._fields] == ["word", "start", "end", "confidence"]
    four, inbox = sorted(given, key=lambda row: row.when)
    assert (four.number, four.when, four.raw) == (None, Timestamp(1.5), b"\xff\0")
    assert (inbox.number, inbox.when, inbox.raw) == (2**40, Timestamp(7), b"")
    assert four.pred_text == texts["digits_4.flac"]
    assert inbox.pred_text == texts["vm-INBOX.flac"]
    (word,) = four.words
    assert word.word == "four"
    assert 0 <= word.start < word.end <= 1
    assert 0 <= word.confidence <= 1


def test_each_row_has_its_own_model_and_says_which(texts, tiny_model, tmp_path):
    spanish = tiny_model("ctc_bpe")
    soundfile.write(tmp_path / "nobody.wav", np.random.default_rng(0).normal(0, 1e-4, 48_000), RATE)
    names = {"en": SAMPLES / "digits_4.flac", "es": SAMPLES / "vm-INBOX.flac"}
    rows = [{"audio_filepath": str(path), "lang": lang} for lang, path in names.items()]
    rows += [{"audio_filepath": str(tmp_path / "nobody.wav"), "lang": "cs"}]
    rows += [{**rows[1], "lang": "fr"}]  # of a second and a half

    run(
        f"""
        providers: [{{include: {PROVIDERS}}}]
        pipeline:
          transforms:
            - type: Create
              config: {{elements: {json.dumps(rows)}}}
            - type: TranscribeNeMo
              input: Create
              config:
                model_name: {SAMPLE_MODEL}
                models:
                  models: {{es: {spanish}, fr: {{model_name: {spanish}, max_duration: 0.5}}}}
                device: cpu
                required_sample_rate: 16000
                error_handling: {{output: failures}}
            - type: Filter
              name: Spoken
              input: TranscribeNeMo
              config: {{language: python, keep: not no_speech}}
            - type: WriteNeMoManifest
              name: Good
              input: Spoken
              config: {{path: {tmp_path / "good"}}}
            - type: WriteNeMoManifest
              name: Bad
              input: TranscribeNeMo.failures
              config: {{path: {tmp_path / "bad"}}}
        """,
        tmp_path,
    )

    good = read_records(tmp_path / "good", "transcripts")
    assert {row["lang"]: row["model"] for row in good} == {
        "en": str(SAMPLE_MODEL),
        "es": str(spanish),
    }
    assert {row["no_speech"] for row in good} == {False}
    assert [row["pred_text"] for row in good if row["lang"] == "en"] == [texts["digits_4.flac"]]
    (bad,) = read_records(tmp_path / "bad", "transcripts")
    assert (bad["element"]["lang"], bad["type"]) == ("fr", "AboveMaxDurationError")


def test_yes_is_understood_as_yaml_reads_it():
    with pytest.raises(ValueError, match="pnc is 'maybe', but must be one of yes, no"):
        TranscribeNeMo("any.nemo", pnc="maybe")
    TranscribeNeMo("any.nemo", pnc=yaml.safe_load("yes"))


def test_every_line_of_a_manifest_is_a_row_or_an_error(tmp_path):
    lines = [
        {"audio_filepath": "a.wav", "text": "one", "count": 3, "score": 1},
        {"audio_filepath": "/b.wav", "duration": 2, "offset": 1.5},
        {"text": "of nothing"},
        {"audio_filepath": "c.wav", "count": "three"},
    ]
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("\n".join([*map(json.dumps, lines), "no JSON", ""]), encoding="utf-8")

    run(
        f"""
        providers: [{{include: {PROVIDERS}}}]
        pipeline:
          transforms:
            - type: ReadNeMoManifest
              config:
                path: {manifest}
                fields: {{text: string, count: integer, score: number}}
                error_handling: {{output: broken}}
            - type: WriteNeMoManifest
              name: Good
              input: ReadNeMoManifest
              config: {{path: {tmp_path / "good"}}}
            - type: WriteNeMoManifest
              name: Bad
              input: ReadNeMoManifest.broken
              config: {{path: {tmp_path / "bad"}}}
        """,
        tmp_path,
    )

    good = read_records(tmp_path / "good", "transcripts")
    assert sorted(good, key=lambda row: row["offset"]) == [
        {
            "audio_filepath": str(tmp_path / "a.wav"),
            "offset": 0.0,
            "text": "one",
            "count": 3,
            "score": 1.0,
        },
        {"audio_filepath": "/b.wav", "offset": 1.5, "duration": 2.0},
    ]
    bad = {row["element"]: row for row in read_records(tmp_path / "bad", "transcripts")}
    assert {element: row["type"] for element, row in bad.items()} == {
        json.dumps(lines[2]): "MissingAudioError",
        json.dumps(lines[3]): "BadFieldError",
        "no JSON": "NotJsonError",
    }
    assert f"{manifest}:5: " in bad["no JSON"]["msg"]
    with (
        pytest.raises(Exception, match=r"MissingAudioError|NotJsonError|BadFieldError"),
        beam.Pipeline(runner="FnApiRunner") as pipeline,
    ):
        pipeline | ReadNeMoManifest(str(manifest))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"devise": "cpu"}, "TranscribeNeMo has no parameter 'devise'; it has "),
        ({"journal": "out"}, "TranscribeNeMo has no parameter 'journal'"),
        ({"device": "tpu"}, "device is 'tpu', but must be one of auto, cuda, cpu"),
        ({"filepath_key": "path"}, "the input has no field 'path', but audio_filepath"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_runs(parameters, message, tmp_path):
    elements = [{"audio_filepath": "a.wav"}]
    steps = [
        {"type": "Create", "config": {"elements": elements}},
        {"type": "TranscribeNeMo", "config": {"model_name": "any.nemo", **parameters}},
    ]
    pipeline = {
        "providers": [{"include": str(PROVIDERS)}],
        "pipeline": {"type": "chain", "transforms": steps},
    }
    with pytest.raises(ValueError, match=re.escape(message)):
        run(yaml.safe_dump(pipeline), tmp_path)


@pytest.mark.parametrize(
    ("error_handling", "message"),
    [
        ({"output": "bad", "threshold": 1}, "must be {output: NAME}"),
        ({"output": "good"}, "error_handling's output is 'good'"),
    ],
)
def test_what_is_not_understood_of_error_handling_is_refused(error_handling, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        TranscribeNeMo("any.nemo", error_handling=error_handling)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"text": "text"}, "fields has 'text' as 'text', but must have one of string, integer"),
        ({"duration": "number"}, "fields has 'duration', which is read in any case"),
    ],
)
def test_wrong_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        ReadNeMoManifest("m.jsonl", fields=fields)


def test_every_parameter_is_one_of_transcribe():
    assert transcribe.PARAMETERS.keys() >= beam_yaml.PARAMETERS


def test_the_docs_show_the_providers_of_the_package():
    (example,) = re.findall(r"```yaml\n(.*?)```", DOCS, re.DOTALL)
    assert yaml.safe_load(example)["providers"] == yaml.safe_load(PROVIDERS.read_text())
