"""Parquet: flat columns and lists of one length; anything else is named."""

import datetime as dt
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from clipwise.data.reading import Reader, open_source
from clipwise.errors import InvalidData


def written(tmp_path: Path, columns: dict[str, pa.Array], **options: object) -> Path:
    path = tmp_path / "upload"
    pq.write_table(pa.table(columns), path, **options)
    return path


def rows(reader: Reader) -> list[dict[str, object]]:
    names = [column.name for column in reader.columns if column.kind != "moment"]
    return [row for batch in reader.batches(names) for row in batch.to_pylist()]


def test_every_usable_type(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        {
            "int": pa.array([1, None], pa.int16()),
            "half": pa.array(np.array([0.5, 1.5], np.float16)),
            "decimal": pa.array([1, 2], pa.decimal128(10, 2)),
            "text": pa.array(["a", None], pa.large_string()),
            "category": pa.array(["a", "b"]).dictionary_encode(),
            "truth": pa.array([True, False]),
            "nothing": pa.nulls(2),
            "at": pa.array([dt.date(2020, 1, 1)] * 2),
            "fixed": pa.array([[1, 2], [3, 4]], pa.list_(pa.uint8(), 2)),
            "list": pa.array([[1.0, 2.0, 3.0], [3.0, 4.0, 5.0]], pa.list_(pa.float32())),
        },
    )
    reader = open_source(path)
    assert reader.format == "parquet"
    kinds = {column.name: (column.kind, column.shape) for column in reader.columns}
    assert kinds["list"] == ("array", (3,))
    assert kinds["fixed"] == ("array", (2,))
    assert kinds["at"] == ("moment", ())
    assert kinds["decimal"] == ("number", ())
    first, second = rows(reader)
    assert first["decimal"] == 1.0
    assert second["int"] is None
    assert second["text"] is None
    assert second["category"] == "b"
    assert second["list"] == [3.0, 4.0, 5.0]


def test_many_batches(tmp_path: Path) -> None:
    path = written(
        tmp_path, {"a": pa.array(np.arange(200_000)), "b": pa.array(["x"] * 200_000)}, row_group_size=7000
    )
    batches = list(open_source(path).batches(["a", "b"]))
    assert max(batch.num_rows for batch in batches) <= 65_536
    assert np.concatenate([batch.column(0).to_numpy() for batch in batches]).tolist() == list(range(200_000))


@pytest.mark.parametrize(
    ("column", "says"),
    [
        (pa.array([{"x": 1}]), "struct"),
        (pa.array([[[1]]]), "list"),
        (pa.array([b"x"]), "binary"),
        (pa.array([[1]], pa.list_(pa.int8())).cast(pa.list_(pa.string())), "list"),
    ],
)
def test_other_types_are_named(column: pa.Array, says: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=f"column 'bad' has the type {says}") as raised:
        open_source(written(tmp_path, {"good": pa.array([1]), "bad": column}))
    assert raised.value.column == "bad"


@pytest.mark.parametrize("lists", [[[1, 2], [3]], [[1, 2], None], [[1, 2], [3, None]]])
def test_ragged_list_names_its_row(lists: list[object], tmp_path: Path) -> None:
    reader = open_source(written(tmp_path, {"x": pa.array(lists, pa.list_(pa.int32()))}))
    with pytest.raises(InvalidData) as raised:
        list(reader.batches(["x"]))
    assert (raised.value.row, raised.value.column) == (2, "x")


def test_no_rows(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="no rows"):
        open_source(written(tmp_path, {"x": pa.array([], pa.int8()), "y": pa.array([], pa.int8())}))


@pytest.mark.parametrize("kept", [4, 8, 20, 100, 0.5, 0.99])
def test_cut_short(kept: float, tmp_path: Path) -> None:
    path = written(
        tmp_path, {"a": pa.array(np.random.default_rng(0).normal(size=1000)), "b": pa.array([1] * 1000)}
    )
    data = path.read_bytes()
    path.write_bytes(data[: int(kept if kept > 1 else kept * len(data))])
    with pytest.raises(InvalidData, match="Parquet"):
        open_source(path)


def test_damaged_pages(tmp_path: Path) -> None:
    path = written(tmp_path, {"a": pa.array(np.arange(10_000)), "b": pa.array(["x", "y"] * 5000)})
    data = bytearray(path.read_bytes())
    data[4:200] = b"\xff" * 196
    path.write_bytes(data)
    with pytest.raises(InvalidData, match="Parquet"):
        list(open_source(path).batches(["a", "b"]))
