"""Contributions to weights of more than two axes, or of axes in another order than the product gave."""

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from clipwise.clipping.contributions.contribution import Contribution, Norms
from clipwise.clipping.contributions.outer import Outer


@final
class Blocks(Contribution):
    """Independent outer products for each of S blocks of a weight (S, R, C), such as one matrix per head.

    Args:
        outer: of S * G units, blocks first.
        blocks: S.
    """

    def __init__(self, outer: Outer, blocks: int) -> None:
        self.outer, self.blocks = outer, blocks
        self.units = outer.units // blocks
        self.shape = torch.Size((blocks, *outer.shape))

    def norms(self) -> Norms:
        """Return the squared norms of the gradients."""
        found = self.outer.norms()
        return Norms(
            squared=found.squared.view(self.blocks, -1).sum(0),
            spread=None if found.spread is None else found.spread.view(self.blocks, -1).sum(0),
            error=None if found.error is None else found.error.view(self.blocks, -1).square().sum(0).sqrt(),
        )

    def instantiated(self) -> Tensor:
        """Return the gradients themselves, (G, *shape)."""
        return self.outer.instantiated().view(self.blocks, self.units, *self.outer.shape).transpose(0, 1)

    def add_to(self, total: Tensor, factors: Tensor) -> None:
        """Add the weighted sum to `total`."""
        left = self.outer.left * factors.repeat(self.blocks)[:, None, None]
        left = left.reshape(self.blocks, -1, left.shape[2])
        right = self.outer.right.reshape(self.blocks, -1, self.outer.right.shape[2])
        total.baddbmm_(left.transpose(1, 2), right)

    def kept_bytes(self) -> int:
        """Return the size of what was instantiated."""
        return self.outer.kept_bytes()

    def path(self) -> str:
        """Return how the norms are found."""
        return f"{self.outer.path()} per block"


@final
class Arranged(Contribution):
    """A contribution whose axes are folded, and in another order than the weight's.

    Args:
        inner: of a shape whose elements are those of `sizes`.
        sizes: of the axes that `inner` has folded.
        order: which of these axes is the weight's first, second, ...
    """

    def __init__(self, inner: Contribution, sizes: Sequence[int], order: Sequence[int]) -> None:
        if math.prod(sizes) != inner.shape.numel():
            raise ValueError(f"sizes {tuple(sizes)} do not fold to {tuple(inner.shape)}")
        self.inner, self._sizes, self._order = inner, tuple(sizes), tuple(order)
        self.units = inner.units
        self.shape = torch.Size(self._sizes[i] for i in self._order)

    def norms(self) -> Norms:
        """Return the squared norms of the gradients."""
        return self.inner.norms()

    def instantiated(self) -> Tensor:
        """Return the gradients themselves, (G, *shape)."""
        whole = self.inner.instantiated().reshape(self.units, *self._sizes)
        return whole.permute(0, *(1 + i for i in self._order))

    def add_to(self, total: Tensor, factors: Tensor) -> None:
        """Add the weighted sum to `total`."""
        folded = total.new_zeros(self.inner.shape)
        self.inner.add_to(folded, factors)
        total.add_(folded.view(self._sizes).permute(self._order))

    def weighted(self, factors: Tensor) -> Tensor | None:
        """Return the weighted sum of `inner`, unfolded."""
        found = self.inner.weighted(factors)
        return None if found is None else found.reshape(self._sizes).permute(self._order).contiguous()

    def kept_bytes(self) -> int:
        """Return the size of what was instantiated."""
        return self.inner.kept_bytes()

    def path(self) -> str:
        """Return how the norms are found."""
        return self.inner.path()
