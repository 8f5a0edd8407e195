"""Command lines in, options or a refusal out; nothing is started."""

import pytest

from beam_asr.cli import main
from beam_asr.cli.options import parse_args

LEAST = ["transcribe", "--input=m.jsonl", "--output=out", "--model_name=m.nemo"]


def test_the_defaults_are_those_of_the_interface():
    assert parse_args(LEAST).values == {
        "input": ("m.jsonl",),
        "output": "out",
        "model_name": "m.nemo",
        "filepath_key": "audio_filepath",
        "pred_text_key": "pred_text",
        "batch_size": 128,
        "max_batch_seconds": None,
        "device": "auto",
        "channel": None,
        "channel_key": "channel",
        "decoder": None,
        "precision": "auto",
        "engine": "nemo",
        "resume": False,
        "append": False,
        "overwrite": False,
        "retry_failures": True,
        "max_failure_fraction": 0.1,
        "num_shards": None,
        "compression": None,
        "order": None,
        "absolute_paths": False,
        "report": False,
        "batch_timeout": 1800.0,
        "tarred_audio": None,
        "storage_options": {},
        "audio_timeout": 300.0,
        "max_concurrent_reads": 32,
        "allowed_audio_prefixes": None,
        "watch": None,
        "output_window": 600.0,
        "accelerator": None,
        "model_copies": 1,
        "segmentation": "vad",
        "max_segment_seconds": None,
        "attention": "full",
        "partial": "fail",
        "timestamps": None,
        "confidence": None,
        "n_best": 0,
        "formats": None,
        "models": None,
        "route_key": None,
        "unmapped": None,
        "source_lang": None,
        "target_lang": None,
        "task": None,
        "pnc": None,
        "min_duration": None,
        "max_duration": None,
        "required_sample_rate": None,
        "required_channels": None,
        "audio_checks": "fail",
        "reference_key": None,
        "normalizer": "none",
        "metrics": None,
        "text_steps": None,
        "quality": False,
        "keep": None,
        "quiet": False,
        "verbose": False,
        "dry_run": False,
        "limit": None,
        "gpus": None,
        "cpus": None,
        "gpu_memory_gb": None,
        "beam_args": [],
    }


def test_every_flag_arrives():
    args = """transcribe --input a,b --input c --output o --model_name n --filepath_key path
        --pred_text_key said --batch_size 7 --max_batch_seconds 2.5 --device cpu --channel 1
        --channel_key side
        --decoder ctc --precision bf16 --engine nemo --tarred_audio t_{0..3}.tar,u.tar
        --storage_options {"s3":{"anon":true}}
        --audio_timeout 1.5 --max_concurrent_reads 4 --allowed_audio_prefixes /data,gs://b
        --allowed_audio_prefixes s3://c --overwrite --max_failure_fraction 0.5
        --num_shards 12 --report --compression zstd --order input --absolute_paths
        --batch_timeout 60
        --watch 2.5 --output_window 30 --accelerator type:nvidia-l4;count:1;install-nvidia-driver
        --model_copies 4 --segmentation fixed --max_segment_seconds 25 --attention local
        --partial keep --timestamps word,char --timestamps segment --confidence row --n_best 4
        --formats srt,textgrid --formats parquet
        --models en=a.nemo,es=b.nemo --models fr=c.nemo --route_key language --unmapped default
        --source_lang es --target_lang en --task translate --pnc no --min_duration .5
        --max_duration 60 --required_sample_rate 16000 --required_channels 2 --audio_checks filter
        --reference_key text --normalizer basic --quality --keep wer<1 --verbose --dry_run
        --metrics bleu,punct_er --metrics chrf
        --text_steps capitals,digits --text_steps last
        --gpus .25 --cpus 3 --gpu_memory_gb 7.5
        --runner=FlinkRunner --parallelism 2"""
    assert parse_args(args.split()).values == {
        "input": ("a", "b", "c"),
        "output": "o",
        "model_name": "n",
        "filepath_key": "path",
        "pred_text_key": "said",
        "batch_size": 7,
        "max_batch_seconds": 2.5,
        "device": "cpu",
        "channel": 1,
        "channel_key": "side",
        "decoder": "ctc",
        "precision": "bf16",
        "engine": "nemo",
        "resume": False,
        "append": False,
        "overwrite": True,
        "retry_failures": True,
        "max_failure_fraction": 0.5,
        "num_shards": 12,
        "compression": "zstd",
        "order": "input",
        "absolute_paths": True,
        "report": True,
        "batch_timeout": 60.0,
        "tarred_audio": ("t_{0..3}.tar", "u.tar"),
        "storage_options": {"s3": {"anon": True}},
        "audio_timeout": 1.5,
        "max_concurrent_reads": 4,
        "allowed_audio_prefixes": ("/data", "gs://b", "s3://c"),
        "watch": 2.5,
        "output_window": 30.0,
        "accelerator": "type:nvidia-l4;count:1;install-nvidia-driver",
        "model_copies": 4,
        "segmentation": "fixed",
        "max_segment_seconds": 25.0,
        "attention": "local",
        "partial": "keep",
        "timestamps": ("word", "char", "segment"),
        "confidence": "row",
        "n_best": 4,
        "formats": ("srt", "textgrid", "parquet"),
        "models": ("en=a.nemo", "es=b.nemo", "fr=c.nemo"),
        "route_key": "language",
        "unmapped": "default",
        "source_lang": "es",
        "target_lang": "en",
        "task": "translate",
        "pnc": "no",
        "min_duration": 0.5,
        "max_duration": 60.0,
        "required_sample_rate": 16000,
        "required_channels": 2,
        "audio_checks": "filter",
        "reference_key": "text",
        "normalizer": "basic",
        "metrics": ("bleu", "punct_er", "chrf"),
        "text_steps": ("capitals", "digits", "last"),
        "quality": True,
        "keep": "wer<1",
        "quiet": False,
        "verbose": True,
        "dry_run": True,
        "limit": None,
        "gpus": 0.25,
        "cpus": 3,
        "gpu_memory_gb": 7.5,
        "beam_args": ["--runner=FlinkRunner", "--parallelism", "2"],
    }
    assert parse_args([*LEAST, "--resume"]).outputs.resume
    assert parse_args([*LEAST, "--limit=12"]).inputs.limit == 12
    assert not parse_args([*LEAST, "--resume", "--no_retry_failures"]).outputs.retry_failures


