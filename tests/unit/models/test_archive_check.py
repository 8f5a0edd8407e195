import contextlib
import functools
import gzip
import importlib.util
import io
import os
import pickle
import random
import resource
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from beam_asr.errors import DamagedModelError, ModelFileError, ModelTooLargeError, UnsafeModelError
from beam_asr.models import archive_check
from beam_asr.models import files as model_files
from beam_asr.models.archive_check import check_archive
from beam_asr.storage.storage import Storage
from tests.support.job_files import SAMPLE_MODEL

SETTINGS = b"""
target: nemo.collections.asr.models.EncDecCTCModel
sample_rate: 16000
encoder: {_target_: nemo.collections.asr.modules.ConformerEncoder, d_model: "${sample_rate}"}
labels: [" ", a, "$", "{", "}"]
"""


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    info.size = 4 if kind == tarfile.REGTYPE else 0
    return info


def saved(content: object, **options) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


@functools.cache
def weights(count: int = 2) -> bytes:
    import torch

    return saved({"weight": torch.zeros(count)})


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
    "a pickle": [member("a/B.PKL")],
    "code": [member("tests/__init__.py")],
}


def pack(path: Path, members: list[tarfile.TarInfo], mode: str = "w:", **options) -> str:
    with tarfile.open(path, mode, **options) as tar:
        for info in members:
            tar.addfile(info, io.BytesIO(b"data") if info.size else None)
    return str(path)


def pack_files(path: Path, files: dict[str, bytes], mode: str = "w:") -> str:
    """A model of these files, and of a configuration and weights if it does without."""
    files = {"model_config.yaml": SETTINGS, "model_weights.ckpt": weights()} | files
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return str(path)


def refusal(path: object) -> str:
    """How a file is refused."""
    with pytest.raises(ModelFileError) as error:
        check_archive(str(path))
    assert str(path) in str(error.value)
    return str(error.value)


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
    assert ("code" in message) == (kind in ("a pickle", "code"))
    assert len(message) < 500


@pytest.mark.parametrize("mode", ["w:", "w:gz"])
def test_a_model_of_plain_files_and_folders_passes(tmp_path, mode):
    names = ["x", "a.b", "..x", "x..y/..z", "ab:c", "tokenizer/é", "n" * 200, "py"]
    path = pack_files(tmp_path / "m.nemo", dict.fromkeys(names, b"data"), mode)
    check_archive(path)
    if mode == "w:":
        with tarfile.open(path, "a:") as tar:
            tar.addfile(member("./", tarfile.DIRTYPE))
            tar.addfile(member("tokenizer", tarfile.DIRTYPE))
        check_archive(path)


def test_the_sample_model_passes():
    check_archive(str(SAMPLE_MODEL))


def sparse_member(size: str) -> bytes:
    """A tar of one member that claims a size and has nothing."""
    info = member("x")
    info.size = 512
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "x",
        "GNU.sparse.realsize": size,
    }
    return info.tobuf(tarfile.PAX_FORMAT) + b"0\n".ljust(512, b"\0") + bytes(1024)


