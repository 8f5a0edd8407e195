"""Writes and deletes files for a run only while the output folder is that run's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from beam_asr.storage.storage import Storage


@dataclasses.dataclass(frozen=True)
class FencedStorage(Storage):
    """Accesses files as `Storage`; before each change it checks that the folder is still the run's.

    A file's content is complete, and on a disk synced, when the check is made: a run that was
    suspended for as long as it takes another to take the folder replaces nothing of it. Between the
    check and the change itself, a store's put or a disk's rename, there is no guard.

    Attributes:
        check_owner: raises FolderTakenError if another run has taken the folder.
    """

    check_owner: Callable[[], object] = dataclasses.field(default=lambda: None, compare=False)

    @classmethod
    def of(cls, storage: Storage, check_owner: Callable[[], object]) -> FencedStorage:
        """Returns a storage with the same options, and with this check."""
        return cls(storage.options, storage.allowed, check_owner)

    def before_change(self) -> None:
        """Raises FolderTakenError if another run has taken the folder."""
        self.check_owner()
