"""Rows of a table, where they were looked up."""

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from clipwise.clipping.contributions.contribution import Contribution, Norms, widened
from clipwise.clipping.norms import row_norms


@final
class Sparse(Contribution):
    """Rows of a table: `gradient[g][indices[g, p]] += values[g, p]`.

    Args:
        indices: (G, P), of rows of the table.
        values: (G, P, C).
        rows: of the table, R.
    """

    def __init__(self, indices: Tensor, values: Tensor, rows: int) -> None:
        self.indices, self.values = indices, widened(values)
        self.units, self.positions = indices.shape
        self.shape = torch.Size((rows, values.shape[2]))

    def norms(self) -> Norms:
        """Return the squared norms of the gradients."""
        if self.positions == 1:
            return Norms(squared=row_norms(self.values[:, 0]).square())
        # Values of equal indices are summed first, so that nothing is lost when they cancel.
        units = torch.arange(self.units, device=self.indices.device)[:, None]
        keys, order = (units * self.shape[0] + self.indices).reshape(-1).sort()
        first = torch.ones_like(keys, dtype=torch.bool)
        first[1:] = keys[1:] != keys[:-1]
        place = first.cumsum(0) - 1
        width = self.shape[1]
        summed = self.values.new_zeros(keys.shape[0], width)
        summed.index_add_(0, place, self.values.reshape(-1, width)[order])
        squares = row_norms(summed).square()
        # Every row of `summed` belongs to the unit of the first key that led to it.
        found = squares[place] * first
        total = torch.zeros(self.units, dtype=torch.float64, device=keys.device)
        return Norms(squared=total.index_add_(0, keys // self.shape[0], found))

    def instantiated(self) -> Tensor:
        """Return the gradients themselves, (G, *shape)."""
        full = self.values.new_zeros(self.units, *self.shape)
        index = self.indices[:, :, None].expand_as(self.values)
        return full.scatter_add_(1, index, self.values)

    def add_each_to(self, parts: Sequence[Tensor]) -> None:
        """Add each unit's gradient to its place in `parts`; only the rows that were looked up are touched."""
        rows, width = self.shape
        start = 0
        for part in parts:
            units = slice(start, start + len(part))
            place = torch.arange(len(part), device=part.device)[:, None] * rows + self.indices[units]
            values = self.values[units].reshape(-1, width).to(part.dtype)
            part.view(len(part) * rows, width).index_add_(0, place.flatten(), values)
            start += len(part)

    def add_to(self, total: Tensor, factors: Tensor) -> None:
        """Add the weighted sum to `total`."""
        scaled = self.values * factors[:, None, None]
        total.index_add_(0, self.indices.reshape(-1), scaled.reshape(-1, self.shape[1]).to(total.dtype))

    def cost(self) -> float:
        """Return the estimated price beyond an ordinary backward pass, in multiplications per unit."""
        return 4.0 * self.positions * self.shape[1]

    def kept_bytes(self) -> int:
        """Return the size of the values."""
        return self.values.numel() * self.values.element_size()

    def path(self) -> str:
        """Return how the norms are found."""
        return "rows of the table"
