"""Chooses the model of each row, and reads the files and flags of routes."""

from __future__ import annotations

import dataclasses
import json
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from beam_asr.errors import (
    BadFieldError,
    ExpressionError,
    SetupError,
    StorageError,
    UnmappedRowError,
)
from beam_asr.records.conditions import Expression
from beam_asr.records.conditions import parse as parse_expression
from beam_asr.records.json_objects import kind
from beam_asr.records.setting_fields import all_settings, flatten, make_groups
from beam_asr.settings import (
    AudioLimits,
    BatchSettings,
    ModelSettings,
    ReadSettings,
    SegmentationSettings,
)
from beam_asr.storage.storage import Storage

TAG = re.compile(r"[a-z]{2,3}(-[a-z0-9]{1,8})*")
MAX_SHOWN = 20  # keys, in a message


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelRoute:
    """A model, and how rows are passed to it.

    Raises:
        ValueError: it has no name.
    """

    model: ModelSettings
    batching: BatchSettings
    reading: ReadSettings
    limits: AudioLimits
    long_audio: SegmentationSettings

    def __post_init__(self) -> None:
        if self.model.model_name is None:
            raise ValueError("model_name is None, not the name of a model")

    @classmethod
    def of(cls, **settings: Any) -> ModelRoute:
        """Returns the route with these settings; all others have their defaults.

        Raises:
            ValueError: a value is out of its range.
        """
        return cls(**make_groups(ROUTE_GROUPS, settings))

    @property
    def model_name(self) -> str:
        """Returns the name of the model, which is never None."""
        return str(self.model.model_name)

    @property
    def identity(self) -> dict[str, Any]:
        """Returns the settings that a run must share with the run it resumes, by name."""
        values = flatten(getattr(self, name) for name in ROUTE_GROUPS)
        return {name: values[name] for name, per_model in PER_MODEL.items() if per_model.identity}


ROUTE_GROUPS = typing.get_type_hints(ModelRoute)
# The settings of a model that a file of routes may have.
PER_MODEL = {found.name: found for found in all_settings(ROUTE_GROUPS) if found.per_model}


class Rule(NamedTuple):
    """Sends the rows that match a condition to a model.

    Attributes:
        when: the condition.
        route_index: of the model in ``Routing.routes``.
    """

    when: Expression
    route_index: int


@dataclasses.dataclass(frozen=True)
class Routing:
    """The models of a job, and which of them takes a row.

    Attributes:
        routes: the models, each once; the other attributes have indices into them.
        key: the field whose values are in ``by_value``.
        by_value: the model for each value of the field, normalized by ``_normalized_value``.
        rules: checked first, in their order.
        default: the model of all other rows; None lets them fail.
    """

    routes: tuple[ModelRoute, ...]
    key: str = "lang"
    by_value: Mapping[str, int] = dataclasses.field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    default: int | None = 0

    @property
    def is_multi_model(self) -> bool:
        """Tells whether rows are routed at all."""
        return bool(self.by_value or self.rules)

    def route_index(self, fields: Mapping[str, Any]) -> int:
        """Returns the index of the model that takes a row.

        Raises:
            UnmappedRowError: no model takes it.
            BadFieldError: the field that chooses the model is not a text.
        """
        for rule in self.rules:
            if rule.when.matches(fields):
                return rule.route_index
        value = fields.get(self.key)
        if self.by_value and value is not None:
            if not isinstance(value, str):
                raise BadFieldError(
                    f"{self.key!r}, which chooses the model, is {kind(value)}, not a text"
                )
            index = self._index_of_value(_normalized_value(value))
            if index is not None:
                return index
        if self.default is not None:
            return self.default
        raise UnmappedRowError(self._unmapped(value))

    @property
    def names(self) -> tuple[str, ...]:
        """Returns the names of the models, in the order of ``routes``."""
        return tuple(route.model_name for route in self.routes)

    @property
    def lang_key(self) -> str:
        """Returns the field of a row's language: ``key`` if its name has "lang" in it."""
        return self.key if "lang" in self.key.lower() else "lang"

    def _index_of_value(self, tag: str) -> int | None:
        """Looks a language tag up as RFC 4647 does, by cutting subtags off.

        A language without a region takes the model of its only region.
        """
        if tag in self.by_value:
            return self.by_value[tag]
        if not TAG.fullmatch(tag):
            return None
        shorter = tag
        while "-" in shorter:
            shorter = shorter.rpartition("-")[0]
            if shorter in self.by_value:
                return self.by_value[shorter]
        longer = {index for key, index in self.by_value.items() if key.startswith(f"{tag}-")}
        return longer.pop() if len(longer) == 1 else None

    def _unmapped(self, value: Any) -> str:
        known = sorted(self.by_value)
        shown = ", ".join(known[:MAX_SHOWN]) + (", ..." if len(known) > MAX_SHOWN else "")
        what = f"no model takes {self.key!r} {value!r}" if value is not None else ""
        what = what or f"the row has no {self.key!r}, which chooses the model"
        models = f"; there are models for {shown}" if known else ""
        return f"{what}{models}. Add it to `models`, or give `model_name` for all other rows"


