"""Tables of named things, and what other packages add to them."""

import sys

import pytest

from beam_asr.errors import SetupError
from beam_asr.records.registry import Registry

OURS = {"sum": "math:fsum", "root": "math:isqrt"}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Puts a package with these entry points on the path."""

    def install(name: str, points: str) -> None:
        metadata = tmp_path / f"{name}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[test.things]\n{points}\n")
        (tmp_path / f"{name}.py").write_text("THING = 'a thing'\n")

    monkeypatch.syspath_prepend(str(tmp_path))
    yield install
    for name in ("one", "two"):
        sys.modules.pop(name, None)


def test_another_package_adds_an_entry(package):
    package("one", "thing = one:THING")
    things = Registry("test.things", OURS)
    assert list(things) == ["sum", "root", "thing"]
    assert len(things) == 3
    assert "thing" in things
    assert things["thing"] == "a thing"
    assert things["root"](9) == 3


def test_nothing_is_imported_before_it_is_looked_up(package):
    package("one", "thing = one:THING")
    assert "thing" in Registry("test.things", OURS)
    assert "one" not in sys.modules


def test_what_is_in_no_table_is_a_key_error():
    things = Registry("test.things", OURS)
    assert "cube" not in things
    with pytest.raises(KeyError, match="cube"):
        things["cube"]


@pytest.mark.parametrize(
    ("first", "second"), [("sum = one:THING", ""), ("thing = one:THING", "thing = two:THING")]
)
def test_a_name_that_is_there_already_is_refused(package, first, second):
    package("one", first)
    package("two", second)
    with pytest.raises(SetupError, match=r"which .* has already: uninstall one of the packages"):
        list(Registry("test.things", OURS))


def test_an_entry_that_cannot_be_imported_is_named(package):
    package("one", "thing = one:NOTHING")
    with pytest.raises(SetupError, match=r"'thing' of test.things is one:NOTHING, .* no attribute"):
        Registry("test.things", OURS)["thing"]
