"""Sums over positions of outer products: what most layers' gradients are."""

from typing import final

import torch
from torch import Tensor

from clipwise.clipping.contributions.contribution import Contribution, Norms, widened
from clipwise.clipping.contributions.dense import Dense
from clipwise.clipping.contributions.gram import (
    MOST_SUMMED_POSITIONS,
    gram_cost,
    gram_norms,
    instantiated_cost,
    is_tight,
    prefers_gram,
)
from clipwise.clipping.contributions.workspace import CACHED_BYTES, PART_BYTES, new_part, steps
from clipwise.clipping.norms import block_norms, norms_of, row_norms, takes_blocks


@final
class Outer(Contribution):
    """Sums over positions of outer products: `gradient[g] = sum_p left[g, p] right[g, p]^T`.

    One position: the norm is a product of two norms. Several: either the gradients are instantiated, or
    their norms come from Gram matrices over positions (Goodfellow 2015; Li et al. 2022), whichever costs
    less and is precise enough.

    Args:
        left: (G, P, R).
        right: (G, P, C).
    """

    def __init__(self, left: Tensor, right: Tensor) -> None:
        self.left, self.right = widened(left), widened(right)
        self._norms: Norms | None = None
        self.units, self.positions, rows = left.shape
        self._dtype = self.left.dtype
        self.shape = torch.Size((rows, right.shape[2]))
        self._gram = self.positions > 1 and prefers_gram(self.positions, rows, right.shape[2], left.dtype)
        self._dense: Dense | None = None
        self._left_norms: Tensor | None = None

    @property
    def left_norms(self) -> Tensor:
        """Norms (G,) of `left`, of a single position, in float64."""
        if self._left_norms is None:  # and no cached_property, whose lock torch.compile does not take
            self._left_norms = row_norms(self.left[:, 0])
        return self._left_norms

    @property
    def factored(self) -> bool:
        """Whether `left` and `right` are still there."""
        return self.left.numel() > 0 or not self.shape.numel()

    def prepare(self) -> None:
        """Find the norms; what was instantiated takes the place of what it was made from."""
        self._norms = self.norms()
        if self._dense is not None:
            self.left = self.right = self.left.new_empty(0)

    def norms(self) -> Norms:
        """Return the squared norms of the gradients."""
        if self._norms is not None:
            return self._norms
        if self.positions == 1:
            return Norms(squared=(self.left_norms * row_norms(self.right[:, 0])).square())
        if self._gram:
            found = gram_norms(self.left, self.right)
            if is_tight(found):
                return found
        return self._instantiated().norms()

    def instantiated(self) -> Tensor:
        """Return the gradients themselves, (G, *shape)."""
        return self._instantiated().instantiated()

    def parts(self) -> list[Tensor]:
        """Return the gradients themselves, (g, *shape) of consecutive units, which may be written to."""
        return instantiate(self.left, self.right)[0]

    def weighted(self, factors: Tensor) -> Tensor | None:
        """Return one product of two matrices, or of a vector and a matrix."""
        if self._dense is None and self._loses_digits(factors):
            self._instantiated()
        if self._dense is not None:
            return self._dense.weighted(factors)
        left, right = self._scaled(factors)
        return left.t() @ right

    def kept_bytes(self) -> int:
        """Return the size of what was instantiated, or of both factors."""
        if self._dense is not None:
            return self._dense.kept_bytes()
        return (self.left.numel() + self.right.numel()) * self.left.element_size()

    def add_to(self, total: Tensor, factors: Tensor) -> None:
        """Add the weighted sum to `total`."""
        if self._dense is None and self._loses_digits(factors):
            self._instantiated()
        if self._dense is not None:
            self._dense.add_to(total, factors)
            return
        left, right = self._scaled(factors)
        total.addmm_(left.t(), right)

    def _instantiated(self) -> Dense:
        if self._dense is None:
            parts, norms = instantiate(self.left, self.right)
            self._dense = Dense(*parts, known=lambda: norms)
        return self._dense

    def _loses_digits(self, factors: Tensor) -> bool:
        """Tell whether scaling one side would lose digits that the other side makes large again."""
        if self.left.shape[2] > self.right.shape[2]:
            return loses_digits(self.right, factors)
        return loses_digits(self.left, factors, self.left_norms if self.positions == 1 else None)

    def _scaled(self, factors: Tensor) -> tuple[Tensor, Tensor]:
        """Return left (G * P, R) and right (G * P, C), the narrower one times the factors."""
        left, right = self.left, self.right
        if left.shape[2] <= right.shape[2]:
            left = left * factors[:, None, None]
        else:
            right = right * factors[:, None, None]
        return left.reshape(-1, left.shape[2]), right.reshape(-1, right.shape[2])

    def cost(self) -> float:
        """Return the estimated price beyond an ordinary backward pass, in multiplications per unit."""
        if self.positions == 1:
            return 2.0 * sum(self.shape)
        by_gram = self._gram and self._dense is None
        return gram_cost(self.positions, *self.shape) if by_gram else instantiated_cost(*self.shape)

    def reason(self) -> str:
        """Return what both ways cost, or why one is out of the question."""
        if self.positions == 1:
            return ""
        if self.positions > MOST_SUMMED_POSITIONS and self._dtype != torch.float64:
            return f"gram matrices of {self.positions} positions are not precise enough"
        if self._gram and self._dense is not None:
            return "the rounding bound of gram matrices is too wide for these numbers"
        gram, dense = gram_cost(self.positions, *self.shape), instantiated_cost(*self.shape)
        return f"gram costs {gram:.2g}, instantiated {dense:.2g}"

    def path(self) -> str:
        """Return how the norms are found."""
        if self.positions == 1:
            return "product of norms"
        return "gram" if self._gram and self._dense is None else "instantiated"


