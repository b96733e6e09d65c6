"""The optimizer's arithmetic on NumPy arrays."""

from collections.abc import Sequence
from typing import Any, final

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


@final
class NumpyArrays:
    """See `clipwise.optim.frameworks.arrays.Arrays`."""

    def flat(self, size: int, like: Sequence[Array]) -> Array:
        """Return zeros of shape (size,) in the widest of float32 and the dtypes of `like`."""
        return np.zeros(size, np.result_type(np.float32, *(a.dtype for a in like)))

    def zeros_like(self, a: Array) -> Array:
        """Return zeros of `a`'s shape and dtype."""
        return np.zeros_like(a)

    def number(self, value: float) -> Array:
        """Return `value` as a 0-d float64 array."""
        return np.asarray(value, np.float64)

    def copy(self, a: Array) -> Array:
        """Return a copy that shares no memory with `a`."""
        return np.array(a)

    def write(self, source: Array, target: Array) -> None:
        """Write `source` into `target`, converting its dtype."""
        np.copyto(target, source, casting="same_kind")

    def multiply(self, a: Array, b: Array | float, out: Array | None = None) -> Array:
        """Return `a * b`."""
        result: Array = np.multiply(a, b, out=out)
        return result

    def add_scaled(self, a: Array, b: Array, scale: float, out: Array | None = None) -> Array:
        """Return `a + scale * b`."""
        result: Array = np.add(a, np.multiply(b, scale), out=out)
        return result

    def add_scaled_product(self, a: Array, b: Array, c: Array, scale: float) -> Array:
        """Return `a + scale * b * c`, written into `a`."""
        a += scale * (b * c)
        return a

    def divide(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """Return `a / b`."""
        result: Array = np.divide(a, b, out=out)
        return result

    def root_plus(self, a: Array, scale: float, epsilon: float) -> Array:
        """Return `scale * sqrt(a) + epsilon` as a new array."""
        result: Array = np.sqrt(a)
        result *= scale
        result += epsilon
        return result

    def clip_factor(self, a: Array, max_norm: float) -> Array:
        """Return `min(1, max_norm / ||a||)`; scaled by the largest element, so squares stay in range."""
        largest = float(np.abs(a).max(initial=0.0)) or 1.0
        scaled = a.astype(np.float64) / largest
        norm = largest * float(np.sqrt(np.dot(scaled, scaled)))
        return np.asarray(max_norm / max(norm, max_norm), np.float64)

    def standard_normal_like(self, a: Array) -> Array:
        """Return independent standard normal numbers, seeded by the operating system."""
        return np.asarray(np.random.default_rng().standard_normal(a.shape), a.dtype)
