"""Encoding: bounded whatever a row holds, in schema order, and invertible for the target."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipwise.data.encoding import Encoder
from clipwise.data.rows import Block, RowFile, RowWriter
from clipwise.data.schema import (
    ArrayFeature,
    CategoryFeature,
    DatasetSchema,
    Feature,
    ImageFeature,
    NumberFeature,
    Size,
)


def regression(*features: Feature, bounds: tuple[float, float] = (0.0, 10.0)) -> DatasetSchema:
    return DatasetSchema(
        features=features, target="y", task="regression", target_bounds=bounds, size=Size(value=1)
    )


def stored(tmp_path: Path, schema: DatasetSchema, block: Block) -> pa.Table:
    with RowWriter(tmp_path / "rows", schema) as writer:
        writer.append(block)
    return RowFile(tmp_path / "rows").take(np.arange(len(block)))


def test_layout_is_the_order_of_the_schema(tmp_path: Path) -> None:
    schema = regression(
        CategoryFeature(name="c", categories=("a", "b", "c")),
        NumberFeature(name="n", bounds=(0.0, 4.0)),
        ImageFeature(name="i", shape=(1, 2, 1), bounds=(0.0, 2.0)),
        NumberFeature(name="m", bounds=(-1.0, 1.0)),
        CategoryFeature(name="d", categories=("x", "y")),
        ArrayFeature(name="a", shape=(2,), bounds=(0.0, 1.0)),
    )
    block = Block(
        numbers=np.array([[1.0, 0.5], [100.0, -7.0]]),
        categories=np.array([[2, 0], [0, 1]], np.int32),
        arrays={"i": np.array([[0, 1], [2, 3]], np.float32), "a": np.array([[0, 1], [0.5, 2]], np.float32)},
        targets=np.array([5.0, 20.0]),
    )
    encoder = Encoder(schema)
    inputs, targets = encoder.encode(stored(tmp_path, schema, block))
    np.testing.assert_allclose(
        inputs,
        [[0, 0, 1, -0.5, -1, 0, 0.5, 1, 0, -1, 1], [1, 0, 0, 1, 1, 1, -1, 0, 1, 0, 1]],
    )
    assert inputs.shape[1:] == schema.input_shape
    np.testing.assert_allclose(targets, [0.0, 1.0])
    assert targets.dtype == np.float32
    np.testing.assert_allclose(encoder.unscale_target(targets), [5.0, 10.0])


def test_image_is_channels_first(tmp_path: Path) -> None:
    schema = regression(ImageFeature(name="i", shape=(2, 3, 2), bounds=(0.0, 11.0)))
    image = np.arange(12, dtype=np.float32)
    block = Block(arrays={"i": image[None]}, targets=np.array([0.0]))
    inputs, _ = Encoder(schema).encode(stored(tmp_path, schema, block))
    assert inputs.shape == (1, 2, 2, 3)
    np.testing.assert_allclose((inputs[0] + 1) * 5.5, image.reshape(2, 3, 2).transpose(2, 0, 1), atol=1e-5)


finite = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=100, deadline=None)
@given(edges=st.tuples(finite, finite).filter(lambda e: e[0] != e[1]), value=st.floats(), target=finite)
def test_influence_is_bounded(
    edges: tuple[float, float], value: float, target: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    bounds = (min(edges), max(edges))
    schema = regression(NumberFeature(name="n", bounds=bounds), bounds=bounds)
    block = Block(numbers=np.array([[value]]), targets=np.array([target]))
    encoder = Encoder(schema)
    inputs, targets = encoder.encode(stored(tmp_path_factory.mktemp("rows"), schema, block))
    assert -1 <= inputs[0, 0] <= 1
    assert -1 <= targets[0] <= 1
    assert np.isfinite(encoder.unscale_target(targets)).all()


def test_empty_batch(tmp_path: Path) -> None:
    schema = regression(
        NumberFeature(name="n", bounds=(0.0, 1.0)), CategoryFeature(name="c", categories=("a", "b"))
    )
    with RowWriter(tmp_path / "rows", schema) as writer:
        writer.append(
            Block(numbers=np.zeros((3, 1)), categories=np.zeros((3, 1), np.int32), targets=np.zeros(3))
        )
    inputs, targets = Encoder(schema).encode(RowFile(tmp_path / "rows").take(np.array([], np.int64)))
    assert inputs.shape == (0, 3)
    assert targets.shape == (0,)
