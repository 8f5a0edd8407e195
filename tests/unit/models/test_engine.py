"""The table of engines."""

from __future__ import annotations

import subprocess
import sys

import pytest

from beam_asr import Transcribe
from beam_asr.errors import SetupError
from beam_asr.models import engine
from beam_asr.models.engine import ENGINES, ModelSpec
from tests.support.job_files import REPOSITORY


def test_an_unknown_engine_is_refused_with_the_known_ones():
    with pytest.raises(SetupError, match="engine is 'whisper', but must be one of nemo"):
        Transcribe(model_name="a.nemo", engine="whisper")
    with pytest.raises(SetupError, match="engine is 'whisper', but must be one of nemo"):
        engine.load(ModelSpec("a.nemo", engine="whisper"))


@pytest.mark.parametrize(
    ("name", "expected"), [("a.nemo", True), ("gs://b/a.nemo", True), ("nvidia/parakeet", False)]
)
def test_the_engine_knows_what_is_a_file(name, expected):
    assert ENGINES["nemo"].is_file_name(name) is expected


def test_neither_a_look_at_the_table_nor_one_at_a_name_imports_nemo_or_torch():
    code = (
        "import sys\n"
        "from beam_asr.models.engine import ENGINES\n"
        "assert list(ENGINES) == ['nemo'] and 'beam_asr.models.nemo' not in sys.modules\n"
        "ENGINES['nemo'].is_file_name('a.nemo')\n"
        "assert not {'nemo', 'torch'} & sys.modules.keys()\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
