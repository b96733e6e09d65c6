"""CSV as people send it: every file reads, or its error says what to do."""

import time
from pathlib import Path

import pytest

from clipwise.data.reading import Reader, open_source
from clipwise.errors import InvalidData


def opened(tmp_path: Path, content: bytes) -> Reader:
    path = tmp_path / "upload"
    path.write_bytes(content)
    return open_source(path)


def cells(reader: Reader) -> list[list[str]]:
    names = [column.name for column in reader.columns]
    return [list(row.values()) for batch in reader.batches(names) for row in batch.to_pylist()]


PLAIN = 'name,age,label\nZoë,1,a\n"x, ""y""\nz",,b\n'
EXPECTED = [["Zoë", "1", "a"], ['x, "y"\nz', "", "b"]]


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (PLAIN.encode(), ""),
        (PLAIN.encode("utf-8-sig"), ""),
        (PLAIN.encode("utf-16"), ""),
        (b"\xfe\xff" + PLAIN.encode("utf-16-be"), ""),
        (PLAIN.encode("latin-1"), "Windows-1252"),
        (PLAIN.replace("ë", "\x81").encode("latin-1"), "Latin-1"),
        (PLAIN.rstrip("\n").encode(), ""),
        (PLAIN.replace(",", ";").replace("x;", "x,").encode(), "semicolons"),
        (PLAIN.replace(",", "\t").replace("x\t", "x,").encode(), "tabs"),
        (PLAIN.replace(",", "|").replace("x|", "x,").encode(), "vertical bars"),
        (PLAIN.replace("\nZ", "\n\n\nZ").encode(), ""),
    ],
)
def test_any_encoding_and_separator(content: bytes, note: str, tmp_path: Path) -> None:
    reader = opened(tmp_path, content)
    expected = (
        [[cell.replace("ë", "\x81") for cell in row] for row in EXPECTED] if note == "Latin-1" else EXPECTED
    )
    assert [column.name for column in reader.columns] == ["name", "age", "label"]
    assert cells(reader) == expected
    assert cells(reader) == expected  # again from the beginning
    assert note in " ".join(reader.notes)
    assert bool(note) == bool(reader.notes)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_any_line_end(end: str, tmp_path: Path) -> None:
    reader = opened(tmp_path, f"a,b{end}1,2{end}3,4{end}".encode())
    assert cells(reader) == [["1", "2"], ["3", "4"]]


def test_columns_are_chosen_by_name(tmp_path: Path) -> None:
    reader = opened(tmp_path, b"a,b,c\n1,2,3\n4,5,6\n")
    (batch,) = reader.batches(["c", "a"])
    assert batch.to_pylist() == [{"c": "3", "a": "1"}, {"c": "6", "a": "4"}]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"\xef\xbb\xbf", "first row"),
        (b"\n\n", "first row"),
        (b"a,a\n1,2\n", "two columns are called 'a'"),
        (b"a,,b\n1,2,3\n", "column 2 has no name"),
        (b"a,b,\n1,2,\n", "column 3 has no name (a separator at the end of each row"),
        (b"sep=;\na;b\n1;2\n", "('sep='); remove it"),
        (b",a,b\n0,1,2\n", "index=False"),
        (b"only\n1\n2\n", "only one column"),
        (b"a,b\n1,\0\n", "zero"),
        ("a,b\n1,2\n".encode("utf-16-le"), "UTF-16 without"),
        ("a,b\n1,\0\n".encode("utf-16"), "zero"),
        ("a,b\n1,2\n".encode("utf-16")[:-1], "UTF-16"),
        (PLAIN.encode("utf-32"), "UTF-32"),
        (b"\x1f\x8b" + b"x" * 50, "gzip"),
        (b"\x80\x04\x95" + b"x" * 50, "never opened"),
        (b"\x93NUMPY" + b"x" * 50, "numpy.savez"),
        (b",".join(b"c%d" % i for i in range(10_001)) + b"\n", "10,000"),
    ],
)
def test_what_cannot_be_read_says_what_to_do(content: bytes, says: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidData) as raised:
        opened(tmp_path, content)
    assert says in raised.value.detail


@pytest.mark.parametrize("bad", [b"secret", b"secret,1,2"])
@pytest.mark.parametrize("before", [0, 3, 2_000_000])
def test_ragged_row_is_named_and_not_quoted(bad: bytes, before: int, tmp_path: Path) -> None:
    reader = opened(tmp_path, b"a,b\n" + b"1,2\n" * before + bad + b"\n1,2\n")
    with pytest.raises(InvalidData) as raised:
        list(reader.batches(["a", "b"]))
    assert raised.value.row == before + 1
    assert f"row {before + 1:,} has {bad.count(b',') + 1} cells" in raised.value.detail
    assert "secret" not in raised.value.detail


def test_quotation_that_never_closes(tmp_path: Path) -> None:
    reader = opened(tmp_path, b'a,b\n1,2\n1,"2\n' + b"3,4\n" * 6_000_000)
    with pytest.raises(InvalidData, match="never closed"):
        list(reader.batches(["a"]))


def test_large_cell(tmp_path: Path) -> None:
    reader = opened(tmp_path, b"a,b\n1," + b"x" * 3_000_000 + b"\n2,y\n")
    assert [len(row[1]) for row in cells(reader)] == [3_000_000, 1]


def test_wide_file(tmp_path: Path) -> None:
    names = ",".join(f"c{i}" for i in range(5000))
    rows = "\n".join(",".join("1" for _ in range(5000)) for _ in range(20))
    reader = opened(tmp_path, f"{names}\n{rows}\n".encode())
    start = time.perf_counter()
    assert len(cells(reader)) == 20
    assert time.perf_counter() - start < 5


def test_no_rows(tmp_path: Path) -> None:
    assert cells(opened(tmp_path, b"a,b\n")) == []
    with pytest.raises(InvalidData, match="rows below it"):
        opened(tmp_path, b"a,b")
