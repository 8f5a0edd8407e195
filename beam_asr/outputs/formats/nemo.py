"""Writes manifests that NeMo trains on, with the recognized text: see `pseudo_labels`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from beam_asr.outputs.formats import pseudo_labels
from beam_asr.outputs.formats.base import FieldKeys, FormatLine, LineFormat
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import join


@dataclass(frozen=True, kw_only=True)
class NemoManifests(LineFormat):
    """Writes one manifest for all rows or, in a tarred data set, one for each tar."""

    def to_line(
        self,
        record: Mapping[str, Any],
        keys: FieldKeys,
        manifest: str,
        tarred: bool,
        transcribed: bool,
    ) -> FormatLine:
        if not transcribed:
            record = {**record, keys.text: ""}
        label = pseudo_labels.tarred_label if tarred else pseudo_labels.label
        return label(record, keys.audio, keys.text, manifest)

    def path_of_tar(self, number: int) -> str:
        return join(self.name, f"manifest_{number}.json")

    def is_own(self, file_name: str) -> bool:
        of_tar = re.fullmatch(r"manifest_\d+\.json", file_name) is not None
        return of_tar or super().is_own(file_name)

    def finish(
        self,
        storage: Storage,
        folder: str,
        written: set[str],
        tarred: bool,
        tars_without_rows: int,
    ) -> None:
        """Writes the manifests without lines: the only one, or those of tars."""
        if not tarred:
            if not written:
                storage.write(join(folder, self.path(0, 1)), [])
            return
        of_tars = {path for path in written if re.fullmatch(r".*/manifest_\d+\.json", path)}
        numbers = range(len(of_tars) + tars_without_rows)
        missing = {self.path_of_tar(number) for number in numbers} - of_tars
        if len(missing) == tars_without_rows:  # the tars are numbered from 0
            for path in missing:
                storage.write(join(folder, path), [])


FORMAT = NemoManifests(name="nemo", extension="json", stem="manifest", needs_origin=True)
