"""Writes docs/flags.md, the reference of all flags, from the settings.

python -m tests.project.flag_table
"""

from __future__ import annotations

import re

from beam_asr.cli.messages import flag_of
from beam_asr.cli.options import help_of
from beam_asr.records.setting_fields import Groups, Setting, settings_of
from beam_asr.settings import GROUPS
from beam_asr.transforms.choices import choices
from tests.support.job_files import REPOSITORY

PAGE = REPOSITORY / "docs" / "flags.md"
MARKUP = re.compile(r"\||(?<!\w)_|_(?!\w)")  # not an underscore within a word
HEAD = """# Flags of `beam-asr transcribe`

All settings, by group; those in **bold** are what a first job may need. In Python,
`Transcribe(batch_size=16)` and the fields of the groups in `beam_asr.settings` have the same names,
without the dashes. All other flags are Beam's. Written by `make docs`.
"""


def page(groups: Groups = GROUPS) -> str:
    """The whole page."""
    parts = [HEAD]
    for group in groups.values():
        rows = sorted(settings_of(group), key=lambda setting: not setting.core)
        parts.append(f"\n## {group.title}\n\n{group.__doc__.splitlines()[0]}\n")
        parts.append("\n| flag | default | choices | meaning |\n| --- | --- | --- | --- |\n")
        parts += [row(each) for each in rows]
    return "".join(parts)


def row(setting: Setting) -> str:
    flag = f"`{flag_of(setting)}`"
    cells = [
        f"**{flag}**" if setting.core else flag,
        default_of(setting),
        ", ".join(f"`{each}`" for each in choices(setting)),
        MARKUP.sub(r"\\\g<0>", help_of(setting)),
    ]
    return "| " + " | ".join(cells) + " |\n"


def default_of(setting: Setting) -> str:
    default = setting.default
    if setting.required:
        return "required"
    if isinstance(default, bool):
        return "off"
    if not default:
        return "none"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
