"""Writes the rooms of docs/architecture.md from the first lines of the modules' docstrings.

python -m tests.project.module_tree
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.support.job_files import REPOSITORY

PAGE = REPOSITORY / "docs" / "architecture.md"
PACKAGE = REPOSITORY / "beam_asr"
# From the ground up, as in the picture above the tree.
GROUND = ("errors.py", "process.py", "_version.py", "__init__.py", "__main__.py", "settings.py")
ROOMS = "storage records inputs audio transcripts models outputs transforms cli".split()
BLOCK = re.compile(r"(?<=<!-- rooms -->\n```\n).*?(?=```\n<!-- /rooms -->)", re.DOTALL)


def tree() -> str:
    """The tree of the package, a line for each room and each module."""
    lines = ["beam_asr/"]
    lines += [line(PACKAGE / name, 1) for name in GROUND]
    for room in ROOMS:
        lines += folder(PACKAGE / room, 1)
    return "\n".join(lines) + "\n"


def folder(path: Path, depth: int) -> list[str]:
    found = [line(path, depth)]
    modules = [each for each in sorted(path.glob("*.py")) if each.name != "__init__.py"]
    found += [line(module, depth + 1) for module in modules]
    for inner in sorted(path.iterdir()):
        if (inner / "__init__.py").exists():
            found += folder(inner, depth + 1)
    return found


def line(path: Path, depth: int) -> str:
    """Name and first sentence of a module or room."""
    source = path / "__init__.py" if path.is_dir() else path
    docstring = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    first = " ".join(docstring.partition("\n\n")[0].split())
    name = f"{'    ' * depth}{path.name}{'/' if path.is_dir() else ''}"
    return f"{name:<36}{first}"


def page() -> str:
    """The page, with the tree as it is now."""
    return BLOCK.sub(lambda _: tree(), PAGE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
