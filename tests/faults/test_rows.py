"""Each fault of a row or its audio costs that row alone, and says what it is."""

from __future__ import annotations

import soundfile

from tests.faults import kinds
from tests.faults.injection import inject
from tests.support.tiny_models import speechlike


def test_each_fault_fails_its_row_by_its_own_class_and_no_other(tiny_model, http_server, tmp_path):
    good = []
    for index in range(30):
        path = tmp_path / f"good{index}.flac"
        soundfile.write(path, speechlike(0.3 + 0.1 * index, seed=index), kinds.RATE)
        good.append({"audio_filepath": str(path), "n": index})
    faults = kinds.of_manifests(tmp_path) + kinds.of_audio(tmp_path, http_server)
    assert len({fault.name for fault in faults}) == len(faults) >= 40
    flags = [f"--model_name={tiny_model('ctc_bpe')}", "--audio_timeout=8"]
    findings = inject(faults, good, tmp_path, flags)
    assert findings.wrong == []
    assert findings.counts == (30 + len(faults), 30, len(faults))
