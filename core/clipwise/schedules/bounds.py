"""Between which sizes a bound of a norm may lie."""

from typing import Annotated, TypeAlias

from annotated_types import Ge, Le

SMALLEST_NORM = 1e-30
"""Below it, float32 gradients would be rounded by more than the bound's slack of 1e-6."""
LARGEST_NORM = 1e12

Bound: TypeAlias = Annotated[float, Ge(SMALLEST_NORM), Le(LARGEST_NORM)]
"""Bound of an L2 norm."""
