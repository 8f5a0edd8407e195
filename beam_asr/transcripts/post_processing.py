"""Steps on the texts that models give, before they are scored: none of our own, but other packages
add some by entry points, as for casing, punctuation or inverse text normalization."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from beam_asr.errors import SetupError, TextStepError
from beam_asr.records.registry import Registry

RECOGNIZED_TEXT = "recognized_text"  # the field of the text that the model gave


class TextStep(NamedTuple):
    """A step on texts.

    Attributes:
        name: as `text_steps` takes it.
        apply: gives a new text of a text and the record it is in, which it does not change: a
            transcript with the row's fields, such as its language. The same text and record give
            the same text in every retry.
    """

    name: str
    apply: Callable[[str, Mapping[str, Any]], str]


TEXT_STEPS: Registry[TextStep] = Registry("beam_asr.text_steps", {})


def steps_of(names: Iterable[str]) -> list[TextStep]:
    """Returns the steps of these names, in this order.

    Raises:
        SetupError: a name is none of `TEXT_STEPS`, or what another package adds is no `TextStep` of
            its name, or cannot be imported.
    """
    steps = []
    for name in names:
        if name not in TEXT_STEPS:
            known = f"none of {', '.join(TEXT_STEPS)}" if TEXT_STEPS else "not installed: none is"
            raise SetupError(f"text_steps has {name!r}, which is {known}")
        step = TEXT_STEPS[name]
        if not isinstance(step, TextStep) or step.name != name:
            raise SetupError(
                f"{name!r} of {TEXT_STEPS.group} is {step!r}, and no TextStep of this name: update "
                "or uninstall its package"
            )
        steps.append(step)
    return steps


def apply_steps(
    record: Mapping[str, Any], steps: Iterable[TextStep], pred_text_key: str
) -> dict[str, Any]:
    """Applies steps to the text of a transcript, one after the other.

    Returns:
        The record with the new text and, as `RECOGNIZED_TEXT`, the one that the model gave. Its
        other fields, as ``words``, stay as they are. Without a step the record is the same.

    Raises:
        TextStepError: a step fails, or gives no text; names the step.
    """
    recognized = text = record[pred_text_key]
    changed = dict(record)
    for step in steps:
        try:
            text = step.apply(text, record)
        except Exception as error:
            raise TextStepError(
                f"the text step {step.name!r} failed: {type(error).__name__}: {error}. Leave it "
                "out of `text_steps`, or update its package"
            ) from error
        if not isinstance(text, str):
            raise TextStepError(
                f"the text step {step.name!r} gave {type(text).__name__} and no text. Leave it out "
                "of `text_steps`, or update its package"
            )
        changed |= {pred_text_key: text, RECOGNIZED_TEXT: recognized}
    return changed