@pytest.mark.parametrize("after", [[], ["--runner=PrismRunner"]])
def test_a_watch_without_a_number_looks_each_minute(after):
    options = parse_args([*LEAST, "--watch", *after])
    assert options.inputs.watch == 60.0
    assert options.beam_args == after


@pytest.mark.parametrize(
    "spec",
    [
        "type:nvidia-l4;count:1",
        "type:nvidia-tesla-t4;count:4;install-nvidia-driver",
        "type:nvidia-l4;count:1;install-nvidia-driver:5xx;use_nvidia_mps;machine_type:g2-standard-8",
    ],
)
def test_an_accelerator_is_what_dataflow_takes(spec):
    assert parse_args([*LEAST, f"--accelerator={spec}"]).resources.accelerator == spec


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--batch_size=0"], "'0' is not a whole number of 1 or more"),
        (["--batch_size=many"], "'many'"),
        (["--max_batch_seconds=-1"], "--max_batch_seconds: -1"),
        (["--max_batch_seconds=nan"], "--max_batch_seconds: nan"),
        (["--max_batch_seconds=inf"], "--max_batch_seconds: inf"),
        (["--device=tpu"], "choose from"),
        (["--precision=fp16"], "choose from"),
        (["--channel=-1"], "--channel"),
        (["--max_failure_fraction=2"], "2 is not within 0 and 1"),
        (["--filepath_key="], "--filepath_key: is empty"),
        (["--input=a,,b"], "--input: is empty"),
        (["--pred_text_key=audio_filepath"], "are both 'audio_filepath'"),
        (["--resume", "--overwrite"], "choose one"),
        (["--no_retry_failures"], "--resume"),
        (["--num_shards=0"], "--num_shards: '0'"),
        (["--num_shards=100000"], "--num_shards: 100000 is more than 99999"),
        (["--compression=bzip2"], "choose from"),
        (["--batch_timeout=0"], "--batch_timeout: 0"),
        (["--audio_timeout=0"], "--audio_timeout: 0"),
        (["--max_concurrent_reads=0"], "--max_concurrent_reads: '0'"),
        (["--watch=0"], "--watch: 0 is not a number of seconds above 0"),
        (["--watch=soon"], "--watch: 'soon' is not a number"),
        (["--watch=inf"], "--watch: inf"),
        (["--output_window=0"], "--output_window: 0"),
        (["--output_window=-600"], "--output_window: -600"),
        (["--accelerator=nvidia-l4"], "--accelerator: 'nvidia-l4' is not of the form type:TYPE"),
        (["--accelerator=type:nvidia-l4"], "--accelerator: 'type:nvidia-l4'"),
        (["--accelerator=type:nvidia-l4;count:0"], "--accelerator"),
        (["--accelerator=type:nvidia-l4;count:1;"], "--accelerator"),
        (["--model_copies=0"], "--model_copies: '0' is not a whole number of 1 or more"),
        (["--model_copies=1.5"], "--model_copies: '1.5'"),
        (["--segmentation=pauses"], "choose from"),
        (["--max_segment_seconds=4"], "--max_segment_seconds: 4 is not a number of 5 or more"),
        (["--unmapped=fail"], "--unmapped=fail is for --models, which is not given"),
        (["--min_duration=3", "--max_duration=2"], "--min_duration=3 is above --max_duration=2"),
        (["--normalizer=basic"], "--normalizer=basic needs --reference_key"),
        (["--keep=wer =< 1"], "--keep: "),
        (["--gpus=1.5"], "--gpus: 1.5 is neither a whole number nor a fraction"),
        (["--gpus=0"], "--gpus: 0 is neither"),
        (["--task=sing"], "--task"),
        (["--max_segment_seconds=inf"], "--max_segment_seconds: inf"),
        (["--max_segment_seconds=30", "--segmentation=none"], "--segmentation=none cuts no row"),
        (["--attention=sparse"], "choose from"),
        (["--engine=vosk"], "choose from"),
        (["--partial=drop"], "choose from"),
        (["--timestamps=words"], "--timestamps: 'words' is none of word, segment, char"),
        (["--timestamps=word,"], "--timestamps: '' is none of"),
        (["--confidence=char"], "choose from"),
        (["--n_best=0"], "--n_best: '0' is not a whole number of 1 or more"),
        (["--formats=srt,ass"], "--formats: 'ass' is none of srt, vtt, ctm, stm, txt, textgrid"),
        (["--storage_options={"], "--storage_options: is not JSON"),
        (["--storage_options=none.json"], "'none.json'"),
    ],
)
def test_a_wrong_value_is_refused_with_status_2_and_named(flags, named, capsys):
    assert main.main([*LEAST, *flags]) == 2
    assert named in capsys.readouterr().err


