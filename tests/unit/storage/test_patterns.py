import glob
import subprocess

import pytest
from braceexpand import braceexpand
from hypothesis import given
from hypothesis import strategies as st

from beam_asr.errors import PatternError
from beam_asr.storage import patterns
from beam_asr.storage.patterns import expand, shard_number, split_commas


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a.json", ["a.json"]),
        ("a.json, b.json ,c.json", ["a.json", "b.json", "c.json"]),
        ("a{1,2}.json,b.json", ["a{1,2}.json", "b.json"]),
        ("a_OP_1,2_CL_.json,b.json", ["a_OP_1,2_CL_.json", "b.json"]),
        ("{a,{b,c}},d", ["{a,{b,c}}", "d"]),
        ("a},b", ["a}", "b"]),
        ("a,,b,", ["a", "", "b", ""]),
        ("", [""]),
    ],
)
def test_inputs_are_split_at_commas_outside_braces(text, parts):
    assert split_commas(text) == parts


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("m_{0..2}.json", ["m_0.json", "m_1.json", "m_2.json"]),
        ("m__OP_0..2_CL_.json", ["m_0.json", "m_1.json", "m_2.json"]),
        ("m_{008..010}.json", ["m_008.json", "m_009.json", "m_010.json"]),
        ("m_{3..1}", ["m_3", "m_2", "m_1"]),
        ("m_{0..9..4}", ["m_0", "m_4", "m_8"]),
        ("{a..c}.json", ["a.json", "b.json", "c.json"]),
        ("{dev,test}_{0..1}", ["dev_0", "dev_1", "test_0", "test_1"]),
        ("{a,b{1,2}}", ["a", "b1", "b2"]),
        ("gs://b/{x,y}/*.json", ["gs://b/x/*.json", "gs://b/y/*.json"]),
    ],
)
def test_braces_stand_for_the_names_that_nemo_makes_of_them(pattern, names):
    assert expand(pattern) == names


@pytest.mark.parametrize(
    "name",
    ["a.json", "a,b.json", "a{b}.json", "a_OP_b_CL_.json", "{}", "a[0-9]*(1)<2>.json", r"a\b.json"],
)
def test_a_name_without_alternatives_stands_for_itself(name):
    assert expand(name) == [name]


def test_nemos_128_shards_are_named_in_their_order():
    assert expand("/d/manifest__OP_0..127_CL_.json") == [
        f"/d/manifest_{n}.json" for n in range(128)
    ]


@pytest.mark.parametrize("pattern", ["a{1,2", "a}", "{a{1,2}", "}{", "a_OP_0..3.json", "a_CL_"])
def test_a_brace_without_its_pair_is_an_error_that_names_the_pattern(pattern):
    with pytest.raises(PatternError) as error:
        expand(pattern)
    assert repr(pattern) in str(error.value)
    assert "without its pair" in str(error.value)


def test_the_advice_for_a_file_whose_name_has_a_brace_finds_it(tmp_path):
    file = tmp_path / "a{1.json"
    file.touch()
    with pytest.raises(PatternError, match=r"put \? in the brace's place"):
        expand(str(file))
    assert [glob.glob(name) for name in expand(str(tmp_path / "a?1.json"))] == [[str(file)]]


@pytest.mark.parametrize(
    "pattern",
    [
        "{0..1000000}",
        "{0..99999999999999999999999}",
        "{0.." + "9" * 5000 + "}",
        "{a..z.." + "9" * 5000 + "}",
        "{0..999}{0..999}{a,b}",
        "{{1..500000},{0..500000}}",
        "{a..z}" * 100,
        "{a,b}" * 1000,
    ],
)
def test_an_absurd_number_of_names_is_refused_before_they_are_made(pattern):
    with pytest.raises(PatternError, match="more than 1,000,000 names"):
        expand(pattern)


def test_a_million_names_are_not_too_many():
    assert expand("{0..999999}")[-1] == "999999"


def test_braces_nested_beyond_reason_are_an_error_that_names_the_pattern():
    with pytest.raises(PatternError, match=r"\{\{\{\{"):
        expand("{" * 2_000 + "}" * 2_000)


RANGES = st.sampled_from(["{0..7}", "{5..1..2}", "{-3..3..0}", "{a..f}", "{x..a..3}", "{Z..a..0}"])
WORDS = st.text("a,.0-", max_size=3)
PATTERNS = st.recursive(
    RANGES | WORDS,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda parts: "{" + ",".join(parts) + "}")
        | st.lists(inner, max_size=2).map("".join)
    ),
    max_leaves=8,
)


@given(PATTERNS)
def test_patterns_are_refused_by_the_number_of_their_names_and_by_nothing_else(pattern):
    names = list(braceexpand(pattern, escape=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patterns, "MAX_NAMES", len(names))
        assert expand(pattern) == names
        patch.setattr(patterns, "MAX_NAMES", len(names) - 1)
        with pytest.raises(PatternError, match="stands for more than"):
            expand(pattern)


@given(st.text("{},.0123ab_OPCL", max_size=30))
def test_any_text_is_names_or_a_pattern_error(text):
    try:
        names = expand(text)
    except PatternError:
        return
    assert names


@pytest.mark.parametrize(
    ("name", "shard"),
    [
        ("/d/manifest_12.json", 12),
        ("/d/audio_0.tar", 0),
        ("audio_007.tar", 7),
        ("manifest_0_normalized.json", 0),
        ("manifest_normalized_3.json", 3),
        ("sharded_manifests/manifest_0.jsonl.gz", 0),
        ("audio_16000_3.tar.gz", 3),
        ("tarred_audio_5.tar", 5),
        ("pipe:ais get ais://b/audio_4.tar -", 4),
        ("https://h/audio_4.tar?sig=a/b", 4),
        ("manifest_5.json/audio_3.tar", 3),
        ("/audio_9.tar/manifest_5.json", 5),
        ("manifest.json", None),
        ("manifest_5/list.json", None),
        ("audio_5.wav", None),
        ("manifest_5.tar", None),
        ("dev_5.json", None),
    ],
)
def test_the_shard_of_a_tarred_data_set_is_read_from_the_name(name, shard):
    assert shard_number(name) == shard


def test_bash_agrees_on_what_the_patterns_stand_for():
    for pattern in ("m_{0..3}.json", "{a,b}{08..10}", "x{a..e..2}{1,{2,3}}"):
        said = subprocess.run(["bash", "-c", f"echo {pattern}"], capture_output=True, text=True)
        assert expand(pattern) == said.stdout.split()
