"""Captures the CUDA graphs of a transducer's greedy decoding once, at their maximum size.

NeMo captures a graph for exactly the batch at hand, and again whenever one has more clips or more
frames than the graph (``_graph_reinitialize`` in
nemo/collections/asr/parts/submodules/transducer_decoding/), so that batches of changing shapes are
captured over and over. Here a graph is captured for the largest usual batch, and larger batches are
decoded without one.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from beam_asr.errors import for_message

logger = logging.getLogger(__name__)


class DecodingGraphs:
    """Holds the graphs of a transducer; has none if its decoding has none, or for None."""

    def __init__(self, model: Any):
        decoding = getattr(getattr(model, "decoding", None), "decoding", None)
        self._computer = getattr(decoding, "decoding_computer", None)
        self._clips = self._frames = 0
        self._failure = ""

    @property
    def enabled(self) -> bool:
        """Tells whether the decoding would use graphs."""
        return getattr(self._computer, "cuda_graphs_mode", None) is not None

    @property
    def mode(self) -> str:
        """Returns ``full_graph``, ``no_while_loops`` (slower), or ``off`` and the reason."""
        if self.enabled:
            assert self._computer is not None
            return str(self._computer.cuda_graphs_mode.value)
        return f"off: {self._failure}" if self._failure else "off"

    def capture(self, decode: Any, clips: int, frames: int) -> None:
        """Captures the graphs by a call of ``decode``, and disables them if that fails.

        Args:
            decode: decodes a batch of ``clips`` clips and ``frames`` frames.
        """
        self._clips, self._frames = clips, frames
        try:
            decode()
        except Exception as error:
            assert self._computer is not None
            self._computer.disable_cuda_graphs()
            self._failure = for_message(
                " ".join(f"{type(error).__name__}: {error}".split()), 300, gap=""
            )
            logger.warning("Decoding without CUDA graphs, which is slower: %s", self._failure)

    @contextlib.contextmanager
    def limited_to(self, clips: int, frames: int) -> Iterator[None]:
        """Disables the graphs, within the context, for a batch larger than the captured size."""
        if not self.enabled or (clips <= self._clips and frames <= self._frames):
            yield
            return
        assert self._computer is not None
        mode, self._computer.cuda_graphs_mode = self._computer.cuda_graphs_mode, None
        try:
            yield
        finally:
            self._computer.cuda_graphs_mode = mode
