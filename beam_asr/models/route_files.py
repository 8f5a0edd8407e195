"""What ``--models`` names: pairs of a value and a model, or a file of routes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from beam_asr.models import routing as routes
from beam_asr.models.routing import Routing
from beam_asr.storage.storage import Storage

PAIR = re.compile(r"(?P<value>[^=/\\:]+)=(?P<model>.+)")


class _Loader(yaml.SafeLoader):
    """YAML 1.2's booleans: ``no`` is Norwegian."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("true|True|TRUE|false|False|FALSE"), list("tTfF")
)


def load(
    storage: Storage,
    given: Sequence[str] | Mapping[str, Any],
    base: Mapping[str, Any],
    key: str | None = None,
    unmapped: str | None = None,
    default: str | None = None,
) -> Routing:
    """The routes of a job.

    Args:
        storage: how the storage of a file is opened.
        given: pairs ``VALUE=MODEL``, or the path or URI of one file, or what such a file says.
        base: the settings that all models have in common, where a file does not say otherwise.
        key: the field that the pairs are about.
        unmapped: ``fail`` or ``default``.
        default: the model of rows that no route takes.

    Raises:
        ValueError: says what of it cannot be, and what is allowed.
        FileNotFoundError: there is no such file.
    """
    if isinstance(given, Mapping):
        return routes.of_content(given, base, key, unmapped, default)
    pairs = [PAIR.fullmatch(each) for each in given]
    if all(pairs):
        if unmapped == "default" and default is None:
            raise ValueError("unmapped is default, but no default model is named")
        others = None if unmapped == "fail" else default
        named = [(pair["value"].strip(), pair["model"].strip()) for pair in pairs if pair]
        return routes.of_pairs(named, key or "lang", base, others)
    if len(given) > 1:
        raise ValueError(
            f"{', '.join(given)} are neither all of the form LANG=NAME, nor one file of routes"
        )
    (path,) = given
    try:
        return routes.of_content(_parsed(storage.read(path)), base, key, unmapped, default)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path!r} is neither of the form LANG=NAME nor a file that is there"
        ) from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _parsed(content: bytes) -> Any:
    try:
        text = content.decode()
        return json.loads(text) if text.lstrip().startswith("{") else yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"it is neither YAML nor JSON ({error})") from None
