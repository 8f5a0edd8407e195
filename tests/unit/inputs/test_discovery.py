"""The files that an input stands for."""

from __future__ import annotations

import os
import zipfile
from collections import Counter

import pytest

from beam_asr.errors import NoInputError
from beam_asr.inputs import discovery
from beam_asr.records.statistics import MAX_KINDS
from beam_asr.storage.storage import Storage
from tests.support.audio_files import wav_bytes


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a.jsonl", ["a.jsonl"]),
        ("*.jsonl", ["a.jsonl", "b.jsonl"]),
        ("", ["deep/er/y.WAV", "x.flac"]),
        ("deep", ["deep/er/y.WAV"]),
        ("**/*.WAV", ["deep/er/y.WAV"]),
        ("x.flac", ["x.flac"]),
    ],
)
def test_an_input_stands_for_manifests_or_for_audio(input_folder, pattern, expected):
    found = discovery.find_files(Storage(), str(input_folder / pattern))
    assert found == [str(input_folder / name) for name in expected]


def test_an_input_that_stands_for_nothing_is_named(input_folder):
    for pattern, message in (("c.jsonl", "matches no file"), ("*.mp3", "matches no file")):
        with pytest.raises(NoInputError, match=message):
            discovery.find_files(Storage(), str(input_folder / pattern))
    (input_folder / "empty").mkdir()
    with pytest.raises(NoInputError, match="holds no audio files"):
        discovery.find_files(Storage(), str(input_folder / "empty"))


def test_braces_stand_for_all_their_files_and_a_missing_one_is_named(input_folder):
    for number in range(3):
        (input_folder / f"manifest_{number}.json").touch()
    storage, braces = Storage(), str(input_folder / "manifest__OP_0..2_CL_.json")
    expected = [str(input_folder / f"manifest_{number}.json") for number in range(3)]
    assert discovery.find_files(storage, braces) == expected
    assert discovery.find_files(storage, str(input_folder / "manifest_{0..2}.json")) == expected
    (input_folder / "manifest_1.json").unlink()
    with pytest.raises(NoInputError, match=r"3 files, of which 1 are missing: .*_1.json"):
        discovery.find_files(storage, braces)
    with pytest.raises(NoInputError, match=r"_1.json"):
        discovery.check(storage, braces)


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(input_folder):
    (input_folder / "a[1].jsonl").touch()
    assert discovery.find_files(Storage(), str(input_folder / "a[1].jsonl")) == [
        str(input_folder / "a[1].jsonl")
    ]


def test_a_check_looks_no_further_than_to_the_first_file(input_folder, monkeypatch):
    monkeypatch.setattr(Storage, "list_entries", lambda *_: pytest.fail("all were listed"))
    discovery.check(Storage(), str(input_folder))
    discovery.check(Storage(), str(input_folder / "**/*.flac"))


NAMES = [
    "plain.wav",
    "1599_22028(22?02).wav",
    "is it [1]?.mp3",
    "a::b.wav",
    "~x.wav",
    "50%25.flac",
    "deep/stream.TS",
    "deep/phone.3ga",
]
OTHERS = {
    "notes.txt": ".txt",
    "deep/cover.jpg": ".jpg",
    "list.jsonl": ".jsonl",
    "a.wav.part": ".part",
    "README": "without extension",
    "Meeting. Then lunch, and all of that": "without extension",
    "._plain.wav": "hidden",
    ".DS_Store": "hidden",
    ".cache/x.wav": "hidden",
}


@pytest.fixture(params=["disk", "s3", "gs", "az"])
def place(request, tmp_path):
    """A storage, and a folder in it of recordings and of other files."""
    if request.param == "disk":
        storage, folder = Storage(), f"{tmp_path}/calls (1?)"
    else:
        bucket = request.getfixturevalue(f"{request.param}_bucket")
        storage, folder = Storage(bucket.storage_options), f"{bucket.uri}/calls (1?)"
    for name in (*NAMES, *OTHERS):
        storage.write(f"{folder}/{name}", [wav_bytes()])
    return storage, folder


@pytest.mark.parametrize("pattern", ["{}", "{}/", "{}/**", "{}/**/*"])
def test_a_folder_is_its_recordings_and_what_it_leaves_out_is_counted(place, pattern):
    storage, folder = place
    pattern = pattern.format(folder if pattern in ("{}", "{}/") else folder.replace("?", "[?]"))
    with_manifest = pattern.endswith("*")  # a glob that matches a manifest names it
    found = discovery.find(storage, pattern)
    path = folder.rpartition("://")[2] + "/"  # az:// lists as abfs://
    names = {name.partition(path)[2] for name in found.files}
    assert names == {*NAMES, *(["list.jsonl"] if with_manifest else [])}
    ignored = {name: why for name, why in OTHERS.items() if name not in names}
    assert found.ignored == Counter(ignored.values())
    examples = {name.partition(path)[2] for name in found.statistics.examples_ignored}
    assert examples == set(ignored)
    assert found.statistics.input_files == len(names)
    assert found.statistics.audio_files == len(NAMES)


def test_a_recording_is_found_by_its_name_whatever_that_is(place):
    storage, folder = place
    for name in NAMES:
        discovery.check(storage, f"{folder}/{name}")
        assert discovery.find_files(storage, f"{folder}/{name}") == [f"{folder}/{name}"]
        with storage.open(f"{folder}/{name}") as file:
            assert file.read() == wav_bytes()


def test_a_glob_of_manifests_may_have_any_ending(tmp_path):
    for name in ("part-0", "part-1", "._part-1", "part-2.lst"):
        (tmp_path / name).write_text("{}\n")
    found = discovery.find(Storage(), f"{tmp_path}/*")
    assert [name.rpartition("/")[2] for name in found.files] == ["part-0", "part-1", "part-2.lst"]
    assert found.ignored == {"hidden": 1}


