"""Records of tables of text."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_asr.errors import BadRecordError, TableError
from beam_asr.inputs.csv_tables import csv_records


def records_of(content):
    return list(csv_records(io.BytesIO(content), "clips.csv", "path"))


def columns(content):
    """The CSV's fields, without their lines' numbers; errors as their messages."""
    return [str(r) if isinstance(r, BadRecordError) else r for _, r in records_of(content)]


@pytest.mark.parametrize(
    "content",
    [
        b"path,text\na.wav,hello\nb.wav,bye\n",
        b"path,text\na.wav,hello\nb.wav,bye",
        b"path,text\r\na.wav,hello\r\nb.wav,bye\r\n",
        b"\xef\xbb\xbfpath,text\na.wav,hello\nb.wav,bye\n",
        b'\xef\xbb\xbf"path","text"\n"a.wav","hello"\n"b.wav",bye\n',
        b"path, text \na.wav,hello\nb.wav,bye\n",
        b"path\ttext\na.wav\thello\nb.wav\tbye\n",
        b"path;text\r\na.wav;hello\r\nb.wav;bye\r\n",
        b'"path";"text"\n"a.wav";"hello"\n"b.wav";"bye"\n',
    ],
)
def test_a_table_gives_a_record_a_line_by_the_names_in_its_header(content):
    assert records_of(content) == [
        (2, {"path": "a.wav", "text": "hello"}),
        (3, {"path": "b.wav", "text": "bye"}),
    ]


def test_a_record_is_numbered_by_the_line_on_which_it_starts():
    content = b'path,text\n\na.wav,"two\r\nlines, ""quoted"""\n  \nb.wav,x,y\nc.wav,"z\n"\n'
    (first, fields), (second, error), (third, last) = records_of(content)
    assert (first, fields) == (3, {"path": "a.wav", "text": 'two\r\nlines, "quoted"'})
    assert second == 6
    assert isinstance(error, BadRecordError)
    assert (third, last) == (7, {"path": "c.wav", "text": "z\n"})


def test_an_empty_cell_in_quotes_is_a_record_and_no_blank_line():
    assert records_of(b'path\n""\n\n') == [(2, {"path": ""})]


@pytest.mark.parametrize(
    ("cell", "value"),
    [("1.5", 1.5), ("2", 2.0), (" 3e-1 ", 0.3), ("-1", -1.0), ("0", 0.0)]
    + [(text, text) for text in ("1:30", "1_000", "nan", "inf", "x", "1.5s")],
)
@pytest.mark.parametrize("column", ["duration", "offset"])
def test_durations_and_offsets_are_numbers_and_other_text_in_them_stays(column, cell, value):
    ((_, fields),) = records_of(f"path,{column}\n007,{cell}\n".encode())
    assert fields == {"path": "007", column: value}
    assert type(fields[column]) is type(value)


def test_an_empty_duration_is_none_at_all_and_other_empty_cells_are_empty_text():
    content = b"path,text,offset,duration\na.wav,,, \n"
    assert records_of(content) == [(2, {"path": "a.wav", "text": ""})]


def test_cells_other_than_durations_stay_as_they_are_written():
    content = "id,lang,text,n\n007,null, é “x” ,1.50\n".encode()
    assert columns(content) == [{"id": "007", "lang": "null", "text": " é “x” ", "n": "1.50"}]


def test_bytes_that_are_not_utf8_are_shown_and_harm_nothing_else():
    assert columns(b"path,text\na.wav,caf\xe9\nb.wav,x\n") == [
        {"path": "a.wav", "text": "caf\\xe9"},
        {"path": "b.wav", "text": "x"},
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"a.wav", "1 cells, where the header has 2"),
        (b"a.wav,hello, bye", "3 cells, where the header has 2 columns; put cells that hold ','"),
        (b'a.wav,"hello" bye', "not CSV"),
        (b"a.wav,one\rtwo", "not CSV"),
    ],
)
def test_a_broken_record_says_what_is_wrong_and_its_neighbours_are_read(line, message):
    before, broken, after = records_of(b"path,text\nx.wav,1\n" + line + b"\ny.wav,2\n")
    assert before == (2, {"path": "x.wav", "text": "1"})
    assert broken[0] == 3
    assert isinstance(broken[1], BadRecordError)
    assert message in str(broken[1])
    assert after == (4, {"path": "y.wav", "text": "2"})


