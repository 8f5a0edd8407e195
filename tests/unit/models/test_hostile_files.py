"""Model files that would run code, or are damaged, given to the job's own ``load``.

Every attack touches a sentinel when it works.
"""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from beam_asr.errors import ModelLoadError
from beam_asr.models import engine
from beam_asr.models.engine import ModelSpec

MEL = "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor"
WRITE_TEXT = "nemo.collections.asr.parts.utils.manifest_utils.write_text"
POPEN = "nemo.collections.asr.parts.preprocessing.perturb.subprocess.Popen"
AUTO_TOKENIZER = "nemo.collections.common.tokenizers.AutoTokenizer"
FREE_UNPICKLING = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"

Files = dict[str, bytes]


class Touch:
    """Touches a file when it is read from a pickle."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.fixture(scope="module")
def parts(tiny_model) -> Files:
    """What a good model is packed from."""
    with tarfile.open(tiny_model("ctc_char")) as tar:
        return {info.name[2:]: tar.extractfile(info).read() for info in tar if info.isreg()}


@pytest.fixture
def sentinel(tmp_path) -> Path:
    return tmp_path / "sentinel"


@pytest.fixture(autouse=True)
def unpacked(tmp_path, monkeypatch) -> Path:
    """The folder in which NeMo unpacks models."""
    folder = tmp_path / "unpacked"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def pack(path: Path, files: Files) -> str:
    with tarfile.open(path, "w:") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return str(path)


def error_of(path: str) -> str:
    """What ``load`` says of a model that it refuses."""
    with pytest.raises(ModelLoadError) as raised:
        engine.load(ModelSpec(path, "cpu"))
    assert f"cannot load the model {path!r}" in str(raised.value)
    return str(raised.value)


def with_settings(parts: Files, **settings: object) -> Files:
    changed = yaml.safe_load(parts["model_config.yaml"]) | settings
    return {"model_config.yaml": yaml.safe_dump(changed).encode()}


def with_weights(parts: Files, change: Callable[[dict], object], **options) -> Files:
    import torch

    state = torch.load(io.BytesIO(parts["model_weights.ckpt"]))
    buffer = io.BytesIO()
    torch.save(change(state), buffer, **options)
    return {"model_weights.ckpt": buffer.getvalue()}


def calling(parts: Files, target: str, *args: object, **settings: object) -> Files:
    """A model whose preprocessor is what a call returns."""
    preprocessor = {"_target_": target, **settings} | ({"_args_": list(args)} if args else {})
    return with_settings(parts, preprocessor=preprocessor)


def writing(parts: Files, sentinel: Path) -> Files:
    return calling(parts, WRITE_TEXT, output_path=str(sentinel), target_ctm=[])


def harmful_weights(parts: Files, sentinel: Path, **options) -> Files:
    return with_weights(parts, lambda state: {**state, "x": Touch(sentinel)}, **options)


def tokenizer_with_code(parts: Files, sentinel: Path) -> Files:
    """A tokenizer in the form of a repository of Hugging Face, whose class is in its own file."""
    folder = sentinel.parent / "repository"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["t.T", null]}}')
    (folder / "t.py").write_text(f"open({str(sentinel)!r}, 'w')\nclass T: pass\n")
    return calling(parts, AUTO_TOKENIZER, pretrained_model_name=str(folder), trust_remote_code=True)


ATTACKS: dict[str, tuple[Callable[[Files, Path], Files], str]] = {
    "weights": (harmful_weights, "posix.system"),
    "weights, as of old": (
        lambda parts, sentinel: harmful_weights(
            parts, sentinel, _use_new_zipfile_serialization=False
        ),
        "posix.system",
    ),
    "a bare pickle": (
        lambda _, sentinel: {"model_weights.ckpt": pickle.dumps(Touch(sentinel), 2)},
        "posix.system",
    ),
    "a pickle beside": (
        lambda _, sentinel: {"tokenizer.pkl": pickle.dumps(Touch(sentinel))},
        "tokenizer.pkl",
    ),
    "code beside": (
        lambda parts, sentinel: {
            "tests/collections/x.py": f"open({str(sentinel)!r}, 'w')".encode(),
            **calling(parts, "tests.collections.x.X"),
        },
        "x.py",
    ),
    "system": (
        lambda parts, sentinel: calling(parts, "os.system", f"touch {sentinel}"),
        "os.system",
    ),
    "eval": (
        lambda parts, sentinel: calling(parts, "builtins.eval", f"open({str(sentinel)!r}, 'w')"),
        "builtins.eval",
    ),
    "a program": (
        lambda parts, sentinel: calling(parts, "subprocess.Popen", ["touch", str(sentinel)]),
        "subprocess.Popen",
    ),
    "a program, by a module of NeMo": (
        lambda parts, sentinel: calling(parts, POPEN, ["touch", str(sentinel)]),
        "subprocess.Popen",
    ),
    "a call within a part": (
        lambda parts, sentinel: calling(
            parts, MEL, window={"_target_": "os.system", "_args_": [f"touch {sentinel}"]}
        ),
        "os.system",
    ),
    "a partial call": (
        lambda parts, sentinel: calling(
            parts,
            MEL,
            window={
                "_target_": "functools.partial",
                "_partial_": True,
                "_args_": [{"_target_": "os.system", "_args_": [f"touch {sentinel}"]}],
            },
        ),
        "functools.partial",
    ),
    "the model's class": (
        lambda parts, _: with_settings(parts, target="subprocess.Popen"),
        "subprocess.Popen",
    ),
    "YAML": (
        lambda _, sentinel: {
            "model_config.yaml": f"x: !!python/object/apply:os.system ['touch {sentinel}']".encode()
        },
        "os.system",
    ),
    "a function of NeMo": (writing, WRITE_TEXT),
    "a tokenizer with code": (tokenizer_with_code, AUTO_TOKENIZER),
}


@pytest.mark.parametrize("kind", list(ATTACKS))
@pytest.mark.parametrize("unpickling", ["restricted", "free"])
def test_nothing_of_a_model_runs(tmp_path, monkeypatch, parts, sentinel, kind, unpickling):
    if unpickling == "free":
        monkeypatch.setenv(FREE_UNPICKLING, "1")
    attack, meaning = ATTACKS[kind]
    message = error_of(pack(tmp_path / "x.nemo", parts | attack(parts, sentinel)))
    assert not sentinel.exists()
    assert meaning in message


@pytest.mark.parametrize(("attack", "env"), [(writing, "0"), (harmful_weights, "1")])
def test_nemo_alone_would_do_it(tmp_path, monkeypatch, parts, sentinel, attack, env):
    from nemo.collections.asr.models import ASRModel

    monkeypatch.setenv(FREE_UNPICKLING, env)
    path = pack(tmp_path / "x.nemo", parts | attack(parts, sentinel))
    with pytest.raises((TypeError, RuntimeError)):
        ASRModel.restore_from(path, map_location="cpu")
    assert sentinel.exists()


@pytest.mark.parametrize("unpickling", ["restricted", "free"])
def test_a_good_model_is_loaded_after_bad_ones(
    tmp_path, monkeypatch, parts, unpacked, tiny_model, unpickling
):
    if unpickling == "free":
        monkeypatch.setenv(FREE_UNPICKLING, "1")
    error_of(pack(tmp_path / "x.nemo", parts | with_weights(parts, lambda _: {})))
    model = engine.load(ModelSpec(str(tiny_model("ctc_char")), "cpu"))
    assert model.describe()["class"] == "EncDecCTCModel"
    assert not any(unpacked.iterdir())


def without_last(state: dict) -> dict:
    return dict(list(state.items())[:-1])


def shortened(state: dict) -> dict:
    return {name: weight[:1] if weight.dim() else weight for name, weight in state.items()}


DAMAGE: dict[str, tuple[Callable[[Files], Files], str]] = {
    "a configuration that is none": (lambda _: {"model_config.yaml": b"a: [b"}, "is not YAML"),
    "text for a configuration": (lambda _: {"model_config.yaml": b"hello"}, "no settings"),
    "aliases without end": (lambda _: {"model_config.yaml": b"a: &a [*a]"}, "aliases"),
    "weights cut short": (
        lambda parts: {"model_weights.ckpt": parts["model_weights.ckpt"][:-1000]},
        "cannot be read",
    ),
    "no weights": (lambda parts: with_weights(parts, lambda _: {}), "Missing key(s)"),
    "a weight too few": (
        lambda parts: with_weights(parts, without_last),
        'Missing key(s) in state_dict: "decoder.decoder_layers.0.bias"',
    ),
    "weights of other shapes": (
        lambda parts: with_weights(parts, shortened),
        "size mismatch for encoder",
    ),
}


@pytest.mark.parametrize("kind", list(DAMAGE))
def test_a_damaged_part_is_an_error_that_names_it(tmp_path, parts, unpacked, kind):
    damage, meaning = DAMAGE[kind]
    message = error_of(pack(tmp_path / "x.nemo", parts | damage(parts)))
    assert meaning in message
    assert not any(unpacked.iterdir())


@pytest.mark.parametrize("keep", [0, 1000, 0.5, -100])
def test_a_model_that_is_cut_short_is_an_error_that_says_so(tmp_path, tiny_model, unpacked, keep):
    content = tiny_model("ctc_char").read_bytes()
    count = int(keep * len(content)) if isinstance(keep, float) else keep
    (tmp_path / "x.nemo").write_bytes(content[:count])
    message = error_of(str(tmp_path / "x.nemo"))
    assert "is empty" in message or "cut short" in message
    assert "Fetch it again" in message
    assert not any(unpacked.iterdir())


@pytest.mark.parametrize(
    ("content", "meaning"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "HTML"),
    ],
)
def test_another_file_is_an_error_that_says_what_it_is(tmp_path, content, meaning):
    (tmp_path / "x.nemo").write_bytes(content)
    assert meaning in error_of(str(tmp_path / "x.nemo"))


def test_a_folder_is_an_error_that_says_how_to_pack_it(tmp_path):
    (tmp_path / "x.nemo").mkdir()
    assert "tar -cf" in error_of(str(tmp_path / "x.nemo"))