def loses_digits(side: Tensor, factors: Tensor, norms: Tensor | None = None) -> bool:
    """Tell whether a unit of `side` times its factor would be denormal, which rounds it by up to its half.

    Only where the other side is huge, for what is scaled down has a norm of C.

    Args:
        side: (G, ...).
        factors: (G,).
        norms: of the units of `side`, (G,), if they are known.
    """
    if torch.compiler.is_compiling():  # what is traced cannot look at its numbers
        return False
    # The norm is found many times as fast as the largest element, and is as good here.
    sizes = (torch.linalg.vector_norm(side.flatten(1), dim=1) if norms is None else norms) * factors
    smallest = torch.finfo(side.dtype).tiny / torch.finfo(side.dtype).eps
    if float(sizes.min()) >= smallest:
        return False
    scaled = (sizes < smallest) & (factors != 0) & (factors != 1)
    return bool((scaled & side.flatten(1).any(1)).any())


def instantiate(left: Tensor, right: Tensor) -> tuple[list[Tensor], Tensor]:
    """Return `sum_p left[g, p] right[g, p]^T` in parts (g, R, C) of consecutive units, and their norms (G,).

    Args:
        left: (G, P, R).
        right: (G, P, C).
    """
    units, _, rows = left.shape
    width = rows * right.shape[2]
    left = left.transpose(1, 2)
    if not takes_blocks(left) or not width:
        whole = torch.bmm(left, right)
        return [whole], row_norms(whole.view(units, width))
    size = width * left.element_size()
    parts, blocks = [], []
    for first, last in steps(units, PART_BYTES // size):
        part = new_part(left, (last - first, rows, right.shape[2]))
        for start, stop in steps(last - first, CACHED_BYTES // size):
            place = part[start:stop]
            torch.bmm(left[first + start : first + stop], right[first + start : first + stop], out=place)
            blocks.append(block_norms(place.view(stop - start, width)))
        parts.append(part)
    return parts, norms_of([part.view(len(part), width) for part in parts], blocks)