def opened(*lines):
    """A table of a first line with an open quote and more lines, and the records after the first.

    The first one is checked to be an error in the line where the quote opens.
    """
    content = "path,text,n\nx.wav,good,0\n" + "".join(f"{line}\n" for line in lines)
    good, (number, error), *rest = records_of(content.encode())
    assert good == (2, {"path": "x.wav", "text": "good", "n": "0"})
    assert number == 3
    assert isinstance(error, BadRecordError)
    assert error.line == lines[0]
    several = "a quote opens in the record of this line"
    assert (several if len(lines) > 1 else "unexpected end of data") in str(error)
    return rest


@pytest.mark.parametrize(
    ("closing", "text"),
    [
        ([], None),  # never closed
        (['y.wav,and closed",1'], 'and closed"'),  # a cell of several lines, and valid CSV
        (['y.wav,and closed" here,1'], 'and closed" here'),
        (['y.wav,"opened again,1'], None),
    ],
)
@pytest.mark.parametrize("between", [0, 1, 300])
def test_what_a_quote_that_stays_open_takes_in_is_read_line_by_line(closing, text, between):
    inner = [f"{n}.wav,in between,{n}" for n in range(between)]
    records = opened('a.wav,"opened,0', *inner, *closing)
    assert records[:between] == [
        (4 + n, {"path": f"{n}.wav", "text": "in between", "n": f"{n}"}) for n in range(between)
    ]
    last = [record for _, record in records[between:]]
    if text:
        assert last == [{"path": "y.wav", "text": text, "n": "1"}]
    else:
        assert [type(record) for record in last] == [BadRecordError] * len(closing)


def test_a_quote_that_opens_twice_costs_two_lines():
    lines = ['a.wav,"one,0', "b.wav,two,0", 'c.wav,"three,0', "d.wav,four,0"]
    records = opened(*lines)
    assert [number for number, _ in records] == [4, 5, 6]
    assert isinstance(records[1][1], BadRecordError)
    assert [records[0][1]["path"], records[2][1]["path"]] == ["b.wav", "d.wav"]


@pytest.mark.parametrize(
    ("header", "path", "first", "second"),
    [
        ("text,path,n", "a.wav", '"opened,b.wav,0', 'closed",c.wav,0'),
        ("path,text,n", "a.wav", 'b.wav,"opened,0', 'c.wav,closed",0'),
        # Audio without an extension: by its store, its count, or the numbers beside it.
        ("path,text,n", "clip_7", 'clip_8,"opened,0', 'clip_12,closed",0'),
        ("path,text,n", "s3://b/1", 's3://b/2,"opened,0', 's3://b/3,closed",0'),
        ("path,text,duration", "a", 'b,"opened,0.5', 'c,closed",1'),
        ("path", "a.wav", '"b.wav', 'c.wav"'),
    ],
)
def test_a_record_of_records_is_none_whatever_the_column_of_the_audio(header, path, first, second):
    good = ",".join({"path": path, "text": "hello, \nworld"}.get(c, "0") for c in header.split(","))
    assert "\n" in good or header == "path"
    good = good.replace("hello, \nworld", '"hello, \nworld"')
    records = records_of(f"{header}\n{good}\n{first}\n{second}\n".encode())
    assert records[0][1]["path"] == path
    assert isinstance(records[1][1], BadRecordError)
    assert len(records) == 3


@pytest.mark.parametrize("text", ["Hello, sir\nHow are you, sir", "files:\na.wav\nb.wav", "\n,,\n"])
def test_a_text_of_several_lines_is_one_record(text):
    content = f'path,text,n\na.wav,"{text}",1\nb.wav,x,2\n'.encode()
    assert columns(content)[0] == {"path": "a.wav", "text": text, "n": "1"}
    assert columns(content)[1]["path"] == "b.wav"


@pytest.mark.parametrize("first", ["sep=;\n", "SEP=;\r\n", '"sep=;"\n', "\ufeffsep=;\n", ""])
def test_a_table_of_a_european_excel_is_read_with_its_decimal_commas(first):
    content = first + 'path;duration;offset;text\na.wav;3,69;0;"a;b, c"\nb.wav;1,234;12,5;d\n'
    lines = 2 + bool(first)
    assert records_of(content.encode()) == [
        (lines, {"path": "a.wav", "duration": 3.69, "offset": 0.0, "text": "a;b, c"}),
        (lines + 1, {"path": "b.wav", "duration": 1.234, "offset": 12.5, "text": "d"}),
    ]


