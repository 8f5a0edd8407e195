"""A plugin of ``make quick``: a test that loads NeMo fails, and says how to leave it out there."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder


class _Refusal(MetaPathFinder):
    def find_spec(self, name: str, *_: object) -> None:
        if name.partition(".")[0] == "nemo":
            raise ImportError("this test loads NeMo, and so needs the marker `model`")


def pytest_configure() -> None:
    sys.meta_path.insert(0, _Refusal())
