"""NPZ: named arrays of one length, nothing unpickled, nothing unpacked beyond its limit."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from clipwise.data.reading import NpzReader, open_source
from clipwise.errors import InvalidData


def saved(tmp_path: Path, **arrays: object) -> Path:
    path = tmp_path / "upload"
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)
    return path


def test_arrays_come_back(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (70_000, 4, 5), dtype=np.uint8)
    fortran = np.asfortranarray(generator.normal(size=(70_000, 3)))
    path = saved(
        tmp_path,
        x=x,
        f=fortran,
        big=fortran[:, 0].astype(">f4"),
        half=fortran[:, 1].astype(np.float16),
        y=np.array(["a", "b"] * 35_000),
        s=np.array([b"u", b"v"] * 35_000),
        one=np.ones((70_000, 1)),
        t=np.array([True, False] * 35_000),
        scalar=np.float64(1),
    )
    reader = open_source(path)
    assert reader.format == "npz"
    assert reader.notes == ("'scalar' is a single value and was left out.",)
    shapes = {column.name: (column.kind, column.shape) for column in reader.columns}
    assert shapes["x"] == ("array", (4, 5))
    assert shapes["one"] == ("number", ())
    assert shapes["t"] == ("truth", ())
    names = list(shapes)
    batches = list(reader.batches(names))

    def joined(name: str) -> np.ndarray:
        place = names.index(name)
        parts = [batch.column(place) for batch in batches]
        flat = [(p.flatten() if shapes[name][1] else p).to_numpy(zero_copy_only=False) for p in parts]
        return np.concatenate(flat).reshape(70_000, *shapes[name][1])

    np.testing.assert_array_equal(joined("x"), x)
    np.testing.assert_array_equal(joined("f"), fortran)
    np.testing.assert_array_equal(joined("big"), fortran[:, 0].astype(np.float32))
    np.testing.assert_array_equal(joined("half"), fortran[:, 1].astype(np.float16).astype(np.float32))
    assert joined("y")[:2].tolist() == ["a", "b"]
    assert joined("s")[:2].tolist() == ["u", "v"]


def test_objects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="never unpickled"):
        open_source(saved(tmp_path, x=np.zeros((2, 2)), y=np.array([{}, 1], object)))


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros(2, complex), "complex128"),
        (np.zeros(2, "M8[s]"), "datetime64"),
        (np.zeros(2, [("a", "f4")]), "type"),
        (np.array([["a"], ["b"]]), "<U1"),
        (np.zeros((2, 0)), "empty shape"),
        (np.zeros(3), "differ in length"),
    ],
)
def test_other_arrays_are_named(array: np.ndarray, says: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=says):
        open_source(saved(tmp_path, x=np.zeros((2, 2)), bad=array))


def test_no_rows_and_no_arrays(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="no rows"):
        open_source(saved(tmp_path, x=np.zeros((0, 2)), y=np.zeros(0)))
    with pytest.raises(InvalidData, match="no arrays"):
        open_source(saved(tmp_path))


def test_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    path = saved(tmp_path, x=np.zeros((1000, 1000)), y=np.zeros(1000))
    assert path.stat().st_size < 100_000
    with pytest.raises(InvalidData, match="unpacked"):
        NpzReader(path, expanded_limit=1_000_000)


def archive(tmp_path: Path, name: str, content: bytes) -> Path:
    with zipfile.ZipFile(tmp_path / "upload", "w") as file:
        file.writestr(name, content)
    return tmp_path / "upload"


def header(text: str) -> bytes:
    padded = text.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("xl/workbook.xml", b"<x/>"),
        ("x.txt", b"hello"),
        ("x.npy", b"hello"),
        ("x.npy", b""),
        ("x.npy", header("{'descr': '<f8', 'fortran_order': False, 'shape': (-5,)}")),
        ("x.npy", header("{'descr': '<f8', 'fortran_order': False, 'shape': (1, -5)}")),
        ("x.npy", header("{'descr': '<f8', 'fortran_order': False, 'shape': (10**9,)}")),
        ("x.npy", header("{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999999999, 9)}")),
        ("x.npy", header("__import__('os').system('touch /tmp/clipwise-owned')")),
        ("x.npy", header("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}")),
        ("x.npy", header("[" * 500)),
    ],
)
def test_malformed_archives(name: str, content: bytes, tmp_path: Path) -> None:
    with pytest.raises(InvalidData):
        open_source(archive(tmp_path, name, content))
    assert not Path("/tmp/clipwise-owned").exists()


def test_array_that_ends_early(tmp_path: Path) -> None:
    short = header("{'descr': '<f8', 'fortran_order': False, 'shape': (1000,)}") + bytes(80)
    reader = open_source(archive(tmp_path, "x.npy", short))
    with pytest.raises(InvalidData, match="ends before"):
        list(reader.batches(["x"]))


def test_damaged_bytes(tmp_path: Path) -> None:
    path = saved(tmp_path, x=np.random.default_rng(0).normal(size=(100, 30)), y=np.zeros(100))
    data = bytearray(path.read_bytes())
    data[3000:3100] = b"\0" * 100
    path.write_bytes(data)
    with pytest.raises(InvalidData):
        list(open_source(path).batches(["x", "y"]))


def test_memory_is_bounded_by_a_batch(tmp_path: Path) -> None:
    reader = open_source(saved(tmp_path, x=np.zeros((3000, 4096), np.float32), y=np.zeros(3000)))
    assert max(batch.nbytes for batch in reader.batches(["x", "y"])) < 10 * 2**20


def test_empty_zip(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    zipfile.ZipFile(buffer, "w").close()
    (tmp_path / "upload").write_bytes(buffer.getvalue())
    with pytest.raises(InvalidData, match="no arrays"):
        open_source(tmp_path / "upload")