@pytest.mark.parametrize("cell", ["3,69", "1,234", "1.234,5", "1,234.5", "1 234,5", "1'234"])
def test_a_number_with_a_comma_is_never_read_where_the_comma_may_part_thousands(cell):
    ((_, fields),) = records_of(f'path,duration\na.wav,"{cell}"\n'.encode())
    assert fields["duration"] == cell
    (first, second) = columns(
        f"path;duration\na.wav;1,5\nb.wav;{cell.replace(',', '.')}\n".encode()
    )
    assert first["duration"] == 1.5
    assert isinstance(second, str) or isinstance(second["duration"], str)


@pytest.mark.parametrize("mark", [",", "\t", "|"])
def test_excels_first_line_names_the_delimiter(mark):
    content = f"sep={mark}\npath{mark}te;xt\na.wav{mark}x\n"
    assert records_of(content.encode()) == [(3, {"path": "a.wav", "te;xt": "x"})]


def test_the_delimiter_is_that_with_the_column_of_the_audio():
    assert columns(b"a;b;c;d,path\n1;2,x.wav\n") == [{"a;b;c;d": "1;2", "path": "x.wav"}]
    assert columns(b"a,b,c;path\n1,2,3;x.wav\n") == [{"a,b,c": "1,2,3", "path": "x.wav"}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b,a,c,b\n1,2,3,4,5\n", "more than one column 'a', 'b'"),
        (b"a,a \n", "more than one column 'a'"),
        (b"a,,c\n", "column 2 of the table 'clips.csv' has no name"),
        (b",a\n0,x.wav\n", "index=False"),
        (b"\n  \n\n", "names no columns"),
        (b'"a,b\n1,2\n', "header of the table 'clips.csv' cannot be read"),
        (b"a,b\r1,2\r", "header of the table 'clips.csv' cannot be read"),
        ("path,text\na.wav,x\n".encode("utf-16"), "clips.csv"),
    ],
)
def test_a_header_that_does_not_name_each_column_once_fails_the_table(content, message):
    with pytest.raises(TableError, match=r"clips\.csv") as error:
        records_of(content)
    assert message in str(error.value)


def test_an_empty_table_has_no_records():
    assert records_of(b"") == records_of(b"path,text\n") == []


def test_a_very_long_cell_is_read_and_the_process_is_left_no_lower_limit():
    text = "word " * 1_000_000
    assert columns(f"path,text\na.wav,{text}\n".encode()) == [{"path": "a.wav", "text": text}]
    limit = csv.field_size_limit(2**30)
    try:
        assert columns(b"path\na.wav\n") == [{"path": "a.wav"}]
        assert csv.field_size_limit() == 2**30
    finally:
        csv.field_size_limit(limit)


def test_nul_bytes_cost_at_most_their_own_record():
    records = records_of(b"path,text\na.wav,1\nb\0.wav,\0\nc.wav,3\n")
    assert [number for number, _ in records] == [2, 3, 4]
    assert records[0][1] == {"path": "a.wav", "text": "1"}
    assert records[2][1] == {"path": "c.wav", "text": "3"}


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@given(st.lists(st.tuples(CELLS, CELLS), max_size=5), st.sampled_from(",;\t"))
def test_what_python_writes_as_csv_is_read_back_in_order(rows, delimiter):
    written = io.StringIO(newline="")
    csv.writer(written, delimiter=delimiter).writerows([("path", "text"), *rows])
    records = records_of(written.getvalue().encode())
    assert [tuple(fields.values()) for _, fields in records] == rows


@given(st.binary(max_size=80))
def test_any_bytes_are_records_or_a_table_error(content):
    try:
        records = records_of(b"a,b\n" + content)
        json.dumps([r for _, r in records if isinstance(r, dict)], allow_nan=False)
        records_of(content)
    except TableError:
        pass


TEXTS = st.text('"x ', max_size=4)


@given(st.lists(TEXTS, max_size=12), st.sampled_from(",;\t"))
def test_whatever_quotes_stay_open_each_line_is_a_record_or_an_error(texts, delimiter):
    lines = [delimiter.join([f"{n}.wav", text, "9"]) for n, text in enumerate(texts)]
    content = f"path{delimiter}text{delimiter}n\n" + "".join(f"{line}\n" for line in lines)
    records = records_of(content.encode())
    assert [number for number, _ in records] == [*range(2, len(texts) + 2)]
    for (_, record), line in zip(records, lines, strict=True):
        if isinstance(record, BadRecordError):
            assert record.line == line
        else:
            assert record["path"] == line.split(delimiter)[0]
            assert delimiter not in record["text"]


def test_the_module_is_light_to_import():
    code = (
        "import sys, beam_asr.inputs.csv_tables; "
        "sys.exit(bool({'pyarrow', 'pandas'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
