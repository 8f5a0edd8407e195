import contextlib
import gzip
import importlib.util
import io
import random
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from beam_asr.model_archive import UnsafeModelError, check_archive

MODEL = Path(__file__).parent.parent / "samples" / "model.nemo"


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    info.size = 4 if kind == tarfile.REGTYPE else 0
    return info


CONFIG = member("./model_config.yaml")
BAD = {
    "absolute": [member("/etc/cron.d/x")],
    "absolute twice over": [member("//etc/cron.d/x")],
    "a folder above": [member("../x")],
    "a folder above, in the middle": [member("a/../../x")],
    "a folder above that comes back": [member("a/../x")],
    "a folder above, as a folder": [member("..", tarfile.DIRTYPE)],
    "a backslash": [member("..\\x")],
    "a drive": [member("C:/x")],
    "a drive, relative": [member("./c:x")],
    "a symbolic link": [member("x", tarfile.SYMTYPE, "model_config.yaml")],
    "a link out": [member("x", tarfile.SYMTYPE, "/etc"), member("x/passwd")],
    "a hard link": [member("x", tarfile.LNKTYPE, "model_config.yaml")],
    "a FIFO": [member("x", tarfile.FIFOTYPE)],
    "a character device": [member("x", tarfile.CHRTYPE)],
    "a block device": [member("x", tarfile.BLKTYPE)],
    "an unknown kind": [member("x", b"Z")],
    "the same name": [member("x"), member("x")],
    "the same name in another form": [member("a/x"), member("./a//./x")],
    "the same name in another case": [member("x.yaml"), member("X.yaml")],
    "the same name in other Unicode": [member("\u00e9"), member("e\u0301")],
    "a very long name": [member("a" * 300 + "/../../x")],
}


def pack(path: Path, members: list[tarfile.TarInfo], mode: str = "w:", **options) -> str:
    with tarfile.open(path, mode, **options) as tar:
        for info in members:
            tar.addfile(info, io.BytesIO(b"data") if info.size else None)
    return str(path)


def everything_in(folder: Path) -> list[tuple[Path, int]]:
    return sorted((path, path.lstat().st_mtime_ns) for path in folder.rglob("*"))


