"""Defines settings and their groups: dataclasses whose fields have help and ranges."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
import types
import typing
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, ClassVar

from beam_asr.errors import SetupError

# How far 1/n may be from a fraction that stands for it, as 0.33 for a third.
FRACTION_ERROR = 0.05

# Where a setting is available beside the command line: nowhere else; in Python, to Transcribe; in
# Python and Beam YAML.
JOB, PYTHON, YAML = "job", "python", "yaml"


_SETTING = re.compile(r"`([a-z]\w*)(=[^`\s]+)?`")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """Describes one setting.

    Attributes:
        value_type: of its values: str, int, float, bool, tuple (of texts) or Mapping.
        title: of its group, for people.
        optional: whether None is a value.
        choices: the allowed values; empty for any.
        words: texts that are values of a number too.
        choices_of: the registry whose names are the choices, if it is above this module.
        minimum: inclusive; None for any.
        above: exclusive minimum, likewise.
        maximum: inclusive, likewise.
        format: restricts texts and numbers of its type: ``seconds``, ``gpus``, ``accelerator``,
            ``condition``; empty for all.
        noun: names its text in messages.
        metavar: its value in ``--help``.
        bare: the value of its flag without one; None if a value is required.
        core: whether a first job may need it.
        identity: whether a run with another value cannot continue with the journal of this one.
        identity_if_given: likewise, but only whether the setting is present counts.
        per_model: whether models of one job may differ in it.
        scope: JOB, PYTHON or YAML.
    """

    name: str
    title: str
    value_type: Any
    default: Any
    required: bool
    optional: bool
    help: str
    choices: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    choices_of: str = ""
    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    format: str = ""
    noun: str = "a text"
    metavar: str | None = None
    bare: Any = None
    core: bool = False
    identity: bool = False
    identity_if_given: bool = False
    per_model: bool = False
    scope: str = YAML

    def check(self, value: Any) -> None:
        """Checks a value.

        Raises:
            SetupError: names the setting, the value, and what is allowed.
        """
        if (value is None and self.optional) or value in self.words:
            return
        if self.choices:
            for item in value if isinstance(value, tuple) else (value,):
                if item not in self.choices:
                    known = ", ".join(self.choices)
                    raise SetupError(f"{self.name} is {item!r}, but must be one of {known}")
        elif self.value_type in (int, float):
            self._check_number(value)
        elif self.value_type is str and not (isinstance(value, str) and value.strip()):
            raise SetupError(f"{self.name} is {value!r}, not {self.noun}")
        elif self.value_type is bool and not isinstance(value, bool):
            raise SetupError(f"{self.name} is {value!r}, but must be True or False")

    def _check_number(self, value: Any) -> None:
        numbers = int if self.value_type is int else (int, float)
        if isinstance(value, bool) or not isinstance(value, numbers):
            words = "".join(f" or {word!r}" for word in self.words)
            raise SetupError(f"{self.name} is {value!r}, not a number of its kind{words}")
        shown = f"{self.name} is {f'{value:g}' if isinstance(value, float) else value}"
        minimum, maximum = self.minimum, self.maximum
        if minimum is not None and self.default is not None:  # 0 disables, as for n_best
            minimum = min(minimum, self.default)
        if minimum is not None and maximum is not None and not minimum <= value <= maximum:
            raise SetupError(f"{shown}, not within {minimum:g} and {maximum:g}")
        if minimum is not None and not value >= minimum:
            raise SetupError(f"{shown}, but must be at least {minimum:g}")
        if self.above is not None and not value > self.above:
            raise SetupError(f"{shown}, but must be above {self.above:g}")


REQUIRED = dataclasses.MISSING


def setting(default: Any, help: str, **marks: Any) -> Any:
    """Returns a dataclass field for a setting; the marks are attributes of `Setting`."""
    metadata = {"help": help, **marks}
    if isinstance(default, Mapping):
        # Its values may be secrets.
        return dataclasses.field(default_factory=dict, repr=False, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


class Group:
    """Groups settings. Subclasses are keyword-only dataclasses, and check their values.

    Args:
        title: for people.
        scope: of its settings without a scope.

    Raises:
        SetupError: names the setting, the value, and what is allowed.
    """

    title: ClassVar[str]
    scope: ClassVar[str]

    def __init_subclass__(cls, title: str, scope: str = YAML):
        super().__init_subclass__()
        cls.title, cls.scope = title, scope

    def __post_init__(self) -> None:
        for setting in settings_of(type(self)):
            value = getattr(self, setting.name)
            if setting.value_type is tuple and value is not None and not isinstance(value, Mapping):
                value = (value,) if isinstance(value, str) else tuple(value)
                object.__setattr__(self, setting.name, value)
            elif setting.value_type is Mapping and value is None:
                object.__setattr__(self, setting.name, {})
                continue
            setting.check(value)


def settings_of(group: type[Group]) -> tuple[Setting, ...]:
    """Returns the settings of a group."""
    key: Any = group
    return _settings_of(key)


@functools.cache
def _settings_of(group: Any) -> tuple[Setting, ...]:
    hints = typing.get_type_hints(group)
    settings = []
    for field in dataclasses.fields(group):
        hint = hints[field.name]
        union = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        kinds = [typing.get_origin(member) or member for member in union]
        factory = field.default_factory
        default = field.default if factory is REQUIRED else factory()
        settings.append(
            Setting(
                name=field.name,
                title=group.title,
                value_type=tuple if tuple in kinds else kinds[0],
                default=None if default is REQUIRED else default,
                required=default is REQUIRED,
                optional=types.NoneType in kinds,
                **{"scope": group.scope, **field.metadata},
            )
        )
    return tuple(settings)


Groups = Mapping[str, type[Group]]


def all_settings(groups: Groups) -> Iterator[Setting]:
    """Yields all settings, in the order of their groups."""
    for group in groups.values():
        yield from settings_of(group)


def make_groups(
    groups: Groups, flat: Mapping[str, Any], instances: Mapping[str, Group | None] | None = None
) -> dict[str, Any]:
    """Creates groups from flat settings, with defaults for all others.

    Args:
        groups: their types by their names.
        flat: values by the names of settings.
        instances: groups that exist already, by their names; None is ignored.

    Raises:
        TypeError: a name is unknown, a setting is passed both ways, or a group is of another type.
        SetupError: a value is out of its range.
    """
    home = {item.name: key for key, group in groups.items() for item in settings_of(group)}
    existing: dict[str, Any] = {
        key: instance for key, instance in (instances or {}).items() if instance is not None
    }
    for key, instance in existing.items():
        if not isinstance(instance, groups[key]):
            raise TypeError(f"{key} is {instance!r}, not a {groups[key].__name__}")
    by_group: dict[str, dict[str, Any]] = {key: {} for key in groups if key not in existing}
    for name, value in flat.items():
        if name not in home:
            raise unknown_setting(name, home)
        if home[name] in existing:
            raise TypeError(f"{name} is given both by its name and in {home[name]}=")
        by_group[home[name]][name] = value
    return {
        key: existing[key] if key in existing else groups[key](**by_group[key]) for key in groups
    }


def unknown_setting(name: str, known: Iterable[str]) -> TypeError:
    """Returns the error for an unknown name, with the closest known one."""
    close = difflib.get_close_matches(name, known, 1)
    meant = f"; did you mean {close[0]}?" if close else ""
    return TypeError(f"there is no setting {name!r}{meant}")


def flatten(groups: Iterable[Group]) -> dict[str, Any]:
    """Returns the values of groups by the names of their settings."""
    return {
        setting.name: getattr(group, setting.name)
        for group in groups
        for setting in settings_of(type(group))
    }


def is_gpu_count(number: float) -> bool:
    """Returns whether it is a whole number of GPUs, or the share of one of n processes."""
    if number >= 1:
        return number == number // 1
    return number > 0 and abs(1 / number - round(1 / number)) < FRACTION_ERROR


def with_flags(text: str, names: Collection[str]) -> str:
    """Returns a message with its settings as flags: ``--name`` and ``--name=value``.

    Args:
        names: of the settings that have a flag; other text in backticks stays.
    """
    return _SETTING.sub(
        lambda match: f"--{match[1]}{match[2] or ''}" if match[1] in names else match[0], text
    )
