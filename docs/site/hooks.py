"""Makes a site of the pages that GitHub shows: hooks of MkDocs, named in mkdocs.yml.

The pages are written for GitHub, where a relative link may lead to any file of the repository. On
the site such a link leads to the page that the file is there, or else to the repository's source.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from xml.etree.ElementTree import Element

from markdown import Markdown
from markdown.extensions import Extension
from markdown.treeprocessors import Treeprocessor
from markdown.util import AtomicString
from mkdocs.structure.files import File

REPOSITORY = Path(__file__).parents[2]
DOCS = "docs/"
# Pages outside docs/, and what they are called on the site.
OTHER_PAGES = {
    "README.md": "overview.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "benchmarks/RESULTS.md": "results.md",
    "samples/README.md": "samples.md",
    "templates/flink/README.md": "flink.md",
}
# On GitHub, which shows no docstrings, a directive of mkdocstrings is a comment.
HIDDEN_DIRECTIVE = re.compile(r"^<!-- (::: .+) -->$", re.MULTILINE)


def source_of(page: str) -> str:
    """Returns the file of the repository that a page of the site is made from."""
    return next((file for file, other in OTHER_PAGES.items() if other == page), DOCS + page)


def page_of(file: str) -> str | None:
    """Returns the page or image of the site that a file of the repository is, or None."""
    is_on_site = file.startswith(DOCS) and file.endswith((".md", ".png"))
    return OTHER_PAGES.get(file, file.removeprefix(DOCS) if is_on_site else None)


def site_link(link: str, page: str, repository: str) -> str:
    """Returns where a link of a page leads to on the site.

    Args:
        link: as it is written, for GitHub.
        page: the page that has it, as the site calls it.
        repository: URL of the repository; empty for the files of this checkout.
    """
    parts = urlsplit(link)
    if parts.scheme or parts.netloc or not parts.path:
        return link
    file = posixpath.normpath(posixpath.join(posixpath.dirname(source_of(page)), parts.path))
    target = page_of(file)
    if target is not None:
        relative = posixpath.relpath(target, posixpath.dirname(page) or ".")
        return parts._replace(path=relative).geturl()
    path = REPOSITORY / file
    if not path.exists():
        return link  # a strict build fails by it
    if not repository:
        return path.as_uri()
    return f"{repository}/{'tree' if path.is_dir() else 'blob'}/main/{file}"


class _Links(Treeprocessor):
    """Makes of a page what GitHub makes of it, with pages called by their titles in links."""

    def __init__(self, site: RepositoryLinks, md: Markdown) -> None:
        super().__init__(md)
        self._site = site

    def run(self, root: Element) -> None:
        """Changes a page that was rendered."""
        site = self._site
        for link in root.iter("a"):
            link.set("href", site_link(link.get("href", ""), site.page, site.repository))
            if link.text and (target := page_of(link.text)) in site.titles:
                link.text = site.titles[target]
        for image in root.iter("img"):
            image.set("src", site_link(image.get("src", ""), site.page, site.repository))
        for code in root.iterfind(".//td//code"):
            code.text = AtomicString((code.text or "").replace(r"\|", "|"))  # as GitHub shows it


class RepositoryLinks(Extension):
    """Extends Markdown by links to any file of the repository.

    Attributes:
        page: the page that is rendered, as the site calls it.
        repository: as of `site_link`.
        titles: of pages, by what the site calls them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.page = ""
        self.repository = ""
        self.titles: dict[str | None, str] = {}

    def extendMarkdown(self, md: Markdown) -> None:
        """Registers the change of links, which is before MkDocs' own."""
        md.treeprocessors.register(_Links(self, md), "repository_links", 1)


LINKS = RepositoryLinks()


def on_config(config: Any) -> Any:
    """Adds the extension of Markdown."""
    LINKS.repository = config.extra["repository"].rstrip("/")
    config.markdown_extensions.append(LINKS)
    return config


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that are outside docs/."""
    for file, page in OTHER_PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(REPOSITORY / file)))
    return files


def on_nav(nav: Any, config: Any, files: Any) -> Any:  # noqa: ARG001
    """Notes what the navigation calls the pages."""
    LINKS.titles = {page.file.src_uri: page.title for page in nav.pages}
    return nav


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:  # noqa: ARG001
    """Notes which page is rendered, and shows its directives."""
    LINKS.page = page.file.src_uri
    return HIDDEN_DIRECTIVE.sub(r"\1", markdown)