@pytest.mark.parametrize("mode", ["w:", "w:gz"])
@pytest.mark.parametrize("tar_format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("kind", list(BAD))
def test_a_bad_member_is_refused_by_name_and_nothing_is_unpacked(
    tmp_path, monkeypatch, kind, mode, tar_format
):
    path = pack(tmp_path / "m.nemo", [CONFIG, *BAD[kind]], mode, format=tar_format)
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    before = everything_in(tmp_path)
    with pytest.raises(UnsafeModelError) as error:
        check_archive(path)
    assert everything_in(tmp_path) == before
    message = str(error.value)
    assert path in message
    assert any(repr(info.name[:100]) in message for info in BAD[kind])
    assert "trust" in message
    assert kind in message or BAD[kind][-1].type in (tarfile.REGTYPE, tarfile.DIRTYPE, b"Z")
    assert len(message) < 500


@pytest.mark.parametrize("mode", ["w:", "w:gz"])
def test_a_model_of_plain_files_and_folders_passes(tmp_path, mode):
    names = ["./x", "a.b", "..x", "x..y/..z", "ab:c", "tokenizer/é", "n" * 200]
    folders = [member("./", tarfile.DIRTYPE), member("tokenizer", tarfile.DIRTYPE)]
    check_archive(pack(tmp_path / "m.nemo", [*folders, CONFIG, *map(member, names)], mode))


def test_the_sample_model_passes():
    check_archive(str(MODEL))


def damaged() -> dict[str, bytes]:
    model, noise = MODEL.read_bytes(), random.Random(0).randbytes(300_000).hex().encode()
    huge, sparse = member("x"), member("x")
    huge.size = 2**80
    sparse.pax_headers = {"GNU.sparse.map": "x"}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:") as tar:
        big = member("x")
        big.size = len(noise)
        tar.addfile(big, io.BytesIO(noise))
        tar.addfile(CONFIG, io.BytesIO(b"data"))
    packed = bytearray(gzip.compress(buffer.getvalue()))
    packed[100_000:] = random.Random(1).randbytes(100_000)
    return {
        "empty": b"",
        "zeros": bytes(10_240),
        "something else": b"not a tar" * 1000,
        "something else, compressed": gzip.compress(b"not a tar" * 1000),
        "only the beginning of gzip": b"\x1f\x8b\x08" + bytes(50),
        "cut short in a header": model[:1000],
        "cut short": model[:20_000],
        "cut short, compressed": gzip.compress(model[:4096])[:-500],
        "spoilt, compressed": bytes(packed),
        "followed by something else, compressed": gzip.compress(model[:20_000]) + b"xxxx" * 100,
        "of an impossible size": huge.tobuf(tarfile.GNU_FORMAT) + bytes(1024),
        "of an impossible form": sparse.tobuf(tarfile.PAX_FORMAT) + bytes(1024),
    }


@pytest.mark.parametrize("kind", list(damaged()))
def test_a_file_that_is_no_whole_tar_is_left_to_the_loader(tmp_path, kind):
    (tmp_path / "m.nemo").write_bytes(damaged()[kind])
    check_archive(str(tmp_path / "m.nemo"))


def test_a_bad_member_is_found_in_a_file_that_is_cut_short_after_it(tmp_path):
    path = Path(pack(tmp_path / "m.nemo", [*BAD["absolute"], member("x"), member("y")]))
    path.write_bytes(path.read_bytes()[: 3 * 512 + 100])
    with pytest.raises(UnsafeModelError):
        check_archive(str(path))


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        check_archive(str(tmp_path / "m.nemo"))


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_SPARSE])
def test_a_size_that_leads_back_is_refused_rather_than_followed_for_ever(tmp_path, kind):
    info = member("x", kind)
    info.size = -512  # the next member is this one
    header = info.tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "m.nemo").write_bytes(CONFIG.tobuf() + b"data".ljust(512, b"\0") + header)
    with pytest.raises(UnsafeModelError) as error:
        check_archive(str(tmp_path / "m.nemo"))
    assert "negative size" in str(error.value) or kind == tarfile.GNUTYPE_SPARSE


def test_the_content_of_members_is_not_held(tmp_path):
    big = member("model_weights.ckpt")
    big.size = 2**26
    for mode in ("w:", "w:gz"):
        with tarfile.open(tmp_path / "m.nemo", mode) as tar:
            tar.addfile(big, io.BytesIO(bytes(big.size)))
        tracemalloc.start()
        check_archive(str(tmp_path / "m.nemo"))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**23


@pytest.fixture(scope="module")
def nemo_extract():
    """NeMo's own extraction, without the minute that importing all of NeMo takes."""
    nemo = importlib.util.find_spec("nemo")
    assert nemo is not None
    path = Path(nemo.submodule_search_locations[0]) / "utils" / "tar_utils.py"
    spec = importlib.util.spec_from_file_location("tar_utils", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.safe_extract


def test_nemo_unpacks_all_of_what_passes(tmp_path, nemo_extract):
    check_archive(str(MODEL))
    with tarfile.open(MODEL, "r:") as tar:
        assert nemo_extract(tar, str(tmp_path)) == tar.getmembers()


# To other readers, or on other systems, these name something else.
HARMLESS_HERE = ("a backslash", "a drive", "the same name in", "an unknown kind")


@pytest.mark.parametrize("kind", [kind for kind in BAD if not kind.startswith(HARMLESS_HERE)])
def test_nemo_would_leave_out_or_fail_at_what_is_refused(tmp_path, nemo_extract, kind):
    path = pack(tmp_path / "m.nemo", [CONFIG, *BAD[kind]])
    with tarfile.open(path, "r:") as tar:
        members = len(tar.getmembers())
        with contextlib.suppress(tarfile.TarError):
            nemo_extract(tar, str(tmp_path / "out"), skip_unsafe=True)
    assert sum(file.is_file() for file in (tmp_path / "out").rglob("*")) < members
