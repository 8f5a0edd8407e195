"""What a setting is, and groups of settings: dataclasses whose fields have help and ranges."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

from beam_asr.errors import SetupError

# How far 1/n may be from a fraction that stands for it, as 0.33 for a third.
FRACTION_ERROR = 0.05

# Where a setting can be given beside the command line: nowhere; to Transcribe in Python; and in
# Beam YAML too.
JOB, PYTHON, YAML = "job", "python", "yaml"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """What is known of one setting.

    Attributes:
        value_type: of its values: str, int, float, bool, tuple (of texts) or Mapping.
        title: of its group, for people.
        optional: whether None is a value.
        choices: the values that there are; empty for any.
        choices_of: the registry whose names are the choices, for those that are above this module.
        minimum: the least number; None for any.
        above: the number that it must be above, likewise.
        maximum: the largest number, likewise.
        format: what texts and numbers of its type are values: ``seconds``, ``gpus``,
            ``accelerator``, ``condition``; empty for all.
        noun: what its text is, for messages.
        metavar: its value in ``--help``.
        bare: the value of its flag without one; None if there must be one.
        core: whether a first job may need it.
        identity: whether a run with another value cannot go on with the journal of this one.
        identity_if_given: likewise, where only whether it is given counts.
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
        if value is None and self.optional:
            return
        if self.choices:
            for each in value if isinstance(value, tuple) else (value,):
                if each not in self.choices:
                    known = ", ".join(self.choices)
                    raise SetupError(f"{self.name} is {each!r}, but must be one of {known}")
        elif self.value_type in (int, float):
            self._check_number(value)
        elif self.value_type is str and not (isinstance(value, str) and value.strip()):
            raise SetupError(f"{self.name} is {value!r}, not {self.noun}")
        elif self.value_type is bool and not isinstance(value, bool):
            raise SetupError(f"{self.name} is {value!r}, but must be True or False")

    def _check_number(self, value: Any) -> None:
        numbers = int if self.value_type is int else (int, float)
        if isinstance(value, bool) or not isinstance(value, numbers):
            raise SetupError(f"{self.name} is {value!r}, not a number of its kind")
        shown = f"{self.name} is {f'{value:g}' if isinstance(value, float) else value}"
        least, most = self.minimum, self.maximum
        if least is not None and self.default is not None:  # 0 stands for none, as of n_best
            least = min(least, self.default)
        if least is not None and most is not None and not least <= value <= most:
            raise SetupError(f"{shown}, not within {least:g} and {most:g}")
        if least is not None and not value >= least:
            raise SetupError(f"{shown}, but must be at least {least:g}")
        if self.above is not None and not value > self.above:
            raise SetupError(f"{shown}, but must be above {self.above:g}")


REQUIRED = dataclasses.MISSING


def setting(default: Any, help: str, **marks: Any) -> Any:
    """A field of a group; the marks are attributes of `Setting`."""
    metadata = {"help": help, **marks}
    if isinstance(default, Mapping):
        # Its values may be secrets.
        return dataclasses.field(default_factory=dict, repr=False, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


class Group:
    """A group of settings. All are keyword-only dataclasses, and check their values.

    Args:
        title: for people.
        scope: of its settings that do not say their own.

    Raises:
        SetupError: names the setting, the value, and what is allowed.
    """

    title: ClassVar[str]
    scope: ClassVar[str]

    def __init_subclass__(cls, title: str, scope: str = YAML):
        super().__init_subclass__()
        cls.title, cls.scope = title, scope

    def __post_init__(self) -> None:
        for each in settings_of(type(self)):
            value = getattr(self, each.name)
            if each.value_type is tuple and value is not None and not isinstance(value, Mapping):
                value = (value,) if isinstance(value, str) else tuple(value)
                object.__setattr__(self, each.name, value)
            elif each.value_type is Mapping and value is None:
                object.__setattr__(self, each.name, {})
                continue
            each.check(value)


def settings_of(group: type[Group]) -> tuple[Setting, ...]:
    """The settings of a group."""
    key: Any = group
    return _settings_of(key)


@functools.cache
def _settings_of(group: Any) -> tuple[Setting, ...]:
    hints = typing.get_type_hints(group)
    found = []
    for field in dataclasses.fields(group):
        hint = hints[field.name]
        union = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        kinds = [typing.get_origin(each) or each for each in union]
        factory = field.default_factory
        default = field.default if factory is REQUIRED else factory()
        found.append(
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
    return tuple(found)


Groups = Mapping[str, type[Group]]


def all_settings(groups: Groups) -> Iterator[Setting]:
    """All settings, in the order of their groups."""
    for group in groups.values():
        yield from settings_of(group)


def make_groups(
    groups: Groups, flat: Mapping[str, Any], given: Mapping[str, Group | None] | None = None
) -> dict[str, Any]:
    """Sorts settings into their groups, where all others have their defaults.

    Args:
        groups: their types by their names.
        flat: values by the names of settings.
        given: groups that are made already, by their names; None is none.

    Raises:
        TypeError: a name is unknown, a setting is given both ways, or a group is of another type.
        SetupError: a value is out of its range.
    """
    home = {each.name: key for key, group in groups.items() for each in settings_of(group)}
    made: dict[str, Any] = {key: each for key, each in (given or {}).items() if each is not None}
    for key, each in made.items():
        if not isinstance(each, groups[key]):
            raise TypeError(f"{key} is {each!r}, not a {groups[key].__name__}")
    sorted_out: dict[str, dict[str, Any]] = {key: {} for key in groups if key not in made}
    for name, value in flat.items():
        if name not in home:
            raise unknown_setting(name, home)
        if home[name] in made:
            raise TypeError(f"{name} is given both by its name and in {home[name]}=")
        sorted_out[home[name]][name] = value
    return {key: made[key] if key in made else groups[key](**sorted_out[key]) for key in groups}


def unknown_setting(name: str, known: Iterable[str]) -> TypeError:
    """The error for a name that is none of those that are known."""
    close = difflib.get_close_matches(name, known, 1)
    meant = f"; did you mean {close[0]}?" if close else ""
    return TypeError(f"there is no setting {name!r}{meant}")


def flatten(groups: Iterable[Group]) -> dict[str, Any]:
    """The values of groups by the names of their settings."""
    return {
        each.name: getattr(group, each.name)
        for group in groups
        for each in settings_of(type(group))
    }


def is_gpu_count(number: float) -> bool:
    """Whether it is a whole number of GPUs, or the part of one that each of n processes has."""
    if number >= 1:
        return number == number // 1
    return number > 0 and abs(1 / number - round(1 / number)) < FRACTION_ERROR