def test_hidden_files_that_are_requested_are_found(tmp_path):
    for name in (".cache/hub/a.wav", ".cache/.new/b.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for pattern, expected in (
        (".cache/hub", ["a.wav"]),
        (".cache/hub/*.wav", ["a.wav"]),
        (".cache/.new/*.wav", ["b.wav"]),
        ("**/.new/*.wav", ["b.wav"]),
        (".cache/.new/b.wav", ["b.wav"]),
    ):
        found = discovery.find_files(Storage(), f"{tmp_path}/{pattern}")
        assert [name.rpartition("/")[2] for name in found] == expected, pattern


@pytest.mark.parametrize("layout", ["git-annex", "hub"])
def test_data_sets_of_links_are_found_by_their_names_and_once(tmp_path, layout):
    """As git-annex and DVC link to their stores, and a hub's cache to its blobs."""
    store, links = {
        "git-annex": (".git/annex/objects/F8/XQ/SHA256E-s1--5f.wav", "audio/{}.wav"),
        "hub": ("blobs/{}", "snapshots/1f/audio/{}.wav"),
    }[layout]
    for number in range(3):
        link = tmp_path / links.format(number)
        content = tmp_path / store.format(number)
        for path in (link, content):
            path.parent.mkdir(parents=True, exist_ok=True)
        content.write_bytes(wav_bytes())
        link.symlink_to(content)
    (tmp_path / links.format("not fetched")).symlink_to("none")
    found = discovery.find(Storage(), str(tmp_path))
    assert found.files == [str(tmp_path / links.format(number)) for number in range(3)]
    stored = {"hidden": 1} if layout == "git-annex" else {"without extension": 3}
    assert found.ignored == {**stored, "broken link": 1}
    assert str(tmp_path / links.format("not fetched")) in found.statistics.examples_ignored


def test_a_folder_of_nothing_but_others_says_what_they_are(tmp_path):
    for name in ("a.jpg", "b.jpg", "c.txt"):
        (tmp_path / name).touch()
    for pattern in (tmp_path, f"{tmp_path}/*.jpg/*"):
        with pytest.raises(NoInputError) as caught:
            discovery.find(Storage(), str(pattern))
    with pytest.raises(NoInputError) as caught:
        discovery.find(Storage(), str(tmp_path))
    assert "only others: .jpg 2, .txt 1" in str(caught.value)


def test_kinds_of_ignored_files_are_bounded(tmp_path):
    (tmp_path / "a.wav").touch()
    for number in range(200):
        (tmp_path / f"x.{number}").touch()
    statistics = discovery.find(Storage(), str(tmp_path)).statistics
    statistics += statistics
    assert sum(statistics.ignored_files.values()) == 400
    assert len(statistics.ignored_files) == MAX_KINDS + 1
    assert len(statistics.examples_ignored) == 10
    shown = discovery.describe_ignored(statistics.ignored_files)
    assert len(shown) < 150
    assert "other" in shown


@pytest.mark.parametrize("pattern", ["calls", "./calls", "../in/calls", "calls/*.wav"])
def test_inputs_may_be_relative_to_the_working_folder(tmp_path, monkeypatch, pattern):
    for name in ("in/calls/a.wav", "in/calls/.b.wav", "in/calls/none"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path / "in")
    found = discovery.find(Storage(), pattern)
    assert [os.path.realpath(file) for file in found.files] == [str(tmp_path / "in/calls/a.wav")]
    assert found.ignored["hidden"] == 1


def test_recordings_in_an_archive_are_found(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("calls/a.wav", "calls/._a.wav", "calls/a.txt"):
            archive.writestr(name, wav_bytes())
    for pattern in (f"zip://calls::{tmp_path}/a.zip", f"zip://calls/*::file://{tmp_path}/a.zip"):
        found = discovery.find(Storage(), pattern)
        assert [file.partition("::")[0] for file in found.files] == ["zip://calls/a.wav"]
        assert found.ignored == {"hidden": 1, ".txt": 1}
        assert Storage().read(found.files[0]) == wav_bytes()


def test_a_file_that_has_several_names_is_read_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("m.jsonl", "call.wav"):
        (tmp_path / name).touch()
        (tmp_path / f"link_{name}").symlink_to(name)
    (tmp_path / "alias").symlink_to(".")
    manifest, call = str(tmp_path / "m.jsonl"), str(tmp_path / "call.wav")
    spelled = [("a", manifest), ("b", manifest), ("c", "./m.jsonl"), ("d", "alias/m.jsonl")]
    assert discovery.distinct(spelled) == ([manifest], ["./m.jsonl", manifest, "alias/m.jsonl"])
    linked = [("*", "link_m.jsonl"), ("*", "m.jsonl")]
    assert discovery.distinct(linked) == (["m.jsonl"], ["link_m.jsonl"])
    beside = [("*", "link_call.wav"), ("*", "call.wav")]
    assert discovery.distinct(beside) == (["call.wav", "link_call.wav"], [])
    again = [("a", call), ("b", "link_call.wav")]
    assert discovery.distinct(again) == ([call], ["link_call.wav"])


def test_links_to_a_file_that_is_no_input_are_views_of_it(tmp_path):
    (tmp_path / "content").touch()  # as git-annex and DVC keep two equal files
    links = [str(tmp_path / name) for name in ("a.jsonl", "b.jsonl")]
    for link in links:
        os.symlink(tmp_path / "content", link)
    assert discovery.distinct([("*", link) for link in links]) == (links, [])
