"""Ingestion: rows arrive as they were; what does not fit is named by row and column, never quoted."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv
from pyarrow import parquet as pq

from clipwise.data.builtin import BUILTINS, write_rows
from clipwise.data.encoding import Encoder
from clipwise.data.inference import propose_schema
from clipwise.data.ingestion import IngestResult, ingest
from clipwise.data.reading import open_source
from clipwise.data.rows import CATEGORIES, NUMBERS, TARGET, UNIT, RowFile, matrix
from clipwise.data.schema import DatasetSchema
from clipwise.errors import InvalidData, InvalidSchema


def schema_of(**changes: Any) -> DatasetSchema:
    return DatasetSchema.model_validate(
        {
            "features": [
                {"name": "age", "type": "number", "bounds": [0, 120]},
                {"name": "sex", "type": "category", "categories": ["f", "m"]},
            ],
            "target": "label",
            "task": "classification",
            "classes": ["no", "yes"],
            "size": {"value": 3, "origin": "from_rows"},
            **changes,
        }
    )


def ingested(tmp_path: Path, content: str, schema: DatasetSchema) -> IngestResult:
    (tmp_path / "upload").write_text(content)
    return ingest(open_source(tmp_path / "upload"), schema, tmp_path / "rows")


GOOD = "id,sex,age,label\np1,f,30,no\np2,m, 41 ,yes\np1,f,5.5,yes\n"


def test_rows_arrive(tmp_path: Path) -> None:
    schema = schema_of(unit={"column": "id", "max_rows": 2}, size={"value": 2, "origin": "declared"})
    assert ingested(tmp_path, GOOD, schema).rows == 3
    table = RowFile(tmp_path / "rows").take([0, 1, 2])
    assert matrix(table, NUMBERS).tolist() == [[30.0], [41.0], [5.5]]
    assert matrix(table, CATEGORIES).tolist() == [[0], [1], [0]]
    assert matrix(table, TARGET).tolist() == [0, 1, 1]
    first, second, third = matrix(table, UNIT).tolist()
    assert first == third != second
    assert b"p1" not in (tmp_path / "rows").read_bytes()


@pytest.mark.parametrize(
    ("old", "new", "row", "column", "says"),
    [
        (" 41 ", "secret", 2, "age", "is not a number"),
        (" 41 ", '"4,1"', 2, "age", "decimal comma"),
        (" 41 ", '"1,234"', 2, "age", "thousands"),
        (" 41 ", "2020-01-05", 2, "age", "date"),
        (" 41 ", "", 2, "age", "is empty"),
        (" 41 ", "inf", 2, "age", "is empty"),
        ("5.5", "NaN", 3, "age", "is empty"),
        ("p1,f,5.5", "p1,,5.5", 3, "sex", "is empty"),
        ("p1,f,5.5", "p1,secret,5.5", 3, "sex", "none of the categories"),
        ("30,no", "30,", 1, "label", "is empty"),
        ("30,no", "30,secret", 1, "label", "none of the classes"),
        ("p2", "", 2, "id", "is empty"),
    ],
)
def test_what_does_not_fit_is_named(
    old: str, new: str, row: int, column: str, says: str, tmp_path: Path
) -> None:
    schema = schema_of(unit={"column": "id", "max_rows": 2}, size={"value": 2, "origin": "from_rows"})
    with pytest.raises(InvalidData, match=says) as raised:
        ingested(tmp_path, GOOD.replace(old, new), schema)
    assert (raised.value.row, raised.value.column) == (row, column)
    assert f"row {row}, column '{column}'" in raised.value.detail
    assert "secret" not in raised.value.detail
    assert "1,234" not in raised.value.detail


def test_fill(tmp_path: Path) -> None:
    schema = schema_of(
        features=[
            {"name": "age", "type": "number", "bounds": [0, 120], "fill": 50.0},
            {"name": "sex", "type": "category", "categories": ["f", "m"], "fill": "m"},
        ]
    )
    content = GOOD.replace(" 41 ", "").replace("p1,f,30", "p1,other,30")
    result = ingested(tmp_path, content, schema)
    table = RowFile(tmp_path / "rows").take([0, 1])
    assert matrix(table, NUMBERS).tolist() == [[30.0], [50.0]]
    assert matrix(table, CATEGORIES).tolist() == [[1], [1]]
    assert result.notes == (
        "1 empty or unknown cell of 'age' became its 'fill'.",
        "1 empty or unknown cell of 'sex' became its 'fill'.",
    )


@pytest.mark.parametrize(
    ("changes", "pointer", "says"),
    [
        ({"target": "nothing"}, "/target", "no column 'nothing'; it has 'id', 'sex', 'age', 'label'"),
        ({"unit": {"column": "person"}}, "/unit/column", "no column 'person'"),
        ({"unit": {"column": "id"}, "size": {"value": 2}}, "/unit/max_rows", "has 2 rows"),
        ({"size": {"value": 4}}, "/size/value", "has 3 rows"),
        ({"unit": {"column": "id", "max_rows": 2}}, "/size/value", "has 2 units"),
        (
            {"features": [{"name": "height", "type": "number", "bounds": [0, 1]}]},
            "/features/0/name",
            "no column 'height'",
        ),
        (
            {"features": [{"name": "age", "type": "array", "shape": [2], "bounds": [0, 1]}]},
            "/features/0/type",
            "no array",
        ),
    ],
)
def test_a_schema_that_does_not_fit(changes: dict[str, Any], pointer: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidSchema, match=says) as raised:
        ingested(tmp_path, GOOD, schema_of(**changes))
    assert [problem.pointer for problem in raised.value.problems] == [pointer]


def test_no_rows(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="no rows"):
        ingested(tmp_path, "id,sex,age,label\n", schema_of())


def test_arrays_against_shapes(tmp_path: Path) -> None:
    with (tmp_path / "upload").open("wb") as file:
        np.savez(file, x=np.full((4, 2, 3), np.nan), z=np.zeros((4, 2), np.uint8), y=np.arange(4))
    reader = open_source(tmp_path / "upload")

    def schema(feature: dict[str, Any]) -> DatasetSchema:
        return schema_of(features=[feature], target="y", classes=["0", "1", "2", "3"], size={"value": 4})

    image = {"name": "x", "type": "image", "bounds": [0, 1]}
    with pytest.raises(InvalidSchema, match=r"\[2, 3\] in the file, not \[4, 4, 1\]"):
        ingest(reader, schema({**image, "shape": [4, 4, 1]}), tmp_path / "rows")
    with pytest.raises(InvalidSchema, match="array or an image"):
        ingest(reader, schema({"name": "x", "type": "number", "bounds": [0, 1]}), tmp_path / "rows")
    with pytest.raises(InvalidData, match="row 1, column 'x' holds a value that is not finite"):
        ingest(reader, schema({**image, "shape": [2, 3, 1]}), tmp_path / "rows")
    with pytest.raises(InvalidSchema, match=r"no column 'z\[2\]'"):
        ingest(reader, schema({"name": "z[2]", "type": "number", "bounds": [0, 1]}), tmp_path / "rows")
    ingest(reader, schema({"name": "z", "type": "array", "shape": [2], "bounds": [0, 1]}), tmp_path / "rows")
    assert RowFile(tmp_path / "rows").take([0]).schema.field("array:z").type.value_type == pa.uint8()


def exported(name: str, kind: str, path: Path) -> None:
    """Write a data set of scikit-learn as a user would."""
    from sklearn import datasets

    loader = getattr(datasets, f"load_{name}")
    bunch = loader(scaled=False) if name == "diabetes" else loader()
    if kind == "npz":
        with path.open("wb") as file:
            np.savez_compressed(file, x=bunch.images if name == "digits" else bunch.data, y=bunch.target)
        return
    columns = {str(column): bunch.data[:, place] for place, column in enumerate(bunch.feature_names)}
    names = [str(label) for label in getattr(bunch, "target_names", [])]
    target = np.array(names)[bunch.target] if names else bunch.target
    table = pa.table({**columns, "target": target})
    if kind == "csv":
        csv.write_csv(table, path)
    else:
        pq.write_table(table, path)


@pytest.mark.parametrize("kind", ["csv", "parquet", "npz"])
@pytest.mark.parametrize("name", sorted(BUILTINS))
def test_real_data_makes_the_round_trip(name: str, kind: str, tmp_path: Path) -> None:
    exported(name, kind, tmp_path / "upload")
    reader = open_source(tmp_path / "upload")
    assert reader.format == kind
    schema, _ = propose_schema(reader)
    builtin = BUILTINS[name].schema
    assert schema.task == builtin.task
    assert schema.output_size == builtin.output_size
    assert ingest(reader, schema, tmp_path / "rows").rows == builtin.size.value
    write_rows(name, tmp_path / "ours")
    indices = np.arange(builtin.size.value)
    inputs, targets = Encoder(schema).encode(RowFile(tmp_path / "rows").take(indices))
    _, expected = Encoder(builtin).encode(RowFile(tmp_path / "ours").take(indices))
    if schema.task == "regression":
        restored = Encoder(schema).unscale_target(targets)
        np.testing.assert_allclose(restored, Encoder(builtin).unscale_target(expected), rtol=1e-4)
    else:
        by_name = name == "breast_cancer" and kind != "npz"  # classes are sorted by name there
        wanted = 1 - expected if by_name else expected
        np.testing.assert_array_equal(targets, wanted)
    assert np.isfinite(inputs).all()
    assert np.abs(inputs).max() <= 1
    assert inputs.std(axis=0).max() > 0.1
    if name == "digits" and kind == "npz":
        assert schema.input_shape == (1, 8, 8)


def test_a_million_rows(tmp_path: Path) -> None:
    count = 1_000_000
    generator = np.random.default_rng(0)
    columns = {f"x{i}": generator.normal(size=count).round(3) for i in range(4)}
    table = pa.table(
        {**columns, "s": np.array(["a", "b"])[np.arange(count) % 2], "label": np.arange(count) % 3}
    )
    csv.write_csv(table, tmp_path / "upload")
    start = time.perf_counter()
    reader = open_source(tmp_path / "upload")
    schema, _ = propose_schema(reader)
    assert ingest(reader, schema, tmp_path / "rows").rows == count
    assert time.perf_counter() - start < 20  # takes 1.5 s on one core
    indices = generator.integers(0, count, 500)
    table_taken = RowFile(tmp_path / "rows").take(indices)
    np.testing.assert_array_equal(matrix(table_taken, TARGET), indices % 3)
    np.testing.assert_allclose(matrix(table_taken, NUMBERS)[:, 0], columns["x0"][indices], rtol=1e-6)


def test_a_fault_late_in_a_large_file_is_located(tmp_path: Path) -> None:
    count, wrong = 300_000, 234_567
    lines = [f"{i % 90},f,no" for i in range(count)]
    lines[wrong - 1] = "abc,f,no"
    schema = schema_of(size={"value": count, "origin": "declared"})
    with pytest.raises(InvalidData) as raised:
        ingested(tmp_path, "age,sex,label\n" + "\n".join(lines), schema)
    assert raised.value.row == wrong
