"""The row file: random access equals the rows written, and memory stays small."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipwise.data import rows
from clipwise.data.rows import Block, RowFile, RowWriter, matrix, needs_float64
from clipwise.data.schema import (
    ArrayFeature,
    CategoryFeature,
    DatasetSchema,
    ImageFeature,
    NumberFeature,
    Size,
    Unit,
)
from clipwise.errors import InvalidData


def everything(unit: str | None = "person") -> DatasetSchema:
    return DatasetSchema(
        features=(
            NumberFeature(name="age", bounds=(0.0, 120.0)),
            CategoryFeature(name="sex", categories=("f", "m")),
            ArrayFeature(name="signal", shape=(3,), bounds=(-1.0, 1.0)),
            ImageFeature(name="scan", shape=(2, 2, 1), bounds=(0.0, 255.0)),
        ),
        target="label",
        task="classification",
        classes=("no", "yes"),
        unit=Unit(column=unit),
        size=Size(value=10),
    )


def block(count: int, seed: int = 0) -> Block:
    generator = np.random.default_rng(seed)
    return Block(
        numbers=generator.uniform(0, 120, (count, 1)),
        categories=generator.integers(0, 2, (count, 1), dtype=np.int32),
        arrays={
            "signal": generator.uniform(-1, 1, (count, 3)).astype(np.float32),
            "scan": generator.integers(0, 256, (count, 4), dtype=np.uint8),
        },
        targets=generator.integers(0, 2, count),
        units=generator.integers(0, 2**63, count).astype(np.uint64),
    )


@settings(max_examples=30, deadline=None)
@given(
    pieces=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    size=st.integers(1, 17),
    seed=st.integers(0, 99),
)
def test_any_rows_come_back(
    pieces: list[int], size: int, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.arrow"
    whole = block(sum(pieces), seed).columns()
    with RowWriter(path, everything(), array_types={"scan": np.uint8}, rows_per_batch=size) as writer:
        start = 0
        for count in pieces:
            part = {name: values[start : start + count] for name, values in whole.items()}
            writer.append(
                Block(
                    numbers=part["numbers"],
                    categories=part["categories"],
                    arrays={"signal": part["array:signal"], "scan": part["array:scan"]},
                    targets=part["target"],
                    units=part["unit"],
                )
            )
            start += count
    stored = RowFile(path)
    assert len(stored) == sum(pieces) == writer.rows
    with pa.memory_map(str(path)) as source:
        reader = pa.ipc.open_file(source)
        lengths = [reader.get_batch(i).num_rows for i in range(reader.num_record_batches)]
    assert all(length == size for length in lengths[:-1])
    indices = np.random.default_rng(seed).integers(0, max(1, len(stored)), 50 if len(stored) else 0)
    table = stored.take(indices)
    for name, values in whole.items():
        taken = matrix(table, name)
        np.testing.assert_array_equal(taken, values[indices].astype(taken.dtype))
    assert table.schema.field("array:scan").type.value_type == pa.uint8()


@pytest.mark.parametrize("index", [-1, 10])
def test_out_of_range(index: int, tmp_path: Path) -> None:
    with RowWriter(tmp_path / "rows", everything()) as writer:
        writer.append(block(10))
    with pytest.raises(InvalidData, match="there are 10"):
        RowFile(tmp_path / "rows").take([0, index])


@pytest.mark.parametrize("content", [b"", b"not arrow", b"ARROW1\0\0" + b"x" * 100])
def test_not_a_row_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(content)
    with pytest.raises(InvalidData):
        RowFile(tmp_path / "rows")
    with pytest.raises(InvalidData):
        RowFile(tmp_path / "missing")


def test_another_arrow_file_is_refused(tmp_path: Path) -> None:
    with pa.OSFile(str(tmp_path / "rows"), "wb") as out, pa.ipc.new_file(out, pa.schema({"a": pa.int8()})):
        pass
    with pytest.raises(InvalidData, match="ingest the data again"):
        RowFile(tmp_path / "rows")


def test_precision_follows_the_bounds(tmp_path: Path) -> None:
    assert not needs_float64((0.0, 120.0))
    assert needs_float64((1.7e9, 1.7e9 + 1000))  # moments in seconds: float32 steps are 128 s
    assert needs_float64((-1e308, 1e308))
    schema = DatasetSchema(
        features=(NumberFeature(name="at", bounds=(1.7e9, 1.7e9 + 1000)),),
        target="y",
        task="regression",
        target_bounds=(0.0, 1.0),
        size=Size(value=1),
    )
    with RowWriter(tmp_path / "rows", schema) as writer:
        writer.append(Block(numbers=np.array([[1.7e9 + 1]]), targets=np.array([0.5])))
    assert matrix(RowFile(tmp_path / "rows").take([0]), rows.NUMBERS).tolist() == [[1.7e9 + 1]]


def test_too_large_for_float32_stays_finite(tmp_path: Path) -> None:
    schema = everything(unit=None)
    values = block(1)
    huge = Block(
        numbers=np.array([[1e300]]),
        categories=values.categories,
        arrays=values.arrays,
        targets=values.targets,
    )
    with RowWriter(tmp_path / "rows", schema) as writer:
        writer.append(huge)
    assert np.isfinite(matrix(RowFile(tmp_path / "rows").take([0]), rows.NUMBERS)).all()


SAMPLE = """
import json, sys, numpy as np
from clipwise.data.rows import RowFile
def memory():
    with open("/proc/self/status") as status:
        lines = dict(line.split(":", 1) for line in status)
    return {name: int(lines[name].split()[0]) * 1024 for name in ("RssAnon", "RssFile")}
