"""What the optimizer needs from a framework's arrays."""

from collections.abc import Sequence
from typing import Any, Protocol

Array = Any
"""An array of any framework. In the optimizer: one flat array of all parameters, or a 0-d number."""


class Arrays(Protocol):
    """Arithmetic on flat arrays of shape (N,).

    With `out`, the result is written there (it may be one of the operands) and `out` is returned;
    without, the result is a new array. Every operation is element by element, so aliasing is safe.
    """

    def flat(self, size: int, like: Sequence[Array]) -> Array:
        """Return zeros of shape (size,) in the widest of float32 and the dtypes of `like`."""
        ...

    def zeros_like(self, a: Array) -> Array:
        """Return zeros of `a`'s shape, dtype and device."""
        ...

    def number(self, value: float) -> Array:
        """Return `value` as a 0-d float64 array on the host."""
        ...

    def copy(self, a: Array) -> Array:
        """Return a copy that shares no memory with `a`."""
        ...

    def write(self, source: Array, target: Array) -> None:
        """Write `source` into `target`, converting dtype and device."""
        ...

    def multiply(self, a: Array, b: Array | float, out: Array | None = None) -> Array:
        """Return `a * b`."""
        ...

    def add_scaled(self, a: Array, b: Array, scale: float, out: Array | None = None) -> Array:
        """Return `a + scale * b`."""
        ...

    def add_scaled_product(self, a: Array, b: Array, c: Array, scale: float) -> Array:
        """Return `a + scale * b * c`, written into `a`."""
        ...

    def divide(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """Return `a / b`."""
        ...

    def root_plus(self, a: Array, scale: float, epsilon: float) -> Array:
        """Return `scale * sqrt(a) + epsilon` as a new array."""
        ...

    def clip_factor(self, a: Array, max_norm: float) -> Array:
        """Return `min(1, max_norm / ||a||)` as a 0-d array; the norm neither over- nor underflows."""
        ...

    def standard_normal_like(self, a: Array) -> Array:
        """Return independent standard normal numbers, from a generator seeded by the operating system."""
        ...
