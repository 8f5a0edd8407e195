"""Puts pages of other folders on the site of docs/, so that links to them work there as on GitHub.

MkDocs calls the functions by their names: https://www.mkdocs.org/user-guide/configuration/#hooks
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).parents[1]
PAGES = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "benchmarks/RESULTS.md",
    "findings/README.md",
    "samples/README.md",
    "templates/flink/README.md",
)
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)#\s]+)")
CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Adds the pages, and the files outside docs/ that pages link to."""
    for path in PAGES:
        files.append(_file(path, config))
    for page in [file for file in files if file.src_uri.endswith(".md")]:
        for target in _targets(page.content_string, _in_repository(page.src_uri)):
            at = _on_site(target)
            path = REPOSITORY / target
            if at == target and path.is_file() and files.get_file_from_path(at) is None:
                files.append(_file(target, config))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Returns the page with links that lead to where their targets are on the site."""
    source = _in_repository(page.file.src_uri)
    folder = posixpath.dirname(page.file.src_uri)

    def moved(link: re.Match[str]) -> str:
        target = _on_site(_resolved(link[0], source))
        return os.path.relpath(target, folder or ".")

    parts = CODE.split(markdown)
    parts[::2] = [LINK.sub(moved, text) for text in parts[::2]]
    return "".join(parts)


def _file(path: str, config: Any) -> File:
    content = (REPOSITORY / path).read_bytes()
    is_page = path.endswith(".md")
    return File.generated(config, path, content=content.decode() if is_page else content)


def _targets(markdown: str, source: str) -> set[str]:
    return {_resolved(link, source) for link in LINK.findall("".join(CODE.split(markdown)[::2]))}


def _resolved(link: str, source: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link))


def _in_repository(on_site: str) -> str:
    """Returns where a page of the site is in the repository."""
    return on_site if (REPOSITORY / on_site).is_file() else f"docs/{on_site}"


def _on_site(in_repository: str) -> str:
    if in_repository == "README.md":
        return "index.md"
    return in_repository.removeprefix("docs/")
