"""Makes an HTML page from a template: one file that asks nothing of any other place."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from typing import Any

import jinja2

from beam_asr.errors import UNPRINTABLE

SCRIPT, STYLE = "page.js", "page.css"


def render(template: str, values: dict[str, Any], data: dict[str, Any]) -> bytes:
    """Returns a page.

    Texts are escaped wherever they stand. The page's policy lets the page's own script run, and no
    other, and nothing be loaded that is not in the page.

    Args:
        template: the name of a file in ``templates``.
        values: for the template.
        data: JSON for the script, which shows texts as texts.
    """
    script = _file(SCRIPT)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text = (
        _environment()
        .get_template(template)
        .render(
            values,
            style=_file(STYLE),
            script=script,
            script_digest=f"sha256-{digest}",
            data=_as_data(data),
        )
    )
    return text.encode("utf-8", "replace")


def _as_data(data: dict[str, Any]) -> str:
    """Returns JSON that HTML cannot take for markup: in ASCII, without ``<``, ``>`` and ``&``."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters["count"] = lambda value: f"{value:,}"
    return environment


def _shown(value: Any) -> Any:
    """Returns a value of a template without characters that hide or turn the texts around it."""
    is_plain = isinstance(value, str) and not hasattr(value, "__html__")
    return UNPRINTABLE.sub("\ufffd", value) if is_plain else value


def _file(name: str) -> str:
    loader = _environment().loader
    assert loader is not None
    return loader.get_source(_environment(), name)[0]
