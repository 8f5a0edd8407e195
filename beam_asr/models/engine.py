"""What an engine is: `ModelSpec`, the `Recognizer` protocol, and the table of engines.

Nothing of an engine is imported before a model is loaded: importing NeMo takes half a minute, which
only the worker that needs it may pay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from beam_asr.errors import ModelError, SetupError
from beam_asr.records.outcome import Recognition
from beam_asr.records.registry import Registry
from beam_asr.settings import NO_PROMPT, UNLIMITED, Prompt, Resources
from beam_asr.storage.storage import Storage

if TYPE_CHECKING:
    import numpy as np  # the command line lists the engines, and --help need not pay for it


class Recognizer(Protocol):
    """A loaded model. One thread at a time may call it."""

    @property
    def sample_rate(self) -> int:
        """The rate of the waveforms it takes, in Hz."""

    @property
    def default_batch_seconds(self) -> float:
        """Padded seconds that a forward pass takes well on its device."""

    @property
    def batch_overhead_seconds(self) -> float:
        """Seconds of audio that it would transcribe in the time that any batch costs."""

    @property
    def max_clip_seconds(self) -> float:
        """Seconds of audio that it takes in one piece."""

    @property
    def segment_seconds(self) -> float:
        """Seconds of the segments that longer audio is cut into, at most the above."""

    @property
    def has_timestamps(self) -> bool:
        """Whether its results have the times of tokens: they were asked for, and it has them."""

    @property
    def weight_bytes(self) -> int:
        """Bytes of memory that its weights take."""

    @property
    def prompt_fields(self) -> frozenset[str]:
        """Those fields of a prompt that it takes; none if it takes no prompt."""

    def check_prompt(self, prompt: Prompt) -> None:
        """Refuses a prompt that it cannot follow; what it takes no field for is not looked at.

        Raises:
            PromptError: it does not know a language, or has several for it; or it would not do the
                task with these languages.
        """

    def warm_up(self, batch_size: int) -> None:
        """Finds out what its device can do, for batches of at most so many clips.

        On a GPU it takes seconds, and changes the two properties above.
        """

    def encode(self, waveforms: Sequence[np.ndarray], prompt: Prompt = NO_PROMPT) -> Any:
        """The first half of a forward pass; on a GPU it returns before that is done.

        Args:
            waveforms: mono float32 in [-1, 1] of shape ``(samples,)``, at least one sample each, at
                the model's rate.
            prompt: of all of them, one that ``check_prompt`` takes; by default all is left to the
                model, as with NeMo's ``transcribe()``.

        Returns:
            What ``decode`` takes, the prompt with it.
        """

    def decode(self, encoded: Any) -> list[Recognition | ModelError]:
        """The second half of a forward pass.

        Returns:
            One result for each waveform, in their order; an error for one that the model cannot
            transcribe. What it says of a clip does not depend on its neighbours in the batch. With
            the text comes what the model was loaded for: see ``Recognition``.
        """

    def describe(self) -> dict[str, str]:
        """What it is: model, class, device, precision, versions."""


# transcribe() pads a shorter clip with zeros on both sides to this many seconds, the odd sample
# behind, and counts the padding as audio (TranscriptionTensorDataset in
# nemo/collections/asr/parts/mixins/transcription.py). The same text takes the same input; and it
# keeps clips of less than a frame, of which NeMo makes nothing or an exception, from the model.
MIN_SECONDS = 1.0


def padded_clip_seconds(waveform: np.ndarray, sample_rate: int) -> float:
    """Seconds of a clip as a model takes it, padded if it is short."""
    return max(len(waveform) / sample_rate, MIN_SECONDS)


DEFAULT_ENGINE = "nemo"


class ModelSpec(NamedTuple):
    """Which model, and how: what makes two users of a process share one.

    Attributes:
        batch_timeout: seconds of work after which a forward pass is stuck, and the process ends.
        resources: what a worker process may use of its machine.
        attention: of the encoder (`attention`).
        times: ``required``, ``wanted`` where the model tells them, or None.
        confidence: whether to estimate it.
        n_best: how many texts, with their scores; 0 is the text alone.
        engine: of ``ENGINES``.
    """

    model_name: str
    device: str = "auto"
    decoder: str | None = None
    precision: str = "auto"
    storage: Storage = Storage()
    batch_timeout: float = 1800.0
    resources: Resources = UNLIMITED
    attention: str = "full"
    times: str | None = None
    confidence: bool = False
    n_best: int = 0
    engine: str = DEFAULT_ENGINE


class Engine(NamedTuple):
    """What loads models.

    Attributes:
        load: loads a model, on the worker. Raises ModelLoadError if the model cannot be loaded, or
            not as its spec requires.
        is_file_name: whether a model's name is a path or URI of its file, whose content then
            belongs to the identity of a run; of other names nothing is read.
    """

    load: Callable[[ModelSpec], Recognizer]
    is_file_name: Callable[[str], bool]


ENGINES: Registry[Engine] = Registry(
    "beam_asr.engines", {"nemo": "beam_asr.models.nemo.loading:ENGINE"}
)


def check_name(engine: str) -> None:
    """Raises SetupError for a name that is none of `ENGINES`, of which nothing is imported."""
    if engine not in ENGINES:
        raise SetupError(f"engine is {engine!r}, but must be one of {', '.join(ENGINES)}")


def load(spec: ModelSpec) -> Recognizer:
    """Loads a model with its engine.

    Raises:
        ModelLoadError: the model cannot be loaded, or not as its spec requires.
        SetupError: the engine is not known here, or cannot be imported.
    """
    check_name(spec.engine)
    return ENGINES[spec.engine].load(spec)
