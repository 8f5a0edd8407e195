"""Provides registries of named entries, which other packages extend by entry points."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from beam_asr.errors import SetupError

Entry = TypeVar("Entry")


class Registry(Mapping[str, Entry], Generic[Entry]):
    """Maps names to entries, each of which is imported when it is first looked up.

    A package adds an entry by an entry point of the registry's group, as in its pyproject.toml:

        [project.entry-points."beam_asr.formats"]
        elan = "my_package.elan:FORMAT"

    Args:
        group: of the entry points.
        entries: the built-in entries by name, as ``module:attribute``, in the order of listing.

    Raises:
        SetupError: at the first listing, if two packages add the same name; at a look-up, if the
            object of an entry point cannot be imported.
    """

    def __init__(self, group: str, entries: Mapping[str, str]):
        self.group = group
        self._built_in = dict(entries)
        self._loaded: dict[str, Entry] = {}

    def __getitem__(self, name: str) -> Entry:
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        yield from self._built_in
        yield from sorted(self._added)

    def __len__(self) -> int:
        return len(self._built_in) + len(self._added)

    def __contains__(self, name: object) -> bool:
        return name in self._built_in or name in self._added

    @functools.cached_property
    def _added(self) -> dict[str, importlib.metadata.EntryPoint]:
        """Finds the entry points of other packages by name, which takes tens of ms."""
        added: dict[str, importlib.metadata.EntryPoint] = {}
        for point in importlib.metadata.entry_points(group=self.group):
            other = added.get(point.name)
            if point.name in self._built_in or (other is not None and other.value != point.value):
                by = "beam_asr" if other is None else other.value
                raise SetupError(
                    f"{point.value} adds {point.name!r} to {self.group}, which {by} has already: "
                    "uninstall one of the packages"
                )
            added[point.name] = point
        return added

    def _load(self, name: str) -> Entry:
        if name in self._built_in:
            module, _, attribute = self._built_in[name].partition(":")
            entry: Entry = getattr(importlib.import_module(module), attribute)
            return entry
        point = self._added.get(name)
        if point is None:
            raise KeyError(name)
        try:
            entry = point.load()
        except Exception as error:
            raise SetupError(
                f"{name!r} of {self.group} is {point.value}, which cannot be imported: "
                f"{type(error).__name__}: {error}"
            ) from error
        return entry
