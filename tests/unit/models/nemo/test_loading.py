"""Models that cannot be loaded, and models of other storages."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from beam_asr.errors import ModelLoadError
from beam_asr.models import engine, files
from beam_asr.models.engine import ModelSpec
from beam_asr.storage.storage import Storage


def test_a_decoder_that_the_model_does_not_have_is_refused(tiny_model):
    with pytest.raises(ModelLoadError, match=r"`decoder=ctc` .* EncDecRNNTBPEModel"):
        engine.load(ModelSpec(str(tiny_model("tdt_bpe")), "cpu", "ctc"))


@pytest.mark.parametrize("content", [None, b"", b"no tar at all"])
def test_a_file_that_is_no_model_is_one_clear_error(tmp_path, content):
    path = tmp_path / "x.nemo"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RuntimeError) as raised:
        engine.load(ModelSpec(str(path), "cpu"))
    assert "x.nemo" in str(raised.value)
    assert ("Fetch it again" if content is not None else "whole .nemo file") in str(raised.value)


@pytest.mark.parametrize("name", ["nvidia/no-such-model-beam-asr", "no_such_ngc_model"])
def test_a_hub_name_that_cannot_be_had_is_one_clear_error(name, monkeypatch):
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "2")
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "2")
    with pytest.raises(RuntimeError) as raised:
        engine.load(ModelSpec(name, "cpu"))
    assert f"cannot load the model '{name}'" in str(raised.value)
    assert "HF_TOKEN" in str(raised.value)


def test_a_model_elsewhere_is_downloaded_once_a_machine(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv(files.CACHE, str(tmp_path / "cache"))
    uri = "memory://models/tiny.nemo"
    storage = Storage()
    storage.write(uri, [tiny_model("ctc_bpe").read_bytes()])
    opened = []
    open_file = Storage.open

    def counted(self, uri):
        opened.append(threading.get_ident())
        return open_file(self, uri)

    monkeypatch.setattr(Storage, "open", counted)
    with ThreadPoolExecutor(4) as pool:
        copies = set(pool.map(lambda _: files.local_copy(storage, uri), range(8)))
    assert len(copies) == 1
    assert len(opened) == 1
    assert engine.load(ModelSpec(uri, "cpu")).describe()["class"] == "EncDecCTCModelBPE"
    assert len(opened) == 1

    storage.write(uri, [tiny_model("rnnt_bpe").read_bytes()])
    assert engine.load(ModelSpec(uri, "cpu")).describe()["class"] == "EncDecRNNTBPEModel"
