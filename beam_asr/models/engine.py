"""Defines engines: `ModelSpec`, the `Recognizer` protocol and the registry of engines.

An engine is imported only when a model is loaded: importing NeMo takes half a minute, which only
the worker that needs it should pay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from beam_asr.errors import ModelError, SetupError
from beam_asr.records.outcome import Recognition
from beam_asr.records.prompt import NO_PROMPT, Prompt
from beam_asr.records.registry import Registry
from beam_asr.settings import UNLIMITED, Resources
from beam_asr.storage.storage import Storage

if TYPE_CHECKING:
    import numpy as np  # the command line lists the engines, and --help need not import it


class Recognizer(Protocol):
    """A loaded model. One thread at a time may call it."""

    @property
    def sample_rate(self) -> int:
        """Returns the sample rate of the waveforms that it takes, in Hz."""

    @property
    def default_batch_seconds(self) -> float:
        """Returns the padded seconds of audio of a forward pass that suits its device."""

    @property
    def batch_overhead_seconds(self) -> float:
        """Returns the fixed cost of a batch, as seconds of audio transcribed in the same time."""

    @property
    def max_clip_seconds(self) -> float:
        """Returns the seconds of audio that it takes in one piece, at most."""

    @property
    def segment_seconds(self) -> float:
        """Returns the seconds of the segments of longer audio, at most `max_clip_seconds`."""

    @property
    def has_timestamps(self) -> bool:
        """Tells whether its results have times of tokens: requested, and supported."""

    @property
    def weight_bytes(self) -> int:
        """Returns the bytes of memory that its weights take."""

    @property
    def prompt_fields(self) -> frozenset[str]:
        """Returns the fields of a prompt that it takes; empty if it takes no prompt."""

    def check_prompt(self, prompt: Prompt) -> None:
        """Refuses a prompt that it cannot follow; fields that it does not take are ignored.

        Raises:
            PromptError: it does not know a language, or has several for it; or it would not do the
                task with these languages.
        """

    def warm_up(self, batch_size: int) -> None:
        """Measures its device, for batches of at most ``batch_size`` clips.

        On a GPU it takes seconds, and changes `default_batch_seconds` and
        `batch_overhead_seconds`.
        """

    def encode(self, waveforms: Sequence[np.ndarray], prompt: Prompt = NO_PROMPT) -> Any:
        """Runs the first half of a forward pass; on a GPU it returns before that is done.

        Args:
            waveforms: mono float32 in [-1, 1] of shape ``(samples,)``, at least one sample each, at
                the model's rate.
            prompt: of all of them, one that ``check_prompt`` accepts; by default all is left to
                the model, as with NeMo's ``transcribe()``.

        Returns:
            The argument of ``decode``, which includes the prompt.
        """

    def decode(self, encoded: Any) -> list[Recognition | ModelError]:
        """Runs the second half of a forward pass.

        Returns:
            One result for each waveform, in their order; an error for one that the model cannot
            transcribe. The result of a clip does not depend on its neighbors in the batch. It has
            the text, and the times, confidence and other texts that the model was loaded for: see
            ``Recognition``.
        """

    def describe(self) -> dict[str, str]:
        """Returns the model, its class, device, precision and versions, by name."""


# transcribe() pads a shorter clip with zeros on both sides to this many seconds, the odd sample
# behind, and counts the padding as audio (TranscriptionTensorDataset in
# nemo/collections/asr/parts/mixins/transcription.py). The same text needs the same input; and it
# keeps clips shorter than a frame, for which NeMo returns nothing or raises, from the model.
MIN_SECONDS = 1.0


def padded_clip_seconds(waveform: np.ndarray, sample_rate: int) -> float:
    """Returns the seconds of a clip as a model takes it, padded if it is short."""
    return max(len(waveform) / sample_rate, MIN_SECONDS)


DEFAULT_ENGINE = "nemo"


class ModelSpec(NamedTuple):
    """Which model to load, and how; two users in a process with equal specs share one model.

    Attributes:
        batch_timeout: seconds of work after which a forward pass is stuck, and the process ends.
        resources: what a worker process may use of its machine.
        attention: of the encoder (`attention`).
        times: ``required``, ``wanted`` (if the model has them), or None.
        confidence: whether to estimate it.
        n_best: number of texts with scores; 0 is the text alone.
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
    """Loads models.

    Attributes:
        load: loads a model, on the worker. Raises ModelLoadError if the model cannot be loaded, or
            not as its spec requires.
        is_file_name: tells whether a model's name is a path or URI of its file, whose content then
            belongs to the identity of a run; for other names nothing is read.
    """

    load: Callable[[ModelSpec], Recognizer]
    is_file_name: Callable[[str], bool]


ENGINES: Registry[Engine] = Registry(
    "beam_asr.engines", {"nemo": "beam_asr.models.nemo.loading:ENGINE"}
)


def check_name(engine: str) -> None:
    """Raises SetupError for a name that is not in `ENGINES`; imports no engine."""
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
