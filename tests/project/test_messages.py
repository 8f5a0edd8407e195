"""Messages of the library name settings; only the command line knows of flags."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from beam_asr.cli.messages import FLAGS
from tests.support.job_files import REPOSITORY

PACKAGE = REPOSITORY / "beam_asr"
LIBRARY = [
    path for path in sorted(PACKAGE.rglob("*.py")) if path.relative_to(PACKAGE).parts[0] != "cli"
]
FLAG = re.compile(r"(?<![\w-])--[a-z]\w*")
OF_OTHERS = {"--concatenate", "--bar", "--muted", "--line", "--accent"}  # of tar, and of CSS


def strings(path: Path) -> Iterator[tuple[int, str, bool]]:
    """Yields the line, the text and whether it is a docstring, for each string of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value, id(node) in docstrings


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_string_outside_the_command_line_names_a_flag(path):
    named = []
    for line, text, is_docstring in strings(path):
        found = set(FLAG.findall(text)) - OF_OTHERS
        if is_docstring:  # some draw arrows
            found &= {f"--{name}" for name in FLAGS}
        named += [f"{path}:{line}: {flag}" for flag in sorted(found)]
    assert named == []
