"""The table of storage protocols."""

from __future__ import annotations

from importlib.metadata import metadata

import pytest

from beam_asr.storage import protocols


def test_no_name_is_in_two_rows():
    names = [name for each in protocols.PROTOCOLS for name in (each.name, *each.aliases)]
    assert len(names) == len(set(names))


def test_every_extra_is_one_of_the_package():
    extras = {each.extra for each in protocols.PROTOCOLS} - {None}
    assert extras <= set(metadata("beam_asr").get_all("Provides-Extra"))


@pytest.mark.parametrize(
    ("name", "found"), [("gcs", "gs"), ("abfss", "az"), ("https", "http"), ("local", "file")]
)
def test_a_row_is_found_by_any_of_its_names(name, found):
    assert protocols.find_protocol(name).name == found


def test_a_protocol_that_is_in_no_row_may_be_written_and_is_compared_with_care():
    other = protocols.find_protocol("sftp")
    assert other.is_writable
    assert not other.is_bucket_store
    assert other.path_rule == "plain"
