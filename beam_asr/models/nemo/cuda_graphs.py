"""CUDA graphs of a transducer's greedy decoding: captured once, and left alone.

NeMo captures a graph for exactly the batch at hand, and again whenever one has more clips or more
frames than the graph (``_graph_reinitialize`` in
nemo/collections/asr/parts/submodules/transducer_decoding/), so that batches of changing shapes are
captured over and over. Here a graph is captured for as much as will come, and what is above that
is decoded without one.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from beam_asr.errors import for_message

logger = logging.getLogger(__name__)


class DecodingGraphs:
    """The graphs of a transducer; none, if its decoding has none, or of None."""

    def __init__(self, model: Any):
        decoding = getattr(getattr(model, "decoding", None), "decoding", None)
        self._computer = getattr(decoding, "decoding_computer", None)
        self._clips = self._frames = 0
        self._failure = ""

    @property
    def wanted(self) -> bool:
        return getattr(self._computer, "cuda_graphs_mode", None) is not None

    @property
    def mode(self) -> str:
        """``full_graph``, ``no_while_loops`` (slower), or ``off`` and why."""
        if self.wanted:
            assert self._computer is not None
            return str(self._computer.cuda_graphs_mode.value)
        return f"off: {self._failure}" if self._failure else "off"

    def capture(self, decode: Any, clips: int, frames: int) -> None:
        """Captures them by a call of ``decode``; without them, if that fails.

        Args:
            decode: decodes a batch of so many clips and frames.
        """
        self._clips, self._frames = clips, frames
        try:
            decode()
        except Exception as error:
            assert self._computer is not None
            self._computer.disable_cuda_graphs()
            self._failure = for_message(" ".join(f"{type(error).__name__}: {error}".split()), 300)
            logger.warning("Decoding without CUDA graphs, which is slower: %s", self._failure)

    @contextlib.contextmanager
    def fitting(self, clips: int, frames: int) -> Iterator[None]:
        """Within, a batch that is above what was captured is decoded without graphs."""
        if not self.wanted or (clips <= self._clips and frames <= self._frames):
            yield
            return
        assert self._computer is not None
        mode, self._computer.cuda_graphs_mode = self._computer.cuda_graphs_mode, None
        try:
            yield
        finally:
            self._computer.cuda_graphs_mode = mode
