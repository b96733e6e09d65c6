"""Several uses of one weight: the sum of their gradients, whose norm has cross terms."""

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from clipwise.clipping.contributions.contribution import Contribution, Norms
from clipwise.clipping.contributions.dense import Dense
from clipwise.clipping.contributions.gram import ROUNDING, gram_norms, prefers_gram
from clipwise.clipping.contributions.outer import Outer
from clipwise.clipping.contributions.sparse import Sparse
from clipwise.clipping.norms import row_norms


def combined(contributions: Sequence[Contribution]) -> Contribution:
    """Return the contribution of several uses of one weight: the sum of their gradients."""
    if len(contributions) == 1:
        return contributions[0]
    outer = [one for one in contributions if isinstance(one, Outer) and one.factored]
    sparse = [one for one in contributions if isinstance(one, Sparse)]
    others = [one for one in contributions if one not in outer and one not in sparse]
    product = _joined(outer) if outer else None
    looked_up = _looked_up(sparse) if sparse else None
    if not others:
        if product is None or looked_up is None:
            return product or looked_up or contributions[0]
        positions = product.positions + looked_up.positions
        if prefers_gram(positions, product.shape[0], product.shape[1], product.left.dtype):
            return Mixed(product, looked_up)
    if product is not None:
        parts = product.parts()
    else:  # a copy to write to, in which the rows of a table are rows of memory
        parts = [others.pop(0).instantiated().clone(memory_format=torch.contiguous_format)]
    for one in (*others, *((looked_up,) if looked_up is not None else ())):
        one.add_each_to(parts)
    return Dense(*parts)


def _joined(outer: Sequence[Outer]) -> Outer:
    if len(outer) == 1:
        return outer[0]
    return Outer(torch.cat([one.left for one in outer], 1), torch.cat([one.right for one in outer], 1))


def _looked_up(sparse: Sequence[Sparse]) -> Sparse:
    if len(sparse) == 1:
        return sparse[0]
    indices = torch.cat([one.indices for one in sparse], 1)
    return Sparse(indices, torch.cat([one.values for one in sparse], 1), sparse[0].shape[0])


@final
class Mixed(Contribution):
    """A table that is both looked up and multiplied with, such as a tied output layer.

    Its cross term: `sum_ts left[t, i_s] <right[t], value[s]>`.
    """

    def __init__(self, outer: Outer, sparse: Sparse) -> None:
        self.outer, self.sparse = outer, sparse
        self.units, self.shape = outer.units, outer.shape

    def norms(self) -> Norms:
        """Return the squared norms of the gradients."""
        left, right, values = self.outer.left, self.outer.right, self.sparse.values
        one = gram_norms(left, right)
        other = self.sparse.norms()
        index = self.sparse.indices[:, None, :].expand(-1, left.shape[1], -1)
        met = left.gather(2, index)
        products = torch.bmm(right, values.transpose(1, 2))
        cross = (met * products).sum((1, 2), dtype=torch.float64)
        right_norms = row_norms(right.reshape(-1, right.shape[2])).view(right.shape[:2])
        value_norms = row_norms(values.reshape(-1, values.shape[2])).view(values.shape[:2])
        sizes = torch.einsum("gts,gt,gs->g", met.abs().double(), right_norms, value_norms)
        unit = ROUNDING * torch.finfo(left.dtype).eps / 2
        spread = 2 * unit * sizes + (0.0 if one.spread is None else one.spread)
        return Norms(
            squared=(one.squared + other.squared + 2 * cross).clamp(min=0.0), spread=spread, error=one.error
        )

    def instantiated(self) -> Tensor:
        """Return the gradients themselves, (G, *shape)."""
        return self.outer.instantiated() + self.sparse.instantiated()

    def add_to(self, total: Tensor, factors: Tensor) -> None:
        """Add the weighted sum to `total`."""
        self.outer.add_to(total, factors)
        self.sparse.add_to(total, factors)

    def path(self) -> str:
        """Return how the norms are found."""
        return "gram with cross terms"
