"""From stored rows to what a model is given: clamped, scaled to [-1, 1], one-hot, in one array."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clipwise.data import rows
from clipwise.data.schema import CategoryFeature, DatasetSchema, ImageFeature, NumberFeature

Array = npt.NDArray[Any]


class Encoder:
    """Encodes the rows of one data set, by public numbers of its schema alone.

    A sample is laid out in schema order: a number takes one place, a category one for each of its
    categories, an image or array one for each value (row by row, channels last). A data set whose only
    feature is an image gives `(channels, height, width)` instead.

    Numbers are clamped to their bounds `[low, high]` and mapped to [-1, 1] by

        (x - (low + high) / 2) / ((high - low) / 2),

    so a row's influence on its encoding is bounded whatever it holds. Not-a-number counts as the middle.
    """

    def __init__(self, schema: DatasetSchema) -> None:
        self._schema = schema
        self._width = int(np.prod(schema.input_shape, dtype=np.int64))
        number_places: list[int] = []
        number_bounds: list[tuple[float, float]] = []
        category_places: list[int] = []
        self._arrays: list[tuple[str, slice, tuple[float, float]]] = []
        place = 0
        for feature in schema.features:
            if isinstance(feature, NumberFeature):
                number_places.append(place)
                number_bounds.append(feature.bounds)
                place += 1
            elif isinstance(feature, CategoryFeature):
                category_places.append(place)
                place += len(feature.categories)
            else:
                width = int(np.prod(feature.shape, dtype=np.int64))
                self._arrays.append((feature.name, slice(place, place + width), _middle(feature.bounds)))
                place += width
        self._number_places = np.array(number_places, dtype=np.int64)
        self._number_scale = np.array([_middle(bounds) for bounds in number_bounds]).reshape(-1, 2).T
        self._category_places = np.array(category_places, dtype=np.int64)
        self._only_image = next(iter(schema.features)) if len(schema.features) == 1 else None
        self._target_scale = _middle(schema.target_bounds) if schema.target_bounds else None

    def encode(self, table: pa.Table) -> tuple[npt.NDArray[np.float32], Array]:
        """Return the inputs and targets of `table`, as `RowFile.take` gave it.

        Returns:
            inputs: float32 `(B, *schema.input_shape)`.
            targets: int64 `(B,)` class indices, or float32 `(B,)` in [-1, 1] for a regression.
        """
        inputs = np.zeros((table.num_rows, self._width), np.float32)
        if self._number_places.size:
            middle, half = self._number_scale
            inputs[:, self._number_places] = _scaled(rows.matrix(table, rows.NUMBERS), middle, half)
        if self._category_places.size:
            codes = rows.matrix(table, rows.CATEGORIES)
            inputs[np.arange(table.num_rows)[:, None], self._category_places + codes] = 1.0
        for name, places, (middle_, half_) in self._arrays:
            inputs[:, places] = _scaled(rows.matrix(table, f"{rows.ARRAY_PREFIX}{name}"), middle_, half_)
        return self._shaped(inputs), self._targets(table)

    def _shaped(self, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if not isinstance(self._only_image, ImageFeature):
            return inputs
        height, width, channels = self._only_image.shape
        images = inputs.reshape(len(inputs), height, width, channels)
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))

    def _targets(self, table: pa.Table) -> Array:
        values = rows.matrix(table, rows.TARGET)
        if self._target_scale is None:
            return values.astype(np.int64)
        return _scaled(values, *self._target_scale).astype(np.float32)

    def unscale_target(self, scaled: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return regression targets or predictions in the data set's own unit, from their [-1, 1]."""
        values = np.asarray(scaled, dtype=np.float64)
        if self._target_scale is None:
            return values
        middle, half = self._target_scale
        return values * half + middle


def _middle(bounds: tuple[float, float]) -> tuple[float, float]:
    """Return middle and half width; written so that no finite bounds overflow."""
    low, high = bounds
    return low / 2 + high / 2, max(high / 2 - low / 2, float(np.finfo(np.float64).tiny))


def _scaled(values: Array, middle: npt.ArrayLike, half: npt.ArrayLike) -> Array:
    dtype = np.float32 if values.dtype in (np.float32, np.uint8) else np.float64
    with np.errstate(over="ignore", invalid="ignore"):
        scaled: Array = (values.astype(dtype, copy=False) - np.asarray(middle, dtype)) / np.asarray(
            half, dtype
        )
    np.clip(scaled, -1.0, 1.0, out=scaled)
    if np.isnan(scaled.sum()):
        np.nan_to_num(scaled, copy=False, nan=0.0)
    return scaled
