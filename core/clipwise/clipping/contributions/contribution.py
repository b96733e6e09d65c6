"""What every form of per-unit gradients gives: squared norms, weighted sums, the gradients themselves.

Letters: G units, P positions of a unit, R and C the rows and columns of a weight.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MEMORY = 25.0
"""Price of an element of an instantiated gradient, in multiplications. Measured on two cores with AVX-512 in
float32, for the benchmark's transformers: 64 units of (65, 768, 192), 16 of (128, 1024, 256)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Norms:
    """Squared norms of per-unit gradients, and how far they and the sums can be off.

    Attributes:
        squared: (G,), float64.
        spread: most by which the squared norms can be too small, (G,), float64; None for nothing.
        error: norm of the rounding errors in what will be added, before factors, (G,), float64; None for
            nothing beyond a few units in the last place.
    """

    squared: Tensor
    spread: Tensor | None = None
    error: Tensor | None = None


class Contribution(ABC):
    """Gradients (G, *shape) of one weight."""

    shape: torch.Size
    units: int

    @abstractmethod
    def norms(self) -> Norms:
        """Return the squared norms of the gradients."""

    @abstractmethod
    def instantiated(self) -> Tensor:
        """Return the gradients themselves, (G, *shape)."""

    def prepare(self) -> None:  # noqa: B027 - nothing is a fine thing to prepare
        """Find the norms now, and let go of what only they needed: the weight has met the rows once."""

    @abstractmethod
    def add_to(self, total: Tensor, factors: Tensor) -> None:
        """Add `sum_g factors[g] * gradient[g]` to `total`, in place; factors are of its type."""

    def add_each_to(self, parts: Sequence[Tensor]) -> None:
        """Add each unit's gradient to its place in `parts`, (g, *shape) of consecutive units, in place."""
        start = 0
        gradients = self.instantiated()
        for part in parts:
            part.add_(gradients[start : start + len(part)])
            start += len(part)

    def weighted(self, factors: Tensor) -> Tensor | None:  # noqa: ARG002
        """Return `sum_g factors[g] * gradient[g]`, or None where adding to zeros is as good."""
        return None

    def kept_bytes(self) -> int:
        """Return how much memory is held until the weighted sum."""
        return 0

    def cost(self) -> float:
        """Return the estimated price beyond an ordinary backward pass, in multiplications per unit."""
        return MEMORY * self.shape.numel()

    def reason(self) -> str:
        """Return why the norms are found in this way, or nothing where there is no other."""
        return ""

    @abstractmethod
    def path(self) -> str:
        """Return how the norms are found, for `explain`."""


def widened(tensor: Tensor) -> Tensor:
    """Return `tensor` in float32 if it is of lower precision."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
