"""Which tar a row's audio is in."""

import pytest

from beam_asr.errors import BadFieldError
from beam_asr.inputs import nemo_tarred
from beam_asr.records.row import Row

TARS = {0: "audio_0.tar", 3: "audio_3.tar", 7: "audio_7.tar"}


def number(fields: str, manifest: str = "m.jsonl", tars=TARS) -> int:
    return nemo_tarred.number_of(Row(f'{{"audio_filepath": "a.wav"{fields}}}', manifest, 1), tars)


def test_the_manifests_number_says_which_tar():
    assert number("", "gs://b/sharded_manifests/manifest_3.json") == 3
    assert number(', "shard_id": 3', "gs://b/sharded_manifests/manifest_3.json") == 3


def test_one_manifest_of_all_tars_says_it_row_by_row():
    assert number(', "shard_id": 7', "tarred_audio_manifest.json") == 7
    assert number(', "shard_id": 0', "failures-00000-of-00001.jsonl") == 0


def test_a_number_in_a_manifests_name_may_mean_something_else():
    assert number(', "shard_id": 7', "manifest_train_960.json") == 7


def test_in_a_single_tar_is_everything():
    assert number("", "m.jsonl", {5: "t.tar"}) == 5
    assert number(', "shard_id": 9', "manifest_2.json", {5: "t.tar"}) == 5


@pytest.mark.parametrize(
    ("fields", "manifest", "message"),
    [
        ("", "m.jsonl", "no 'shard_id'"),
        (', "shard_id": 7', "manifest_3.json", "'shard_id' is 7, but .* manifest is 3"),
        (', "shard_id": 4', "m.jsonl", "number 4, .* 3, from 0 to 7"),
        (', "shard_id": "3"', "m.jsonl", "number '3'"),
        (', "shard_id": true', "m.jsonl", "number True"),
        (', "shard_id": [3]', "m.jsonl", r"number \[3\]"),
        ("", "manifest_4.json", "number 4"),
    ],
)
def test_a_row_whose_tar_cannot_be_told_fails_with_why(fields, manifest, message):
    with pytest.raises(BadFieldError, match=message):
        number(fields, manifest)
