"""Defines decoder families, which make hypotheses of batches of audio.

They work in two halves, so that on a GPU one batch can be decoded while the next one is encoded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from beam_asr.errors import PromptError
from beam_asr.models.nemo.decoding import DecodingRequest
from beam_asr.models.nemo.hypotheses import Tokens
from beam_asr.records.prompt import NO_PROMPT, Prompt

if TYPE_CHECKING:
    import torch


class Family(Protocol):
    """Runs a model in two halves, both on the model's device, in inference mode."""

    def encode(
        self, signal: torch.Tensor, lengths: torch.Tensor, prompt: Prompt = NO_PROMPT
    ) -> tuple[torch.Tensor, ...]:
        """Runs the encoder.

        Args:
            signal: zero-padded float32 of shape (batch, samples).
            lengths: int64 of shape (batch,), in samples.
            prompt: of all the clips; fields that the model does not take are ignored.

        Returns:
            The arguments of ``decode``, with the prompt, each of shape (batch, ...).

        Raises:
            PromptError: the model does not know a language of the prompt.
        """

    def finite(self, *encoded: torch.Tensor) -> torch.Tensor:
        """Tells which clips have neither NaN nor infinity: bool of shape (batch,).

        Only a clip's frames count, not its padding. Nothing waits for the device.
        """

    def decode(self, *encoded: torch.Tensor) -> list[Any]:
        """Returns NeMo's hypotheses, one for each clip, or a list of the n best."""


class TokenSource(Protocol):
    """Reads tokens and scores from a family's hypotheses."""

    @property
    def has_timestamps(self) -> bool:
        """Tells whether tokens have times, and times were requested."""

    def tokens(self, hypothesis: Any) -> Tokens:
        """Returns the tokens of the best of a clip's hypotheses, as ``decode`` returned them."""

    def score(self, hypothesis: Any) -> float:
        """Returns the log-probability by which NeMo ranks hypotheses of the same clip."""


class DecoderFamily(Family, TokenSource, Protocol):
    """Combines `Family` and `TokenSource` with prompts and the traits of a family.

    Attributes:
        prompt_fields: the fields of a prompt that the model takes.
        frame_axis: the axis of frames in the first tensor that ``encode`` returns, if the decoder
            takes it frame by frame, so that a clip may be encoded in parts; else None.
        attends_to_whole_clip: whether the decoder attends to all frames, of which there are few.
        has_decoding_graphs: whether NeMo's greedy decoding may have CUDA graphs.
    """

    prompt_fields: frozenset[str]
    frame_axis: int | None
    attends_to_whole_clip: bool
    has_decoding_graphs: bool

    @staticmethod
    def configure(model: Any, model_name: str, request: DecodingRequest) -> None:
        """Configures the decoder of a model so that its hypotheses have what is requested.

        The text stays the same, unless more than one is requested, which takes a beam search.

        Raises:
            ModelLoadError: the model does not have the confidence or the texts requested.
        """

    def __init__(self, model: Any, request: DecodingRequest = ...):
        """Takes a model whose decoder is configured for the request."""

    def check_prompt(self, prompt: Prompt) -> None:
        """Raises PromptError if the model cannot follow it."""

    def any_prompt(self) -> Prompt:
        """Returns a prompt that it can follow, for audio without speech."""


class FamilyDefaults:
    """Defaults of a family: no prompt, no encoding in parts, and no CUDA graphs."""

    frame_axis: int | None = None
    attends_to_whole_clip = False
    has_decoding_graphs = False
    prompt_fields: frozenset[str] = frozenset()
    _languages: Mapping[str, object] = {}

    def check_prompt(self, prompt: Prompt) -> None:
        """Accepts any prompt, since the model takes none."""

    def any_prompt(self) -> Prompt:
        """Returns the model's default prompt, or one in a language that it knows."""
        try:
            self.check_prompt(NO_PROMPT)
        except PromptError:
            language = next(iter(self._languages), None)
            return Prompt(source_lang=language, target_lang=language)
        return NO_PROMPT


def all_finite(states: torch.Tensor, dim: int) -> torch.Tensor:
    """Tells which frames are free of NaN and infinity; minimum and maximum preserve both."""
    return states.amin(dim).isfinite() & states.amax(dim).isfinite()


def all_finite_within(frames_finite: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """Tells which clips are finite up to their lengths.

    Args:
        frames_finite: bool of shape (batch, frames).
        frames: lengths of the clips, of shape (batch,).

    Returns:
        bool of shape (batch,).
    """
    return (frames_finite | (column_indices(frames_finite) >= frames[:, None])).all(dim=1)


def column_indices(rows: torch.Tensor) -> torch.Tensor:
    """Returns 0, 1, 2, ... for the columns, of shape (columns,)."""
    return rows.new_ones(rows.shape[1:]).cumsum(0) - 1
