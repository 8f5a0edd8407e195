"""Lines of text files: whatever the ends and the marks, none is lost."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_asr.errors import NotJsonError
from beam_asr.inputs import json_lines
from beam_asr.storage.storage import Storage


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_line_ends_and_byte_order_marks_are_no_part_of_a_line(tmp_path, end, mark):
    path = tmp_path / "m.jsonl"
    path.write_bytes(mark + f'{{"a": "é"}}{end}{{"b": 1}}'.encode())
    assert list(json_lines.read_lines(Storage(), str(path))) == ['{"a": "é"}', '{"b": 1}']


def test_a_byte_that_is_no_utf8_spoils_only_its_line(tmp_path):
    path = tmp_path / "m.jsonl"
    # In the second, the escape that shows the byte would make JSON of what is none.
    path.write_bytes(b'{"a": "\xff"}\r\n{"a": "\\\xff"}\n{"b": 1}\n')
    first, second, last = json_lines.read_lines(Storage(), str(path))
    for error, shown in ((first, '{"a": "\\xff"}'), (second, '{"a": "\\\\xff"}')):
        assert isinstance(error, NotJsonError)
        assert error.line == shown
        assert "0xff" in str(error)
        assert "save it as UTF-8" in str(error)
    assert last == '{"b": 1}'


texts = st.lists(st.sampled_from([b"a", b"\n", b"\r\n", b"\xef\xbb\xbf", b"row", b"\n\n", b"\r"]))


@given(texts, st.lists(st.integers(0, 60)), st.booleans())
def test_ranges_give_every_line_once_with_its_number(tmp_path_factory, parts, cuts, ended):
    content = b"".join(parts) + (b"\n" if ended else b"")
    path = tmp_path_factory.mktemp("m") / "m.jsonl"
    path.write_bytes(content)
    storage, file = Storage(), str(path)
    whole = list(json_lines.read_lines(storage, file))
    bounds = sorted({0, len(content), *(cut for cut in cuts if cut < len(content))})
    found, before = [], 0
    for start, end in itertools.pairwise(bounds):
        in_range = list(json_lines.read_lines(storage, file, start, end))
        assert json_lines.count_lines(storage, file, start, end) == len(in_range)
        found += enumerate(in_range, before + 1)
        before += len(in_range)
    assert found == list(enumerate(whole, 1))