@pytest.mark.parametrize(
    "value",
    ['{"s3": "a-secret"}', '[{"s3": "a-secret"}]', '"s3": {"key": "a-secret"}', "a-secret",
     '{"s3": {"key": a-secret}}', "{'s3': 'a-secret'}", "AccountKey=a-secret;", "a-secret\0"],
)  # fmt: skip
def test_storage_options_of_a_wrong_shape_are_refused_and_not_shown(value, capsys):
    assert main.main([*LEAST, f"--storage_options={value}"]) == 2
    error = capsys.readouterr().err
    assert "storage_options" in error or "storage options" in error
    assert "a-secret" not in error


@pytest.mark.parametrize("missing", ["--input", "--output", "--model_name"])
def test_a_missing_flag_is_named(missing, capsys):
    assert main.main([arg for arg in LEAST if not arg.startswith(missing)]) == 2
    assert missing in capsys.readouterr().err


def test_no_command_is_wrong_usage(capsys):
    assert main.main([]) == 2
    assert "transcribe" in capsys.readouterr().err


def test_help_is_no_failure(capsys):
    assert main.main(["transcribe", "--help"]) == 0
    assert "--max_batch_seconds" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "inputs"),
    [
        (["a.flac", "b.flac"], ("a.flac", "b.flac")),
        (["a.flac", "--output=out", "--model_name", "m.nemo", "b.flac"], ("a.flac", "b.flac")),
        (["--input", "a.flac", "b.flac", "--overwrite"], ("a.flac", "b.flac")),
        (["--input", "a", "b,c", "--input=d"], ("a", "b", "c", "d")),
        (["--input=b", "--runner=X", "a"], ("a", "b")),
        (["--runner", "DirectRunner", "a", "--input=b"], ("a", "b")),
        (["a, b.flac"], ("a, b.flac",)),  # a word without a flag is one name
    ],
)
def test_inputs_are_all_words_that_belong_to_no_flag(words, inputs):
    options = parse_args(["transcribe", *words, "--output=out", "--model_name=m.nemo"])
    assert options.inputs.input == inputs


def test_words_of_another_flag_are_its_own():
    options = parse_args([*LEAST, "--tarred_audio", "a.tar", "b.tar", "--formats", "srt", "vtt"])
    assert options.inputs.input == ("m.jsonl",)
    assert options.inputs.tarred_audio == ("a.tar", "b.tar")
    assert options.outputs.formats == ("srt", "vtt")


def test_hyphens_in_flags_are_underscores():
    plain = parse_args(
        ["transcribe", "--input=a-b", "--output=o-p", "--model_name", "m-n", "--num_shards=3"]
    )
    assert plain == parse_args(
        ["transcribe", "--input=a-b", "--output=o-p", "--model-name", "m-n", "--num-shards=3"]
    )
    assert plain.outputs.output == "o-p"
    assert plain.model.model_name == "m-n"