rows = RowFile(sys.argv[1])
generator = np.random.default_rng(0)
rows.take(generator.integers(0, len(rows), 64))
before = memory()
checked = 0
for _ in range(10):
    indices = generator.integers(0, len(rows), 64)
    table = rows.take(indices)
    checked += int((table.column("target").to_numpy() == indices).all())
after = memory()
grown = {name: after[name] - before[name] for name in before}
print(json.dumps(grown | {"checked": checked, "rows": len(rows)}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_sampling_costs_the_sampled_rows(tmp_path: Path) -> None:
    """400 MB of rows; 640 sampled ones are 5 MB."""
    width, count, step = 2000, 50_000, 5_000
    schema = DatasetSchema(
        features=(ArrayFeature(name="x", shape=(width,), bounds=(-1.0, 1.0)),),
        target="y",
        task="regression",
        target_bounds=(0.0, 1.0),
        size=Size(value=count),
    )
    values = np.zeros((step, width), np.float32)
    with RowWriter(tmp_path / "rows", schema) as writer:
        for start in range(0, count, step):
            writer.append(Block(arrays={"x": values}, targets=np.arange(start, start + step)))
    size = (tmp_path / "rows").stat().st_size
    assert size > 400e6
    done = subprocess.run(
        [sys.executable, "-c", SAMPLE, str(tmp_path / "rows")], capture_output=True, text=True, check=True
    )
    grown = json.loads(done.stdout)
    assert grown["rows"] == count
    assert grown["checked"] == 10
    assert grown["RssAnon"] < 30e6, grown
    assert grown["RssFile"] < 0.25 * size, grown


def test_sampling_is_fast(tmp_path: Path) -> None:
    count, width = 1_000_000, 20
    schema = DatasetSchema(
        features=tuple(NumberFeature(name=f"x{i}", bounds=(0.0, 1.0)) for i in range(width)),
        target="y",
        task="regression",
        target_bounds=(0.0, 1.0),
        size=Size(value=count),
    )
    with RowWriter(tmp_path / "rows", schema) as writer:
        writer.append(Block(numbers=np.zeros((count, width), np.float32), targets=np.zeros(count)))
    stored = RowFile(tmp_path / "rows")
    generator = np.random.default_rng(0)
    times = []
    for _ in range(50):
        indices = generator.integers(0, count, 128)
        start = time.perf_counter()
        stored.take(indices)
        times.append(time.perf_counter() - start)
    assert np.median(times) < 0.01


def test_a_missing_file_is_named_without_its_folder(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=r"'rows\.arrow' cannot be read as a row file") as caught:
        RowFile(tmp_path / "rows.arrow")
    assert str(tmp_path) not in caught.value.detail