def single(route: ModelRoute) -> Routing:
    """Routes all rows to one model."""
    return Routing((route,))


def from_pairs(
    pairs: Iterable[tuple[str, str]], key: str, base: Mapping[str, Any], default: str | None
) -> Routing:
    """Makes a routing from pairs of a field's value and a model's name.

    Args:
        pairs: values and model names.
        key: the field.
        base: the settings that all models share.
        default: the model of rows that no pair takes; None lets them fail.

    Raises:
        SetupError: a value comes twice.
    """
    builder = _Builder(base)
    for value, model_name in pairs:
        builder.add(value, {"model_name": model_name})
    return builder.routing(key, None if default is None else {"model_name": default})


def from_content(
    content: Any,
    base: Mapping[str, Any],
    key: str | None = None,
    unmapped: str | None = None,
    default: str | None = None,
) -> Routing:
    """Makes a routing from the content of a file.

    Args:
        content: of the file, parsed.
        base: the settings that all models share, unless the file overrides them.
        key: the field; overrides the one in the file.
        unmapped: ``fail`` or ``default``; overrides the file.
        default: the model of rows that no route takes; overrides the file.

    Raises:
        SetupError: a value is not valid; the message names it and what is allowed.
    """
    content = _require_mapping(content, "the file")
    _require_known_keys(
        content, ("route_key", "unmapped", "default", "models", "rules"), "the file"
    )
    builder = _Builder(base)
    models = _require_mapping(content.get("models") or {}, "models")
    for values, settings in models.items():
        for value in str(values).split(","):
            builder.add(value.strip(), _route_settings(settings, f"the model of {values}"))
    rules = content.get("rules") or []
    if not isinstance(rules, list):
        raise SetupError("rules is no list of {when: ..., model_name: ...}")
    for number, rule in enumerate(rules, 1):
        settings = dict(_require_mapping(rule, f"rule {number}"))
        when = settings.pop("when", None)
        if not isinstance(when, str):
            raise SetupError(f"rule {number} has no text `when`, as `domain == 'telephony'`")
        builder.add_rule(when, _route_settings(settings, f"rule {number}"), number)
    if not (builder.by_value or builder.rules):
        raise SetupError("it has neither models nor rules")
    policy = unmapped or content.get("unmapped")
    if policy not in (None, "fail", "default"):
        raise SetupError(f"unmapped is {policy!r}, but must be fail or default")
    others = default or content.get("default")
    if policy == "default" and others is None:
        raise SetupError("unmapped is default, but no default model is named")
    if policy == "fail":
        others = None
    default_settings = None if others is None else _route_settings(others, "default")
    return builder.routing(key or content.get("route_key") or "lang", default_settings)


