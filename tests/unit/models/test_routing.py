"""Which model takes which row, by pairs, by files of routes, and what of them is refused."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_asr.errors import BadFieldError, UnmappedRowError
from beam_asr.models.routing import ModelRoute, load, single
from beam_asr.storage.storage import Storage


def of_pairs(*pairs, default=None, **how):
    return load(Storage(), list(pairs), {}, default=default, **how)


def of_text(tmp_path, text, name="routes.yaml", **how):
    path = tmp_path / name
    path.write_text(text)
    return load(Storage(), [str(path)], {}, **how)


def model_of(routing, **fields):
    return routing.names[routing.route_index(fields)]


@pytest.mark.parametrize("written", ["en", "EN", "en-US", "en_us", "en_US.UTF-8", " en-GB "])
def test_a_language_is_known_as_people_write_it(written):
    routing = of_pairs("en=a.nemo", "es=b.nemo")
    assert model_of(routing, lang=written) == "a.nemo"


def test_the_closest_tag_takes_a_row():
    routing = of_pairs("es=spain.nemo", "es_419=us.nemo", "pt-BR=brazil.nemo", "zh-Hans=c.nemo")
    assert model_of(routing, lang="es-419") == "us.nemo"
    assert model_of(routing, lang="es-ES") == "spain.nemo"
    assert model_of(routing, lang="zh_Hans_CN") == "c.nemo"
    assert model_of(routing, lang="pt") == "brazil.nemo"  # there is no other Portuguese
    with pytest.raises(UnmappedRowError, match=r"no model takes 'lang' 'pt-PT'; there are models"):
        routing.route_index({"lang": "pt-PT"})


def test_a_language_with_two_regions_is_not_guessed():
    routing = of_pairs("en-US=a.nemo", "en-GB=b.nemo")
    with pytest.raises(UnmappedRowError):
        routing.route_index({"lang": "en"})


def test_values_that_are_no_languages_are_not_cut():
    routing = of_pairs("call=a.nemo", key="domain")
    assert model_of(routing, domain="Call") == "a.nemo"
    with pytest.raises(UnmappedRowError):
        routing.route_index({"domain": "call center"})
    dotted = of_pairs("a.b=a.nemo", "a.c=b.nemo", key="host")
    assert model_of(dotted, host="A.C") == "b.nemo"


def test_the_language_has_its_own_field_unless_it_chooses_the_model():
    assert of_pairs("en=a.nemo", key="language").lang_key == "language"
    assert of_pairs("telephony=a.nemo", key="domain").lang_key == "lang"


def test_rows_that_no_route_takes_fail_or_go_to_the_default():
    pairs = ["en=a.nemo"]
    for fields in ({"lang": "fr"}, {"lang": None}, {}):
        with pytest.raises(UnmappedRowError, match="`model_name`"):
            of_pairs(*pairs).route_index(fields)
        assert model_of(of_pairs(*pairs, default="d.nemo"), **fields) == "d.nemo"
        with pytest.raises(UnmappedRowError):
            of_pairs(*pairs, default="d.nemo", unmapped="fail").route_index(fields)


def test_a_field_that_is_no_text_is_named():
    with pytest.raises(BadFieldError, match="'lang', which chooses the model, is a number"):
        of_pairs("en=a.nemo", default="d.nemo").route_index({"lang": 5})


FILE = """
unmapped: default
default: d.nemo
models:
  en, en-GB: a.nemo
  no: {model_name: n.nemo, decoder: ctc, max_duration: 60, pnc: no}
rules:
  - when: domain == 'telephony' and sample_rate <= 8000
    model_name: t.nemo