def damaged() -> dict[str, tuple[bytes, str]]:
    """Files that are no whole model, with what is said of them."""
    model, noise = SAMPLE_MODEL.read_bytes(), random.Random(0).randbytes(300_000)
    size = len(model)
    huge = member("x")
    huge.size = 2**80
    packed = bytearray(gzip.compress(noise))
    spoilt = packed[:100_000] + bytes(100) + packed[100_100:]
    with tarfile.open(SAMPLE_MODEL) as tar:
        start = tar.getmember("./model_weights.ckpt").offset
    return {
        "empty": (b"", "is empty"),
        "zeros": (bytes(10_240), "has no model_config.yaml"),
        "something else": (b"not a tar" * 1000, "neither a tar nor"),
        "something else, compressed": (gzip.compress(b"not a tar" * 1000), "neither a tar nor"),
        "only the beginning of gzip": (b"\x1f\x8b\x08" + bytes(50), "cut short"),
        "a pointer of LFS": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        "a page": (b"\n<!DOCTYPE html><html>Sign in</html>", "HTML"),
        "a checkpoint": (model[model.index(b"PK") :], "is a zip"),
        "cut short within a byte": (model[:1], "neither a tar nor"),
        "cut short in its first header": (model[:500], "neither a tar nor"),
        "cut short in a header": (model[:1000], "cut short"),
        "cut short between members": (model[:start], "has no model_weights.ckpt"),
        "cut short": (model[:20_000], "cut short"),
        "cut short in the middle": (model[: size // 2], "cut short"),
        "cut short at the end": (model[: size - 100], "cut short"),
        "cut short, compressed": (gzip.compress(model[:4096])[:-500], "cut short"),
        "without its checksum, compressed": (gzip.compress(model[:20_480])[:-8], "cut short"),
        "spoilt in a header": (model[:start] + b"xx" + model[start + 2 :], "does not end"),
        "spoilt, compressed": (bytes(spoilt), "damaged"),
        "followed by something else": (model + noise, "does not end"),
        "of an impossible size": (huge.tobuf(tarfile.GNU_FORMAT) + bytes(1024), "damaged"),
        "of an impossible form": (sparse_member("x"), "damaged"),
    }


@pytest.mark.parametrize("kind", list(damaged()))
def test_a_file_that_is_no_whole_model_is_refused_with_what_it_is(tmp_path, kind):
    content, meaning = damaged()[kind]
    (tmp_path / "m.nemo").write_bytes(content)
    message = refusal(tmp_path / "m.nemo")
    assert meaning in message
    assert "Fetch it again" in message


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
    content = weights(2**24)
    for mode in ("w:", "w:gz"):
        path = pack_files(tmp_path / "m.nemo", {"model_weights.ckpt": content}, mode)
        tracemalloc.start()
        check_archive(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**23


@pytest.mark.parametrize("missing", ["model_config.yaml", "model_weights.ckpt"])
def test_a_model_without_a_part_is_refused(tmp_path, missing):
    with tarfile.open(tmp_path / "m.nemo", "w:") as tar:
        for name in {"model_config.yaml", "model_weights.ckpt", "tokenizer.model"} - {missing}:
            tar.addfile(tarfile.TarInfo(name))
    assert f"has no {missing}" in refusal(tmp_path / "m.nemo")


def test_a_member_that_claims_more_than_the_disk_has_is_refused(tmp_path):
    whole = Path(pack_files(tmp_path / "m.nemo", {})).read_bytes()
    (tmp_path / "m.nemo").write_bytes(sparse_member(str(2**60))[:-1024] + whole)
    with pytest.raises(ModelTooLargeError, match=r"takes 1152921504606\d+ bytes .* TMPDIR"):
        check_archive(str(tmp_path / "m.nemo"))


def test_a_small_file_that_grows_is_refused_before_it_fills_the_disk(tmp_path):
    zeros = member("./model_weights.ckpt")
    zeros.size = 2**40
    with gzip.open(tmp_path / "m.nemo", "wb", 1) as file:
        file.write(zeros.tobuf(tarfile.GNU_FORMAT))
        for _ in range(200):
            file.write(bytes(2**20))
    message = refusal(tmp_path / "m.nemo")
    assert "when it is decompressed" in message
    assert "trust" in message


def long_header() -> bytes:
    info = member("x", tarfile.XHDTYPE)
    info.size = 2**25
    return info.tobuf() + bytes(info.size + 1024)


def test_headers_are_read_to_a_limit(tmp_path):
    (tmp_path / "m.nemo").write_bytes(gzip.compress(long_header(), 1))
    assert "bytes of headers" in refusal(tmp_path / "m.nemo")
    with tarfile.open(tmp_path / "m.nemo", "w:") as tar:
        for count in range(archive_check.MAX_HEADER_BYTES // tarfile.BLOCKSIZE):
            tar.addfile(tarfile.TarInfo(str(count)))
    assert "bytes of headers" in refusal(tmp_path / "m.nemo")


# ------------------------------------------------------------------------- the configuration


BOMB = "a: &a [x, x]\n" + "".join(
    f"{chr(c)}: &{chr(c)} [*{chr(c - 1)}, *{chr(c - 1)}, *{chr(c - 1)}]\n"
    for c in range(ord("b"), ord("z"))
)
HARMFUL = {
    "a function of the system": ("encoder: {_target_: os.system}", "'os.system'"),
    "a builtin": ("encoder: {_target_: builtins.eval}", "'builtins.eval'"),
    "a name without a module": ("encoder: {_target_: eval}", "'eval'"),
    "a program": ("optim: [{args: {_target_: subprocess.Popen, _partial_: true}}]", "Popen"),
    "the model's class": ("target: os.system", "'os.system'"),
    "an old class": ("loss: {cls: os.system, params: {command: x}}", "'os.system'"),
    "a class by reference": ("x: os.system\nloss: {_target_: '${x}'}", "'${x}'"),
    "an old class by reference": ("x: os.system\nloss: {cls: '${x}'}", "'${x}'"),
    "a class by a key that is merged": ("loss: {<<: {_target_: os.system}}", "'os.system'"),
    "no name": ("loss: {_target_: [os.system]}", "which is no part of a speech model"),
    "a function that writes a file": (
        "loss: {_target_: nemo.collections.asr.parts.utils.manifest_utils.write_text}",
        "write_text",
    ),
    "a method": (
        "loss: {_target_: nemo.collections.asr.models.ASRModel.from_pretrained}",
        "from_pretrained",
    ),
    "a tokenizer that runs code": (
        "tokenizer: {_target_: nemo.collections.common.tokenizers.AutoTokenizer}",
        "AutoTokenizer",
    ),
    "a model that fetches others": (
        "target: nemo.collections.asr.models.ClusteringDiarizer",
        "ClusteringDiarizer",
    ),
    "an object of Python": ("x: !!python/object/apply:os.system [ls]", "os.system"),
    "a value of the environment": ("x: ${oc.env:HOME}", "'${oc.env:HOME}'"),
    "a value in two steps": ("x: a\\${y}", "computed"),
    "a value within a value": ("x: '${oc.create:{a: 1}}b'", "computed"),
    "aliases that grow": (BOMB, "aliases"),
    "aliases of themselves": ("a: &a [*a]", "aliases"),
    "too much": ("a: [" + "x, " * 2**20 + "]", "too long"),
}


@pytest.mark.parametrize("kind", list(HARMFUL))
@pytest.mark.parametrize("name", ["model_config.yaml", "timestamps_asr_model_config.yaml"])
def test_a_configuration_that_would_do_harm_is_refused(tmp_path, kind, name):
    settings, meaning = HARMFUL[kind]
    path = pack_files(tmp_path / "m.nemo", {name: SETTINGS + settings.encode()})
    with pytest.raises(UnsafeModelError) as error:
        check_archive(path)
    assert meaning in str(error.value)
    assert "trust" in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    "settings", [b"", b"hello", b"- a\n- b", b"a: [b", b"\xff\xfe\0", b"a: " + b"[" * 20_000, b"\0"]
)
def test_a_configuration_that_is_none_is_refused(tmp_path, settings):
    path = pack_files(tmp_path / "m.nemo", {"model_config.yaml": settings})
    with pytest.raises(DamagedModelError, match=r"its ./model_config.yaml (is not|holds no)"):
        check_archive(path)


PARTS = """
nemo.collections.asr.models.EncDecMultiTaskModel
nemo.collections.asr.models.hybrid_rnnt_ctc_bpe_models.EncDecHybridRNNTCTCBPEModel
nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor
nemo.collections.asr.modules.transformer.get_nemo_transformer
nemo.collections.asr.modules.transformer.transformer_encoders.TransformerEncoder
nemo.collections.asr.parts.submodules.token_classifier.TokenClassifier
nemo.collections.common.losses.smoothed_cross_entropy.SmoothedCrossEntropyLoss
nemo.collections.common.parts.adapter_modules.LinearAdapter
nemo.collections.common.tokenizers.canary_tokenizer.CanaryTokenizer
nemo.core.classes.mixins.adapter_mixin_strategies.ResidualAddAdapterStrategy
nemo.core.optim.lr_scheduler.CosineAnnealing
torch.nn.ReLU
torch.optim.AdamW
"""


def test_the_parts_of_speech_models_and_ways_of_yaml_pass(tmp_path):
    parts = "".join(f"- {{_target_: {name}}}\n" for name in PARTS.split())
    settings = (
        f"target: {PARTS.split()[0]}\nold: {{cls: {PARTS.split()[2]}, params: {{}}}}\n"
        "slots: {target: text, cls: null}\nlabels: &labels [a, $, '{']\nvocabulary: *labels\n"
        "path: !!python/object/apply:pathlib.PosixPath [a, b]\nrate: ${labels.0}\n"
        f"parts:\n{parts}"
    )
    check_archive(pack_files(tmp_path / "m.nemo", {"model_config.yaml": settings.encode()}))


# ------------------------------------------------------------------------------- the weights


def flipped(content: bytes) -> bytes:
    """Weights with one bit of a tensor changed."""
    place = content.index(bytes(1000)) + 500
    return content[:place] + b"\x01" + content[place + 1 :]


def zipped(records: dict[str, bytes], mode: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", mode) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def overlapping() -> bytes:
    """A zip in which twenty names stand for one record."""
    record = zipped({"weights/data/00": bytes(2**16)})
    end = record.rindex(b"PK\5\6")
    start = record.index(b"PK\1\2")
    entry = record[start:end]
    entries = b"".join(entry.replace(b"/00", b"/%02d" % number) for number in range(20))
    tail = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 20, 20, len(entries), start, 0)
    return record[:start] + entries + tail


class Call:
    """What runs a command when it is read from a pickle."""

    def __init__(self, command: str = "false"):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


# Made when they are needed, as torch takes seconds to import.
BAD_WEIGHTS = {
    "a call": (lambda: saved({"weight": Call()}), "posix.system"),
    "a call, as of old": (
        lambda: saved({"weight": Call()}, _use_new_zipfile_serialization=False),
        "posix.system",
    ),
    "a call, bare": (lambda: pickle.dumps(Call(), 2), "posix.system"),
    "a class": (lambda: saved({"weight": Storage}), "beam_asr.storage.storage.Storage"),
    "another pickle": (lambda: pickle.dumps({"a": 1}, 4), "no pickle of tensors"),
    "a script": (lambda: zipped({"weights/constants.pkl": b"."}), "cannot be read"),
    "a zip that grows": (
        lambda: zipped({"weights/data/0": bytes(2**24)}, zipfile.ZIP_DEFLATED),
        "grows to 16777216 bytes",
    ),
    "a zip that overlaps": (overlapping, "grows to 1310720 bytes"),
    "nothing": (bytes, "is empty"),
    "something else": (lambda: random.Random(0).randbytes(1000), "tensors"),
    "the beginning": (lambda: weights()[:1000], "central directory"),
    "the end": (lambda: weights()[1000:], "checksum"),
    "a bit": (lambda: flipped(weights(1000)), "the checksum of archive/data/0 is wrong"),
    "no dictionary": (lambda: saved([1]), "no tensors by name"),
}


@pytest.mark.parametrize("kind", list(BAD_WEIGHTS))
@pytest.mark.parametrize("name", ["model_weights.ckpt", "timestamps_asr_model_weights.ckpt"])
def test_weights_that_are_more_or_less_than_tensors_are_refused(tmp_path, kind, name):
    content, meaning = BAD_WEIGHTS[kind]
    message = refusal(pack_files(tmp_path / "m.nemo", {name: content()}))
    assert meaning in message
    assert len(message) < 500


def test_weights_are_tensors_alone_whatever_torch_is_set_to(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    check_archive(pack_files(tmp_path / "m.nemo", {}))
    command = f"touch {tmp_path / 'sentinel'}"
    harmful = saved({"weight": Call(command)})
    assert "posix.system" in refusal(
        pack_files(tmp_path / "m.nemo", {"model_weights.ckpt": harmful})
    )
    assert not (tmp_path / "sentinel").exists()


# ------------------------------------------------------------------------- NeMo's extraction


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
    check_archive(str(SAMPLE_MODEL))
    with tarfile.open(SAMPLE_MODEL, "r:") as tar:
        assert nemo_extract(tar, str(tmp_path)) == tar.getmembers()


# To other readers, on other systems, or when they are read, these are something else.
HARMLESS_HERE = (
    "a backslash",
    "a drive",
    "the same name in",
    "an unknown kind",
    "a pickle",
    "code",
)


@pytest.mark.parametrize("kind", [kind for kind in BAD if not kind.startswith(HARMLESS_HERE)])
def test_nemo_would_leave_out_or_fail_at_what_is_refused(tmp_path, nemo_extract, kind):
    path = pack(tmp_path / "m.nemo", [CONFIG, *BAD[kind]])
    with tarfile.open(path, "r:") as tar:
        members = len(tar.getmembers())
        with contextlib.suppress(tarfile.TarError):
            nemo_extract(tar, str(tmp_path / "out"), skip_unsafe=True)
    assert sum(file.is_file() for file in (tmp_path / "out").rglob("*")) < members


# -------------------------------------------------------------------------------- the digest


def saved_again(model: Path, path: Path, change: float) -> str:
    """The model with one weight, far from the ends of the file, changed by so much."""
    import torch

    with tarfile.open(model) as tar:
        files = {info.name[2:]: tar.extractfile(info).read() for info in tar if info.isreg()}
    state = torch.load(io.BytesIO(files["model_weights.ckpt"]))
    largest = max(state.values(), key=lambda tensor: tensor.numel())
    largest.view(-1)[largest.numel() // 2] += change
    return pack_files(path, files | {"model_weights.ckpt": saved(state)})


def test_a_copy_of_a_model_has_its_digest_wherever_it_is(tmp_path, http_server):
    storage, content = Storage(), SAMPLE_MODEL.read_bytes()
    digest = model_files.digest(storage, str(SAMPLE_MODEL))
    (tmp_path / "copy.nemo").write_bytes(content)
    storage.write("memory://models/digest.nemo", [content])
    http_server.files["m.nemo"] = content
    for place in (tmp_path / "copy.nemo", "memory://models/digest.nemo", http_server.url("m.nemo")):
        assert model_files.digest(storage, str(place)) == digest
    assert http_server.bytes_sent <= 2**21 + 2**16


def test_a_model_with_one_other_weight_has_another_digest(tmp_path):
    same, again, other = (
        model_files.digest(Storage(), saved_again(SAMPLE_MODEL, tmp_path / "m.nemo", change))
        for change in (0, 0, 1e-3)
    )
    assert same == again != other


@pytest.mark.parametrize("size", [0, 1, 1000, 2**21, 2**21 + 2**16, 2**22 + 1])
def test_files_that_differ_at_their_ends_or_in_size_differ_in_their_digests(tmp_path, size):
    content = random.Random(size).randbytes(size)
    variants = {content, content + b"\0", content[:-1], b"x" + content[1:], content[:-1] + b"x"}
    digests = set()
    for variant in variants:
        (tmp_path / "m.nemo").write_bytes(variant)
        digests.add(model_files.digest(Storage(), str(tmp_path / "m.nemo")))
    assert len(digests) == len(variants)


def test_files_of_zeros_that_differ_in_size_differ_in_their_digests(tmp_path):
    digests = set()
    for size in (2**22, 2**22 + 512):
        (tmp_path / "m.nemo").write_bytes(bytes(size))
        digests.add(model_files.digest(Storage(), str(tmp_path / "m.nemo")))
    assert len(digests) == 2


# ------------------------------------------------------------------------------ the download


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """No file can grow beyond a mebibyte."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_download_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv(model_files.CACHE, str(tmp_path))
    Storage().write("memory://models/large.nemo", [bytes(2**21)])
    with full_disk(), pytest.raises(OSError, match="too large"):
        model_files.local_copy(Storage(), "memory://models/large.nemo")
    assert {path.suffix for path in tmp_path.iterdir()} == {".lock"}


def test_a_folder_is_refused_with_how_to_pack_it(tmp_path):
    folder = tmp_path / "x.nemo"
    folder.mkdir()
    with pytest.raises(IsADirectoryError, match=rf"{folder} is a folder.*tar -cf"):
        model_files.local_copy(Storage(), str(folder))
