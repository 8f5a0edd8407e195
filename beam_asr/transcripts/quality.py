"""What a transcript gives away about itself, without a reference: for filtering pseudo-labels."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from beam_asr.errors import SetupError
from beam_asr.records.registry import Registry
from beam_asr.transcripts.normalizers import normalizer

MAX_PHRASE_WORDS = 5  # words
DIGITS = 6
TYPES = ("string", "double", "int64", "bool")

# Of a text and its seconds of audio, which may be None or 0; gives a value of the type, or None.
SignalFunction = Callable[[str, float | None], Any]


class Signal(NamedTuple):
    """A signal of the quality of a transcript, written where `quality` is set.

    Attributes:
        name: of the field.
        type: of its values, one of `TYPES`; a value may be None too.
        description: for people, in schemas of tables.
        function: gives the value for a text and its seconds of audio, in time in proportion to the
            text.
    """

    name: str
    type: str
    description: str
    function: SignalFunction


def signals(text: str, seconds: float | None) -> dict[str, Any]:
    """Returns the signals of a transcript by their names.

    Args:
        text: the transcript.
        seconds: of audio. Where it is None or 0 there are no rates.

    Raises:
        SetupError: a signal that another package adds cannot be used.
    """
    return {each.name: each.function(text, seconds) for each in all_signals()}


def all_signals() -> list[Signal]:
    """Returns every signal of `SIGNALS`, in the order in which they are written.

    Raises:
        SetupError: one that another package adds is no `Signal` of its name and a known type.
    """
    found = list(SIGNALS.items())
    for name, each in found:
        if not isinstance(each, Signal) or each.name != name or each.type not in TYPES:
            raise SetupError(
                f"{name!r} of {SIGNALS.group} is {each!r}, and no Signal of this name with a type "
                f"of {', '.join(TYPES)}: update or uninstall its package"
            )
    return [each for _, each in found]


_OWN: dict[str, Signal] = {}


def _signal(type: str, description: str) -> Callable[[SignalFunction], Signal]:
    """Makes a function a signal of its name."""

    def decorate(function: SignalFunction) -> Signal:
        name = function.__name__
        _OWN[name] = Signal(name, type, description, function)
        return _OWN[name]

    return decorate


@_signal("double", "characters a second")
def chars_per_second(text: str, seconds: float | None) -> float | None:
    """Counts all characters, as ``get_charrate`` of NeMo's Speech Data Processor does.

    Far above what is usual, words were not said; far below, words are missing. It is null without a
    duration. The Speech Data Processor drops rows by it (``DropHighLowCharrate``).
    """
    return _rate(len(text), seconds)


@_signal("double", "words a second")
def words_per_second(text: str, seconds: float | None) -> float | None:
    """Counts what is between white space, as ``get_wordrate`` of the Speech Data Processor does.

    It shows the same as characters a second, for languages that separate words.
    """
    return _rate(len(text.split()), seconds)


@_signal("double", "bytes of the text by those that zlib makes of them")
def compression_ratio(text: str, seconds: float | None) -> float:  # noqa: ARG001
    """Divides bytes of UTF-8 by those that zlib makes of them, as Whisper's ``transcribe()`` does.

    A high one is a loop: Whisper tries again above 2.4. Long texts compress better than short ones.
    An empty text has 0, a short one less than 1.
    """
    encoded = text.encode("utf-8", "surrogatepass")
    return round(len(encoded) / len(zlib.compress(encoded)), DIGITS)


@_signal("int64", "characters of the longest word")
def longest_word(text: str, seconds: float | None) -> int:  # noqa: ARG001
    """Counts characters.

    Syllables without an end make it long (``hahahaha...``). The Speech Data Processor takes 25 and
    more for a hallucination (``DetectWhisperHallucinationFeatures``). Languages without spaces have
    longer ones.
    """
    return max(map(len, text.split()), default=0)


@_signal("int64", "most times that a phrase comes in a row")
def most_repeats(text: str, seconds: float | None) -> int:  # noqa: ARG001
    """Counts how often the phrase that is repeated most comes in a row.

    A phrase has one to five words, whatever their case and punctuation. It finds a loop in a long
    text, which the compression ratio hardly shows. 1 if nothing is repeated, 0 without a word.
    """
    return _max_phrase_repeats(normalizer("basic")(text).split())


SIGNALS: Registry[Signal] = Registry(
    "beam_asr.signals", {name: f"{__name__}:{name}" for name in _OWN}
)


def _rate(count: int, seconds: float | None) -> float | None:
    return round(count / seconds, DIGITS) if seconds and seconds > 0 else None


def _max_phrase_repeats(words: Sequence[str]) -> int:
    """A phrase of some words is repeated as long as each word is the one so many words before."""
    if not words:
        return 0
    most = 1
    for length in range(1, MAX_PHRASE_WORDS + 1):
        same = map(str.__eq__, words, itertools.islice(words, length, None))
        runs = (sum(1 for _ in run) for equal, run in itertools.groupby(same) if equal)
        most = max(most, max(runs, default=0) // length + 1)
    return most