"""


def test_a_file_of_routes(tmp_path):
    routing = of_text(tmp_path, FILE)
    assert model_of(routing, lang="en-gb") == "a.nemo"
    assert model_of(routing, lang="en", domain="telephony", sample_rate=8000) == "t.nemo"
    assert model_of(routing, lang="en", domain="telephony", sample_rate=16000) == "a.nemo"
    assert model_of(routing, lang="fi") == "d.nemo"
    norwegian = routing.routes[routing.route_index({"lang": "no"})]  # of which YAML 1.1 makes False
    assert norwegian == ModelRoute.of(model_name="n.nemo", decoder="ctc", max_duration=60, pnc="no")


def test_json_says_the_same(tmp_path):
    said = {"models": {"en": "a.nemo"}, "default": {"model_name": "d.nemo", "batch_size": 4}}
    routing = of_text(tmp_path, json.dumps(said), "routes.json")
    assert model_of(routing, lang="en") == "a.nemo"
    assert routing.routes[routing.route_index({})].batching.batch_size == 4


def test_models_that_are_the_same_are_one(tmp_path):
    routing = of_text(tmp_path, "models: {en: a.nemo, fr: a.nemo, de: {model_name: a.nemo}}")
    assert len(routing.routes) == 1


def test_what_the_flags_say_holds_for_all_models_that_do_not_say_otherwise(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("models: {en: a.nemo, fr: {model_name: b.nemo, batch_size: 2}}")
    routing = load(Storage(), [str(path)], {"batch_size": 8, "decoder": "ctc"})
    english, french = (routing.routes[routing.route_index({"lang": each})] for each in ("en", "fr"))
    assert (english.batching.batch_size, french.batching.batch_size) == (8, 2)
    assert english.model.decoder == french.model.decoder == "ctc"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: {en: {model_nam: a}}", "the model of en has 'model_nam', which is none of"),
        ("models: {en: {decoder: ctc}}", "the model of en has no model_name"),
        ("models: {en: {model_name: a, decoder: x}}", "decoder is 'x', but must be one of"),
        ("models: {en: {model_name: a, batch_size: 0}}", "batch_size is 0, but must be at least 1"),
        ("models: {en: {model_name: a, batch_size: yes}}", "batch_size is 'yes', not a number"),
        ("models: {en: {model_name: a, max_duration: true}}", "max_duration is True, not a number"),
        ("models: {en: a, EN: b}", "two models are given for 'EN'"),
        ("models: [a]", 'models is a list (["a"]), not a mapping'),
        ("model: {en: a}", "the file has 'model', which is none of"),
        ("{}", "it has neither models nor rules"),
        ("models: {en: a}\nunmapped: drop", "unmapped is 'drop', but must be fail or default"),
        ("models: {en: a}\nunmapped: default", "no default model is named"),
        ("rules: [{when: wer =< 3, model_name: a}]", "rule 1: "),
        ("rules: [{model_name: a}]", "rule 1 has no text `when`"),
        ("models: {en: [", "it is neither YAML nor JSON"),
    ],
)
def test_what_cannot_be_is_refused_by_the_files_name(tmp_path, text, message):
    with pytest.raises(ValueError, match=rf"routes\.yaml: .*{re.escape(message)}"):
        of_text(tmp_path, text)


def test_what_is_neither_pairs_nor_a_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="neither of the form LANG=NAME nor a file"):
        of_pairs(str(tmp_path / "none.yaml"))
    with pytest.raises(ValueError, match="neither all of the form LANG=NAME, nor one file"):
        of_pairs("en=a.nemo", "b.yaml")


@given(st.text(), st.none() | st.text() | st.integers() | st.lists(st.text()))
def test_whatever_the_value_a_row_gets_a_model_or_an_error_of_its_own(key, value):
    routing = of_pairs("en=a.nemo", "fr-CA=b.nemo", default="d.nemo", key=key or "k")
    try:
        assert model_of(routing) == "d.nemo"
        assert routing.route_index({key or "k": value}) in (0, 1, 2)
    except BadFieldError:
        assert not isinstance(value, str)


def test_routes_come_back_from_a_pickle(tmp_path):
    import pickle

    routing = of_text(tmp_path, FILE)
    again = pickle.loads(pickle.dumps(routing))
    assert model_of(again, domain="telephony", sample_rate=1) == "t.nemo"
    assert again.routes == routing.routes


def test_one_model_takes_every_row():
    assert not single(ModelRoute.of(model_name="a.nemo")).is_multi_model
