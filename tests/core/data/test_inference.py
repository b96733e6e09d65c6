"""The proposed schema: right for real data, and its notes say what was decided."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from clipwise.data.inference import propose_schema
from clipwise.data.reading import open_source
from clipwise.data.schema import ArrayFeature, CategoryFeature, DatasetSchema, ImageFeature, NumberFeature
from clipwise.errors import InvalidData, InvalidSchema


def proposed(tmp_path: Path, content: str, target: str | None = None) -> tuple[DatasetSchema, str]:
    (tmp_path / "upload").write_text(content)
    schema, notes = propose_schema(open_source(tmp_path / "upload"), target)
    return schema, "\n".join(notes)


def features(schema: DatasetSchema) -> dict[str, object]:
    return {feature.name: feature for feature in schema.features}


def test_a_table_with_everything(tmp_path: Path) -> None:
    sexes, gaps, answers = ["f", "m", ""], ["", "1.5", "NA"], ["no", "yes"]
    rows = "\n".join(
        f"{i},{1000 + 7 * i},{20 + i % 50},{sexes[i % 3]},{gaps[i % 3]},x{i},2020-01-{i % 28 + 1:02},"
        f"5,{i}.{i % 10},{answers[i % 2]}"
        for i in range(300)
    )
    schema, notes = proposed(
        tmp_path, f"row,patient_id,age,sex,gaps,comment,visit,constant,weight,outcome\n{rows}\n"
    )
    found = features(schema)
    assert list(found) == ["age", "sex", "gaps", "constant", "weight"]
    assert found["age"] == NumberFeature(name="age", bounds=(20.0, 69.0), origin="from_rows")
    assert found["sex"] == CategoryFeature(
        name="sex", categories=("f", "m", "missing"), origin="from_rows", fill="missing"
    )
    assert found["gaps"] == NumberFeature(name="gaps", bounds=(1.0, 2.0), origin="from_rows", fill=1.5)
    assert (schema.target, schema.task, schema.classes) == ("outcome", "classification", ("no", "yes"))
    assert schema.size.value == 300
    assert {"size", "classes"} <= set(schema.outside_of_guarantee)
    for part in (
        "'row' was left out: it only counts",
        "'patient_id' was left out: it looks like an identifier",
        "'comment' was left out: it has more than 100",
        "'visit' was left out: it holds dates",
        "200 of 300 cells of 'gaps' are empty",
        "'constant' is the same in every row",
    ):
        assert part in notes, part


def test_a_file_without_names_is_noticed(tmp_path: Path) -> None:
    rows = "\n".join(f"{i * 0.37 % 5:.2f},{i % 7}.5,{i % 2}" for i in range(1, 60))
    assert "taken for the names" in proposed(tmp_path, f"0.11,3.5,1\n{rows}\n")[1]
    assert "taken for the names" not in proposed(tmp_path, f"0.11,height,1\n{rows}\n")[1]


def test_target_by_name_by_place_and_by_request(tmp_path: Path) -> None:
    content = "Label,a,b\n" + "".join(f"{i % 2},{i / 7},{i * i / 3}\n" for i in range(100))
    schema, notes = proposed(tmp_path, content)
    assert (schema.target, schema.task, schema.classes) == ("Label", "classification", ("0", "1"))
    assert "by its name" in notes
    schema, notes = proposed(tmp_path, content.replace("Label", "z"))
    assert (schema.target, schema.task) == ("b", "regression")
    assert schema.target_bounds == (0.0, 99 * 99 / 3)
    assert "last column" in notes
    assert proposed(tmp_path, content, "a")[0].target == "a"
    with pytest.raises(InvalidSchema, match="no column 'c'; it has 'Label', 'a', 'b'"):
        proposed(tmp_path, content, "c")


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (["10", "9", "9"], ("9", "10")),
        (["1.0", "1", "0"], ("0", "1")),
        (["yes", "no", "no"], ("no", "yes")),
        (["True", "False", "True"], ("False", "True")),
    ],
)
def test_classes(values: list[str], classes: tuple[str, ...], tmp_path: Path) -> None:
    content = "a,y\n" + "".join(f"{i / 7},{values[i % 3]}\n" for i in range(90))
    assert proposed(tmp_path, content)[0].classes == classes


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a,y\n", "no rows"),
        ("a,y\n1,5\n2,5\n", "single value"),
        ("a,y\n1,\n2,\n", "single value"),
        ("a,y\n" + "".join(f"{i},word{i}\n" for i in range(200)), "more than 100 different texts"),
        ("a;y\n" + "".join(f"{i};{i},5\n" for i in range(200)), "texts, numbers with a decimal comma"),
        ("a,y\n" + "".join(f"word{i},{i % 2}\n" for i in range(200)), "no column beside the target"),
        ("a,y\n" + "".join(f"{i}%,{i % 2}\n" for i in range(200)), "write plain numbers, such as 12.5"),
        ("a;y\n" + "".join(f"{i},25;{i % 2}\n" for i in range(200)), "decimal comma"),
        ("when,y\n" + "".join(f"1/{i % 12 + 1}/2020,{i % 2}\n" for i in range(50)), "dates"),
    ],
)
def test_what_cannot_be_proposed_says_what_to_do(content: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=says):
        proposed(tmp_path, content)


def test_odd_numbers(tmp_path: Path) -> None:
    content = "a,b,y\n" + "".join(
        f" {v} ,{w},{i % 2}\n"
        for i, (v, w) in enumerate(
            [("+1", "1e3"), ("-.5", "inf"), ("2.", "nan"), ("-", "NULL"), ("n/a", "7")] * 9
        )
    )
    found = features(proposed(tmp_path, content)[0])
    assert found["a"].bounds == (-0.5, 2.0)  # type: ignore[attr-defined]
    assert found["b"].bounds == (7.0, 1000.0)  # type: ignore[attr-defined]


def test_a_few_words_among_numbers_are_located(tmp_path: Path) -> None:
    content = "a,b,y\n" + "".join(f"{i if i != 70 else 'unknown!'},{i / 3},{i % 2}\n" for i in range(300))
    _, notes = proposed(tmp_path, content)
    assert "'a' was left out: 1 cells are no numbers, first in row 71" in notes
    assert "unknown!" not in notes


def test_constants_of_any_size(tmp_path: Path) -> None:
    for value in ("0", "1e300", "-1e300", "1.7976931348623157e308", "1e-300"):
        schema, _ = proposed(tmp_path, "a,y\n" + f"{value},0\n{value},1\n" * 5)
        low, high = schema.features[0].bounds  # type: ignore[union-attr]
        assert low < high


def test_parquet(tmp_path: Path) -> None:
    count = 200
    table = pa.table(
        {
            "truth": pa.array([True, False] * 100),
            "kind": pa.array(["a", "b"] * 100).dictionary_encode(),
            "at": pa.array(np.arange(count).astype("M8[D]")),
            "signal": pa.array(
                np.random.default_rng(0).normal(size=(count, 3)).tolist(), pa.list_(pa.float32(), 3)
            ),
            "y": pa.array(np.linspace(0, 1, count)),
        }
    )
    pq.write_table(table, tmp_path / "upload")
    schema, notes = propose_schema(open_source(tmp_path / "upload"))
    assert [feature.name for feature in schema.features] == [
        "truth",
        "kind",
        "signal[0]",
        "signal[1]",
        "signal[2]",
    ]
    assert schema.task == "regression"
    assert "'at' was left out" in "\n".join(notes)


def test_npz_images_and_arrays(tmp_path: Path) -> None:
    def of(**arrays: np.ndarray) -> tuple[DatasetSchema, str]:
        with (tmp_path / "upload").open("wb") as file:
            np.savez(file, **arrays)
        schema, notes = propose_schema(open_source(tmp_path / "upload"))
        return schema, "\n".join(notes)

    y = np.arange(100) % 10
    images = np.random.default_rng(0).integers(0, 200, (100, 6, 5, 3), dtype=np.uint8)
    schema, notes = of(y=y, x=images)
    assert "narrower bounds" not in notes
    assert "its largest value is 16: give narrower bounds" in of(y=y, x=images % 17)[1]
    assert schema.features == (ImageFeature(name="x", shape=(6, 5, 3), bounds=(0.0, 255.0)),)
    assert (schema.target, schema.output_size) == ("y", 10)
    schema, _ = of(images=images[..., 0].astype(np.float32), labels=y)
    assert isinstance(schema.features[0], ImageFeature)
    assert schema.features[0].shape == (6, 5, 1)
    schema, notes = of(x=images.transpose(0, 3, 1, 2), y=y)
    assert isinstance(schema.features[0], ArrayFeature)
    assert "channels last" in notes
    wide = np.random.default_rng(0).normal(size=(100, 1001))
    schema, _ = of(x=wide, y=y)
    assert schema.features == (
        ArrayFeature(name="x", shape=(1001,), bounds=(wide.min(), wide.max()), origin="from_rows"),
    )
    schema, _ = of(x=wide[:, :30] * np.arange(1, 31), y=y)
    assert len(schema.features) == 30
    assert schema.features[29].bounds[1] > 5 * schema.features[0].bounds[1]  # type: ignore[union-attr]
    with pytest.raises(InvalidData, match="one-dimensional array 'y'"):
        of(x=wide, z=wide)
