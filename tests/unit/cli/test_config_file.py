"""Settings from a file: the same as on the command line, which replaces them."""

from __future__ import annotations

import pytest

from beam_asr.cli.options import parse_args

FILE = """
input: [a.jsonl, b.jsonl]
output: gs://bucket/out
model-name: m.nemo
batch_size: 7
timestamps: [word, char]
models: {en: a.nemo, es: b.nemo}
storage_options: {s3: {anon: true}}
keep: wer<1
reference_key: text
audio_timeout: 1.5
overwrite: true
resume: false
channel: null
runner: FlinkRunner
parallelism: 2
streaming: true
"""


@pytest.fixture
def written(tmp_path):
    def write(text: str) -> str:
        path = tmp_path / "job.yaml"
        path.write_text(text)
        return f"--config={path}"

    return write


def test_a_file_says_the_same_as_the_command_line(written):
    flags = """transcribe --input a.jsonl b.jsonl --output=gs://bucket/out --model_name=m.nemo
        --batch_size=7 --timestamps=word,char --models en=a.nemo es=b.nemo --keep=wer<1
        --storage_options={"s3":{"anon":true}} --reference_key=text --audio_timeout=1.5 --overwrite
        --runner=FlinkRunner --parallelism=2 --streaming"""
    assert parse_args(["transcribe", written(FILE)]) == parse_args(flags.split())


def test_flags_replace_those_of_the_file(written):
    more = ["--batch-size=9", "--input=c.jsonl", "--timestamps", "segment", "--runner=PrismRunner"]
    options = parse_args(["transcribe", written(FILE), *more])
    assert options.batching.batch_size == 9
    assert options.inputs.input == ("c.jsonl",)
    assert options.transcripts.timestamps == ("segment",)
    assert "--runner=FlinkRunner" not in options.beam_args
    assert "--runner=PrismRunner" in options.beam_args
    assert options.outputs.output == "gs://bucket/out"


def test_a_switch_that_is_on_by_default_can_be_turned_off(written):
    least = "input: a\noutput: o\nmodel_name: m\nresume: true\n"
    assert not parse_args(
        ["transcribe", written(f"{least}retry_failures: false")]
    ).outputs.retry_failures
    assert parse_args(
        ["transcribe", written(f"{least}retry_failures: true")]
    ).outputs.retry_failures


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: [", "is not YAML"),
        ("- input", "must hold names of flags and their values"),
        ("", "must hold names of flags and their values"),
        (f"{FILE}\nbatch_size: many", "--batch_size: 'many' is not a whole number"),
    ],
)
def test_a_file_that_is_wrong_is_refused(written, capsys, text, reason):
    with pytest.raises(SystemExit) as ended:
        parse_args(["transcribe", written(text)])
    assert ended.value.code == 2
    assert reason in capsys.readouterr().err


def test_a_file_that_is_not_there_is_named(capsys):
    with pytest.raises(SystemExit):
        parse_args(["transcribe", "--config", "/nowhere/job.yaml"])
    assert "--config=/nowhere/job.yaml: no such file" in capsys.readouterr().err
