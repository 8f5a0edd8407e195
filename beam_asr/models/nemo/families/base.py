"""The decoder families of NeMo's models: how each of them makes hypotheses of a batch.

In two halves, so that on a GPU one batch can be decoded while the next one is encoded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from beam_asr.errors import PromptError
from beam_asr.models.nemo.decoding import DecodingRequest
from beam_asr.models.nemo.hypotheses import Tokens
from beam_asr.settings import NO_PROMPT, Prompt

if TYPE_CHECKING:
    import torch


class Family(Protocol):
    """A model by its two halves; both on the model's device, in inference mode."""

    def encode(
        self, signal: torch.Tensor, lengths: torch.Tensor, prompt: Prompt = NO_PROMPT
    ) -> tuple[torch.Tensor, ...]:
        """Runs the encoder.

        Args:
            signal: zero-padded float32 of shape (batch, samples).
            lengths: int64 of shape (batch,), in samples.
            prompt: of all the clips; what a model does not take of it is left out.

        Returns:
            What ``decode`` takes, the prompt too. Of shape (batch, ...) each.

        Raises:
            PromptError: the model does not know a language of the prompt.
        """

    def finite(self, *encoded: torch.Tensor) -> torch.Tensor:
        """Whether there is neither NaN nor infinity in a clip: bool of shape (batch,).

        Only a clip's own frames count. Nothing waits for the device.
        """

    def decode(self, *encoded: torch.Tensor) -> list[Any]:
        """NeMo's hypotheses, one for each clip, or a list of the n best."""


class TokenSource(Protocol):
    """What a family's hypotheses tell besides the text."""

    @property
    def has_timestamps(self) -> bool:
        """Whether tokens have times, which were asked for."""

    def tokens(self, hypothesis: Any) -> Tokens:
        """The tokens of the best hypothesis of a clip, of those that ``decode`` gave."""

    def score(self, hypothesis: Any) -> float:
        """A log-probability, by which NeMo ranks hypotheses of the same clip."""


class DecoderFamily(Family, TokenSource, Protocol):
    """Both, what a prompt may say, and what else differs between families.

    Attributes:
        prompt_fields: those fields of a prompt that the model takes.
        frame_axis: the axis of frames in the first tensor that ``encode`` gives, if the decoder
            takes it frame by frame, so that a clip may be encoded in parts; else None.
        attends_to_whole_clip: whether the decoder attends to all frames, of which there are few.
        has_decoding_graphs: whether NeMo's greedy decoding may have CUDA graphs.
    """

    prompt_fields: frozenset[str]
    frame_axis: int | None
    attends_to_whole_clip: bool
    has_decoding_graphs: bool

    @staticmethod
    def configure(model: Any, model_name: str, extras: DecodingRequest) -> None:
        """Configures the decoder of a model so that its hypotheses tell what is wanted.

        The text stays as it is, but where more than one is wanted, which takes a beam search.

        Raises:
            ModelLoadError: the model cannot tell the confidence or the texts that are wanted.
        """

    def __init__(self, model: Any, extras: DecodingRequest = ...):
        """Takes a model whose decoder is configured for these extras."""

    def check_prompt(self, prompt: Prompt) -> None:
        """Raises PromptError if the model cannot follow it."""

    def any_prompt(self) -> Prompt:
        """One that it can follow, for what is no speech in any language."""


class FamilyDefaults:
    """What holds for a family unless it says otherwise: it takes nothing of a prompt, its encoder
    takes clips as a whole, and its decoding has no CUDA graphs."""

    frame_axis: int | None = None
    attends_to_whole_clip = False
    has_decoding_graphs = False
    prompt_fields: frozenset[str] = frozenset()
    _languages: Mapping[str, object] = {}

    def check_prompt(self, prompt: Prompt) -> None:
        pass

    def any_prompt(self) -> Prompt:
        """The model's own, or if that is of a language it does not know, one of those it does."""
        try:
            self.check_prompt(NO_PROMPT)
        except PromptError:
            language = next(iter(self._languages), None)
            return Prompt(source_lang=language, target_lang=language)
        return NO_PROMPT


def all_finite(states: torch.Tensor, dim: int) -> torch.Tensor:
    """Whether each frame is free of NaN and infinity, which a least and a largest value keep."""
    return states.amin(dim).isfinite() & states.amax(dim).isfinite()


def all_finite_within(frames_finite: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """Whether all of a clip's own frames are; bool of shape (batch,), of (batch, frames)."""
    return (frames_finite | (column_indices(frames_finite) >= frames[:, None])).all(dim=1)


def column_indices(rows: torch.Tensor) -> torch.Tensor:
    """0, 1, 2, ... for the columns, of shape (columns,)."""
    return rows.new_ones(rows.shape[1:]).cumsum(0) - 1
