"""Everything that can be asked for."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from beam_asr.errors import (
    AboveMaxDurationError,
    BelowMinDurationError,
    ChannelCountError,
    SampleRateError,
)


class AudioChecks(NamedTuple):
    """None checks nothing.

    Attributes:
        min_duration: seconds that a row's audio has at least.
        max_duration: seconds that it has at most.
        sample_rate: of its file, in Hz.
        channels: of its file.
    """

    min_duration: float | None = None
    max_duration: float | None = None
    sample_rate: int | None = None
    channels: int | None = None

    def check_file(self, name: str, sample_rate: int, channels: int) -> None:
        """Raises SampleRateError or ChannelCountError."""
        if self.sample_rate is not None and sample_rate != self.sample_rate:
            raise SampleRateError(
                f"{name}: its sample rate is {sample_rate} Hz, and "
                f"--required_sample_rate={self.sample_rate} refuses all others."
            )
        if self.channels is not None and channels != self.channels:
            raise ChannelCountError(
                f"{name}: has {channels} {'channel' if channels == 1 else 'channels'}, and "
                f"--required_channels={self.channels} refuses all others."
            )

    def check_duration(self, name: str, seconds: float) -> None:
        """Raises BelowMinDurationError or AboveMaxDurationError."""
        if self.min_duration is not None and seconds < self.min_duration:
            raise BelowMinDurationError(
                f"{name}: has {seconds:.3f} s, and --min_duration={self.min_duration:g} refuses "
                "less."
            )
        if self.max_duration is not None and seconds > self.max_duration:
            raise AboveMaxDurationError(
                f"{name}: has {seconds:.3f} s, and --max_duration={self.max_duration:g} refuses "
                "more."
            )


NO_CHECKS = AudioChecks()
DEVICES = ("auto", "cuda", "cpu")
DECODERS = ("rnnt", "ctc")
PRECISIONS = ("auto", "fp32", "bf16")
COMPRESSIONS = ("gzip", "zstd")
SEGMENTATIONS = ("vad", "fixed", "none")
ATTENTIONS = ("full", "local", "chunked")
PARTIALS = ("fail", "keep")
TIMESTAMPS = ("word", "segment", "char")
CONFIDENCES = ("word", "row")
UNMAPPED = ("fail", "default")
TASKS = ("transcribe", "translate")
PNC = ("yes", "no")
AUDIO_CHECKS = ("fail", "filter")
NORMALIZERS = ("none", "basic", "whisper")
MIN_SEGMENT_SECONDS = 5.0  # seconds, as --max_segment_seconds
# How far 1/n may be from a fraction that stands for it, as 0.33 for a third.
FRACTION_ERROR = 0.05


@dataclasses.dataclass(frozen=True)
class Resources:
    """What was asked for. The fields are flags of the same names; None asks for nothing.

    Attributes:
        gpus: of a worker machine, each with a process and a model of its own; 1/n has n processes
            share one.
        cpus: that a worker process may use.
        gpu_memory_gb: of its GPU's memory, in units of 10^9 bytes, that a worker process may use.
        model_copies: processes that share a GPU.

    Raises:
        ValueError: one is out of its range, or two say different things.
    """

    gpus: float | None = None
    cpus: int | None = None
    gpu_memory_gb: float | None = None
    model_copies: int = 1

    def __post_init__(self) -> None:
        gpus = self.gpus
        if gpus is not None and not (_is_whole(gpus) if gpus >= 1 else _is_part(gpus)):
            raise ValueError(
                f"gpus is {gpus:g}, but must be a whole number, or a fraction such as 0.5 or 0.25"
            )
        if self.cpus is not None and self.cpus < 1:
            raise ValueError(f"cpus is {self.cpus}, but must be at least 1")
        if self.gpu_memory_gb is not None and not self.gpu_memory_gb > 0:
            raise ValueError(f"gpu_memory_gb is {self.gpu_memory_gb:g}, but must be above 0")
        if self.model_copies < 1:
            raise ValueError(f"model_copies is {self.model_copies}, but must be at least 1")
        if self.model_copies not in (1, self.copies):
            raise ValueError(
                f"gpus={gpus:g} has {self.copies} processes share a GPU, and "
                f"model_copies={self.model_copies} has {self.model_copies}: leave one of them out"
            )

    @property
    def cards(self) -> int:
        """GPUs of a machine that are used."""
        return 1 if self.gpus is None or self.gpus < 1 else round(self.gpus)

    @property
    def copies(self) -> int:
        """Processes that share a GPU."""
        if self.gpus is not None and self.gpus < 1:
            return round(1 / self.gpus)
        return self.model_copies

    @property
    def processes(self) -> int:
        """Processes of a machine."""
        return self.cards * self.copies

    @property
    def asked_processes(self) -> str:
        """The flags that say how many processes there are; empty if none does."""
        gpus = [] if self.gpus is None else [f"--gpus={self.gpus:g}"]
        copies = [f"--model_copies={self.model_copies}"] if self.model_copies > 1 else []
        return " ".join(gpus + copies)

    @property
    def asked_gpu(self) -> str:
        """The flags that mean nothing without a GPU; empty if none is given."""
        given = {"--gpus": self.gpus, "--gpu_memory_gb": self.gpu_memory_gb}
        return " ".join(f"{flag}={value:g}" for flag, value in given.items() if value is not None)


UNLIMITED = Resources()


def _is_whole(number: float) -> bool:
    return number == round(number)


def _is_part(number: float) -> bool:
    return number > 0 and abs(1 / number - round(1 / number)) < FRACTION_ERROR


class Prompt(NamedTuple):
    """What a model is told of a clip; None is left to the model.

    Attributes:
        source_lang: the language that is spoken, as a tag: ``en``, ``en-US``, ``es_419``.
        target_lang: the language of the text, likewise.
        task: ``transcribe`` or ``translate``.
        pnc: ``yes`` for punctuation and capitals, or ``no``.
    """

    source_lang: str | None = None
    target_lang: str | None = None
    task: str | None = None
    pnc: str | None = None


NO_PROMPT = Prompt()


@dataclasses.dataclass(frozen=True)
class ModelRoute:
    """A model, and how rows are given to it; ``Transcribe`` says what its arguments mean.

    Raises:
        ValueError: a value is out of its range.
    """

    model_name: str
    decoder: str | None = None
    precision: str = "auto"
    attention: str = "full"
    batch_size: int = 128
    max_batch_seconds: float | None = None
    max_segment_seconds: float | None = None
    channel: int | None = None
    source_lang: str | None = None
    target_lang: str | None = None
    task: str | None = None
    pnc: str | None = None
    min_duration: float | None = None
    max_duration: float | None = None
    required_sample_rate: int | None = None
    required_channels: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.model_name, str) or not self.model_name.strip():
            raise ValueError(f"model_name is {self.model_name!r}, not the name of a model")
        for name, allowed in CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                known = ", ".join(filter(None, allowed))
                raise ValueError(f"{name} is {value!r}, but must be one of {known}")
        for name, (numbers, least, above) in RANGES.items():
            value = getattr(self, name)
            if value is None and name not in REQUIRED:
                continue
            if isinstance(value, bool) or not isinstance(value, numbers):
                raise ValueError(f"{name} is {value!r}, not a number of its kind")
            if not (value > least if above else value >= least):
                bound = "above" if above else "at least"
                raise ValueError(f"{name} is {value}, but must be {bound} {least:g}")
        for name in ("source_lang", "target_lang"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, str) and value.strip()):
                raise ValueError(f"{name} is {value!r}, not a language")
        if self.min_duration and self.max_duration and self.min_duration > self.max_duration:
            raise ValueError(
                f"min_duration={self.min_duration:g} is above max_duration={self.max_duration:g}"
            )

    @property
    def prompt(self) -> Prompt:
        return Prompt(self.source_lang, self.target_lang, self.task, self.pnc)

    @property
    def checks(self) -> AudioChecks:
        return AudioChecks(
            self.min_duration, self.max_duration, self.required_sample_rate, self.required_channels
        )


CHOICES: dict[str, tuple[Any, ...]] = {
    "decoder": (None, *DECODERS),
    "precision": PRECISIONS,
    "attention": ATTENTIONS,
    "task": (None, *TASKS),
    "pnc": (None, *PNC),
}
# What numbers they are, and the least, which some must be above.
RANGES: dict[str, tuple[Any, float, bool]] = {
    "batch_size": (int, 1, False),
    "max_batch_seconds": ((int, float), 0, True),
    "max_segment_seconds": ((int, float), MIN_SEGMENT_SECONDS, False),
    "channel": (int, 0, False),
    "min_duration": ((int, float), 0, True),
    "max_duration": ((int, float), 0, True),
    "required_sample_rate": (int, 1, False),
    "required_channels": (int, 1, False),
}
REQUIRED = ("batch_size",)
SETTINGS = tuple(field.name for field in dataclasses.fields(ModelRoute))


class TranscriptFields(NamedTuple):
    """What a transcript is to hold.

    Attributes:
        pred_text_key: the field of the text.
        timestamps: of ``options.TIMESTAMPS``.
        confidence: of ``options.CONFIDENCES``, or None.
        n_best: how many texts; 0 for none but the text.
        models: the names of the models by their numbers (`routes`), for ``model``; empty for none.
    """

    pred_text_key: str = "pred_text"
    timestamps: tuple[str, ...] = ()
    confidence: str | None = None
    n_best: int = 0
    models: tuple[str, ...] = ()

    @property
    def tokens(self) -> bool:
        """Whether the tokens of a text are needed."""
        return bool(self.timestamps) or self.confidence is not None