class _Builder:
    def __init__(self, base: Mapping[str, Any]):
        self._base = base
        self._routes: list[ModelRoute] = []
        self.by_value: dict[str, int] = {}
        self.rules: list[Rule] = []

    def add(self, value: str, settings: Mapping[str, Any]) -> None:
        tag = _normalized_value(value)
        if not tag:
            raise SetupError("a model is given for an empty value")
        if tag in self.by_value:
            raise SetupError(f"two models are given for {value!r}")
        self.by_value[tag] = self._index(settings, f"the model of {value}")

    def add_rule(self, when: str, settings: Mapping[str, Any], number: int) -> None:
        try:
            expression = parse_expression(when)
        except ExpressionError as error:
            raise SetupError(f"rule {number}: {error}") from None
        self.rules.append(Rule(expression, self._index(settings, f"rule {number}")))

    def routing(self, key: str, default: Mapping[str, Any] | None) -> Routing:
        index = None if default is None else self._index(default, "default")
        return Routing(tuple(self._routes), key, self.by_value, tuple(self.rules), index)

    def _index(self, settings: Mapping[str, Any], where: str) -> int:
        try:
            route = ModelRoute.of(**{**self._base, **settings})
        except SetupError as error:
            raise SetupError(f"{where}: {error}") from None
        if route not in self._routes:
            self._routes.append(route)
        return self._routes.index(route)


def _route_settings(value: Any, where: str) -> dict[str, Any]:
    if isinstance(value, str):
        return {"model_name": value}
    settings = dict(_require_mapping(value, where))
    _require_known_keys(settings, PER_MODEL, where)
    if "model_name" not in settings:
        raise SetupError(f"{where} has no model_name")
    if isinstance(settings.get("pnc"), bool):  # as YAML reads yes and no
        settings["pnc"] = "yes" if settings["pnc"] else "no"
    return settings


def _require_mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise SetupError(f"{where} is {kind(value)}, not a mapping")
    return value


def _require_known_keys(mapping: Mapping[str, Any], allowed: Iterable[str], where: str) -> None:
    for name in mapping:
        if name not in allowed:
            raise SetupError(f"{where} has {name!r}, which is none of {', '.join(allowed)}")


def _normalized_value(value: str) -> str:
    """Returns a value in the form that is compared.

    ``en_US.UTF-8``, ``en_us`` and ``en-US`` are the same.
    """
    plain = value.strip().replace("_", "-").lower()
    locale = re.split(r"[.@]", plain, maxsplit=1)[0]
    return locale if TAG.fullmatch(locale) else plain


PAIR = re.compile(r"(?P<value>[^=/\\:]+)=(?P<model>.+)")


class _Loader(yaml.SafeLoader):
    """Loads YAML with the booleans of YAML 1.2: ``no`` is Norwegian."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("true|True|TRUE|false|False|FALSE"), list("tTfF")
)


def load(
    storage: Storage,
    models: Sequence[str] | Mapping[str, Any],
    base: Mapping[str, Any],
    key: str | None = None,
    unmapped: str | None = None,
    default: str | None = None,
) -> Routing:
    """Makes the routing of a job.

    Args:
        storage: opens the file.
        models: pairs ``VALUE=MODEL``, or the path or URI of one file, or the content of such a
            file.
        base: the settings that all models share, unless a file overrides them.
        key: the field of the values.
        unmapped: ``fail`` or ``default``.
        default: the model of rows that no route takes.

    Raises:
        SetupError: a value is not valid; the message names it and what is allowed.
        FileNotFoundError: there is no such file.
    """
    if isinstance(models, Mapping):
        return from_content(models, base, key, unmapped, default)
    pairs = [PAIR.fullmatch(text) for text in models]
    if all(pairs):
        if unmapped == "default" and default is None:
            raise SetupError("unmapped is default, but no default model is named")
        others = None if unmapped == "fail" else default
        named = [(pair["value"].strip(), pair["model"].strip()) for pair in pairs if pair]
        return from_pairs(named, key or "lang", base, others)
    if len(models) > 1:
        raise SetupError(
            f"{', '.join(models)} are neither all of the form LANG=NAME, nor one file of routes"
        )
    (path,) = models
    try:
        return from_content(_parsed(storage.read(path)), base, key, unmapped, default)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path!r} is neither of the form LANG=NAME nor a file that is there"
        ) from None
    except (SetupError, StorageError) as error:
        raise SetupError(f"{path}: {error}") from None


def _parsed(content: bytes) -> Any:
    try:
        text = content.decode()
        return json.loads(text) if text.lstrip().startswith("{") else yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError) as error:
        raise SetupError(f"it is neither YAML nor JSON ({error})") from None
