"""Makes prompts for multitask models: languages, task and punctuation.

Values come from the row's fields, which are those of NeMo's manifests for Canary, then from the
flags, then from the model's defaults.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from beam_asr.errors import PromptError, for_message
from beam_asr.records.prompt import NO_PROMPT, Prompt

TRANSCRIBE, TRANSLATE = "transcribe", "translate"
# As NeMo's manifests and transcribe() spell them (nemo/collections/common/prompts/canary.py).
TASKS = dict.fromkeys(("transcribe", "asr"), TRANSCRIBE) | dict.fromkeys(
    ("translate", "ast", "s2t_translation"), TRANSLATE
)
PNC = dict.fromkeys(("yes", "pnc", "true", "1"), "yes") | dict.fromkeys(
    ("no", "nopnc", "false", "0"), "no"
)
MAX_LISTED = 30  # languages, in a message
MAX_CHARACTERS = 80  # of a value, in a message
Known = TypeVar("Known", int, str)


CHOICES = {"task": (TRANSCRIBE, TRANSLATE), "pnc": ("yes", "no")}


def of_row(
    fields: Mapping[str, Any],
    default: Prompt,
    lang_key: str = "lang",
    taken: Collection[str] = Prompt._fields,
) -> Prompt:
    """Returns the prompt of a row: its fields take precedence over the defaults.

    The fields are ``source_lang``, ``target_lang``, ``task`` or ``taskname``, and ``pnc``; one that
    is null or blank counts as missing. If there is a source language, and neither a target language
    nor a task to translate, then the target is the source; NeMo's ``transcribe()`` would take
    English and so translate speech in any other language.

    Args:
        fields: of the row.
        default: the values of the flags.
        lang_key: the field with the language of the row; its value, if it is a text, is the source
            language where nothing else names one.
        taken: the fields of a prompt that the model takes; no other is read or set.

    Raises:
        PromptError: a field has a value that it cannot have.
    """
    if not taken:
        return NO_PROMPT
    source = _language(fields, "source_lang") or default.source_lang
    if source is None and isinstance(fields.get(lang_key), str):
        source = _language(fields, lang_key)
    target = _language(fields, "target_lang") or default.target_lang
    task = pnc = None
    if "task" in taken:  # "task" first, as NeMo has it
        task = _choice(fields, "task", TASKS) or _choice(fields, "taskname", TASKS) or default.task
    if "pnc" in taken:
        pnc = _choice(fields, "pnc", PNC) or default.pnc
    if target is None and task != TRANSLATE:
        target = source
    prompt = Prompt(source, target, task, pnc)
    return prompt._replace(**{field: None for field in Prompt._fields if field not in taken})


def check_choices(prompt: Prompt) -> None:
    """Raises PromptError if the task or the punctuation is not one that models know."""
    for field, allowed in CHOICES.items():
        value = getattr(prompt, field)
        if value is not None and value not in allowed:
            raise _choice_error(field, value, allowed)


def language_of(tag: str, known: Mapping[str, Known], field: str) -> Known:
    """Looks up a language of a model by a tag as people write it.

    Letters' case and ``_`` for ``-`` do not matter. The tag itself is tried first, then the tag
    with subtags cut from its right (``es-419``, ``es``), then a longer tag of the same language
    (``de-DE`` for ``de``), if the model has exactly one.

    Args:
        tag: of the language.
        known: the model's values, by tags.
        field: of the prompt, for messages.

    Raises:
        PromptError: the model does not know the language, or has several for it.
    """
    subtags = _plain(tag).split("-")
    plain = {name: _plain(name) for name in known}
    for count in range(len(subtags), 0, -1):
        shorter = "-".join(subtags[:count])
        for name in known:
            if plain[name] == shorter:
                return known[name]
    longer = [name for name in known if plain[name].split("-")[0] == subtags[0]]
    candidates = {known[name] for name in longer}
    if len(candidates) == 1:
        return candidates.pop()
    if candidates:
        raise PromptError(
            f"{field} is {_shown(tag)}, of which the model has several: name one of "
            f"{_listed(longer)}"
        )
    raise PromptError(
        f"{field} is {_shown(tag)}, which the model does not know; it knows {_listed(known)}"
    )


def _language(fields: Mapping[str, Any], field: str) -> str | None:
    value = fields.get(field)
    if value is None or isinstance(value, str):
        return bare(value or "") or None
    raise PromptError(f"{field} is {_shown(value)}, but must be a language such as en or en-US")


def _choice(fields: Mapping[str, Any], field: str, choices: Mapping[str, str]) -> str | None:
    value = fields.get(field)
    word = "" if value is None else bare(str(value)).lower()
    if word and word not in choices:
        raise _choice_error(field, value, choices)
    return choices.get(word)


def _choice_error(field: str, value: object, choices: Collection[str]) -> PromptError:
    return PromptError(f"{field} is {_shown(value)}, but must be one of {', '.join(choices)}")


def bare(text: str) -> str:
    """Returns a text without the brackets of a token, as in ``<|en|>``."""
    return text.strip().removeprefix("<|").removesuffix("|>")


def _plain(tag: str) -> str:
    return bare(tag).lower().replace("_", "-")


def _shown(value: object) -> str:
    return for_message(repr(value), MAX_CHARACTERS)


def _listed(names: Collection[str]) -> str:
    if not names:
        return "none"
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(list(names)[:MAX_LISTED]) + more
