"""Per-unit gradients of one weight, in the form in which they are cheapest to keep.

Each form gives the same three things: squared norms, the sum weighted by factors, and the gradients
themselves. Letters: G units, P positions of a unit, R and C the rows and columns of a weight.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from clipwise.clipping.norms import LARGE, SMALL, row_norms


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


@final
class Dense(Contribution):
    """Gradients that exist as a tensor.

    Args:
        gradients: (G, *shape).
        known: gives the norms (G,), in float64, where they have been found already.
    """

    def __init__(self, gradients: Tensor, known: Callable[[], Tensor] | None = None) -> None:
        self._gradients = widened(gradients)
        self._known = known
        self._norms: Norms | None = None
        self.units, self.shape = gradients.shape[0], gradients.shape[1:]

    def prepare(self) -> None:
        """Find the norms while the gradients are in the cache."""
        self._norms = self.norms()

    def norms(self) -> Norms:
        """Return the squared norms of the gradients."""
        if self._norms is not None:
            return self._norms
        if self._known is not None:
            return Norms(squared=self._known().square())
        return Norms(squared=row_norms(self._gradients.reshape(self.units, -1)).square())

    def weighted(self, factors: Tensor) -> Tensor | None:
        """Return one product of a vector and a matrix."""
        if factors.dtype != self._gradients.dtype or not self._gradients.numel():
            return None
        return (factors @ self._gradients.reshape(self.units, -1)).view(self.shape)

    def kept_bytes(self) -> int:
        """Return the size of the gradients."""
        return self._gradients.numel() * self._gradients.element_size()

    def instantiated(self) -> Tensor:
        """Return the gradients themselves, (G, *shape)."""
        return self._gradients

    def add_to(self, total: Tensor, factors: Tensor) -> None:
        """Add the weighted sum to `total`."""
        add_weighted(total, self._gradients, factors)

    def path(self) -> str:
        """Return how the norms are found."""
        return "instantiated"


def masked(gradients: Tensor, factors: Tensor) -> Tensor:
    """Return `gradients` (G, ...) with zeros where the factor is 0; their own elements may be anything."""
    if 0 in gradients.stride():  # the same for every unit, or element: kept once, and not to be written
        gradients = gradients.contiguous()
    return gradients.masked_fill_((factors == 0).view(-1, *(1 for _ in gradients.shape[1:])), 0.0)


def add_weighted(total: Tensor, gradients: Tensor, factors: Tensor) -> None:
    """Add `sum_g factors[g] * gradients[g]` to `total`, of any layout."""
    if not total.numel():
        return
    flat = gradients.reshape(gradients.shape[0], -1).to(total.dtype)
    if total.is_contiguous():
        total.view(1, -1).addmm_(factors[None], flat)
    else:
        total.add_((factors @ flat).view(total.shape))


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
        self._dense: Tensor | None = None
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
            self.left = self.right = self._dense.new_empty(0)

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
        return Dense(self.instantiated()).norms()

    def instantiated(self) -> Tensor:
        """Return the gradients themselves, (G, *shape)."""
        if self._dense is None:
            self._dense = torch.bmm(self.left.transpose(1, 2), self.right)
        return self._dense

    def weighted(self, factors: Tensor) -> Tensor | None:
        """Return one product of two matrices, or of a vector and a matrix."""
        if self._dense is None and self._loses_digits(factors):
            self.instantiated()
        if self._dense is not None:
            return Dense(self._dense).weighted(factors)
        left, right = self._scaled(factors)
        return left.t() @ right

    def kept_bytes(self) -> int:
        """Return the size of what was instantiated, or of both factors."""
        if self._dense is not None:
            return self._dense.numel() * self._dense.element_size()
        return (self.left.numel() + self.right.numel()) * self.left.element_size()

    def add_to(self, total: Tensor, factors: Tensor) -> None:
        """Add the weighted sum to `total`."""
        if self._dense is None and self._loses_digits(factors):
            self.instantiated()
        if self._dense is not None:
            add_weighted(total, self._dense, factors)
            return
        left, right = self._scaled(factors)
        total.addmm_(left.t(), right)

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
        return gram_cost(self.positions, *self.shape) if self._gram else instantiated_cost(*self.shape)

    def reason(self) -> str:
        """Return what both ways cost, or why one is out of the question."""
        if self.positions == 1:
            return ""
        if self.positions > MOST_GRAM_POSITIONS and self._dtype != torch.float64:
            return f"gram matrices of {self.positions} positions are not precise enough"
        gram, dense = gram_cost(self.positions, *self.shape), instantiated_cost(*self.shape)
        return f"gram costs {gram:.2g}, instantiated {dense:.2g}"

    def path(self) -> str:
        """Return how the norms are found."""
        if self.positions == 1:
            return "product of norms"
        return "gram" if self._gram else "instantiated"


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


ROUNDING = 4.0
"""Rounding errors of a Gram matrix beyond those of its diagonal, in units in the last place of the sum of
their sizes; measured on adversarial inputs."""
MOST_GRAM_POSITIONS = 256
"""Beyond it the bound on rounding errors would move factors by more than the tolerance of float32."""
MOST_SUMMED_POSITIONS = 16
"""Beyond it what rounding can add to a float32 sum over positions, 1.5e-5 for 256, would move factors by
more than the tolerance of float32; what is instantiated has been rounded before its norm is taken."""


def prefers_gram(positions: int, rows: int, columns: int, dtype: torch.dtype) -> bool:
    """Tell whether norms by Gram matrices cost less than instantiated gradients.

    Counted in multiplications: Gram matrices `P^2 (R + C)`, each at the price of `GRAM` of those of an
    ordinary weight gradient; instantiated gradients are that weight gradient, unit by unit, but are written
    once and read twice, each element at the price of `MEMORY` multiplications.
    """
    if dtype != torch.float64 and positions > MOST_SUMMED_POSITIONS:
        return False
    return gram_cost(positions, rows, columns) < instantiated_cost(rows, columns)


def gram_cost(positions: int, rows: int, columns: int) -> float:
    """Return the price of norms by Gram matrices, in multiplications per unit."""
    return GRAM * positions**2 * (rows + columns)


def instantiated_cost(rows: int, columns: int) -> float:
    """Return the price of an instantiated gradient, in multiplications per unit."""
    return MEMORY * rows * columns


GRAM = 2.0
"""Price of a multiplication in a Gram matrix: batches of small products, and passes over the matrices."""
MEMORY = 25.0
"""Price of an element of an instantiated gradient. Both were measured on two cores with AVX-512 in float32,
for the shapes of the benchmark's transformers: 64 units of (65, 768, 192), 16 of (128, 1024, 256)."""


def gram_norms(left: Tensor, right: Tensor) -> Norms:
    """Return the norms of `sum_p left[g, p] right[g, p]^T` by Gram matrices, with their error bound.

    Sums of like terms, such as those over a constant input, are rounded one way for ever: 7e-6 too small
    in float32 over 8192 columns. The diagonals, which are known exactly, tell how far.
    """
    left_norms = row_norms(left.reshape(-1, left.shape[2])).view(left.shape[:2])
    right_norms = row_norms(right.reshape(-1, right.shape[2])).view(right.shape[:2])
    unit = ROUNDING * torch.finfo(left.dtype).eps / 2
    sizes = left_norms * right_norms
    # Kernels add position after position, and every addition, and the factor, may round away from zero.
    error = (left.shape[1] + 1) * torch.finfo(left.dtype).eps / 2 * sizes.sum(1)
    if left.dtype != torch.float64 and not (
        squares_are_normal(left_norms) and squares_are_normal(right_norms)
    ):
        wide = gram_norms(left.double(), right.double())
        return Norms(squared=wide.squared, spread=wide.spread, error=error)
    left_gram = torch.bmm(left, left.transpose(1, 2))
    right_gram = torch.bmm(right, right.transpose(1, 2))
    narrow_left, narrow_right = left_norms.to(left.dtype), right_norms.to(left.dtype)
    spread = unit * (weighted_size(right_gram, narrow_left) + weighted_size(left_gram, narrow_right))
    off = _diagonal_errors(left_gram, left_norms) + _diagonal_errors(right_gram, right_norms)
    products = left_gram.mul_(right_gram)
    squared = products.sum((1, 2), dtype=torch.float64)
    lost = off > LOST
    spread += (torch.where(lost, 0.0, off) * products.abs().sum(2, dtype=torch.float64)).sum(1)
    spread += 2 * torch.where(lost, sizes, 0.0).sum(1) * sizes.sum(1)
    return Norms(squared=squared.clamp(min=0.0), spread=spread, error=error)


LOOSE = 6e-6
"""Most by which a bound may exceed a norm: positions that cancel leave a bound that would move factors."""


def is_tight(norms: Norms) -> bool:
    """Tell whether what will be added is known to be little more than the norms."""
    if torch.compiler.is_compiling() or norms.spread is None or norms.error is None:
        return True
    upper = (norms.squared + norms.spread).sqrt() + norms.error
    return bool((upper <= (1 + LOOSE) * norms.squared.sqrt()).all())


LOST = 1e-3
"""A position whose squared norm is off by more, relatively, has underflown: its size alone bounds it."""


def squares_are_normal(norms: Tensor) -> bool:
    """Tell whether float32 can hold the squares of the largest of each unit's norms (G, P)."""
    if torch.compiler.is_compiling():  # what is traced cannot look at its numbers
        return False
    largest = norms.amax(1)
    return bool((((largest >= SMALL) & (largest <= LARGE)) | (largest == 0)).all())


def _diagonal_errors(gram: Tensor, norms: Tensor) -> Tensor:
    """Return by how much, relatively, the diagonals of Gram matrices miss the squared norms, (G, P)."""
    exact = norms.square()
    off = (gram.diagonal(dim1=1, dim2=2).double() - exact).abs()
    return torch.where(exact > 0, off / exact, 0.0)


def weighted_size(gram: Tensor, norms: Tensor) -> Tensor:
    """Return `sum_pq norms[p] |gram[p, q]| norms[q]`, (G,), in float64."""
    return (torch.bmm(gram.abs(), norms[:, :, None])[:, :, 0] * norms).sum(1, dtype=torch.float64)


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


def combined(contributions: Sequence[Contribution]) -> Contribution:
    """Return the contribution of several uses of one weight: the sum of their gradients."""
    if len(contributions) == 1:
        return contributions[0]
    outer = [one for one in contributions if isinstance(one, Outer) and one.factored]
    sparse = [one for one in contributions if isinstance(one, Sparse)]
    if len(outer) + len(sparse) == len(contributions):
        joined = _joined(outer) if outer else None
        looked_up = (
            Sparse(
                torch.cat([one.indices for one in sparse], 1),
                torch.cat([one.values for one in sparse], 1),
                sparse[0].shape[0],
            )
            if sparse
            else None
        )
        if joined is None or looked_up is None:
            return joined or looked_up or contributions[0]
        if prefers_gram(
            joined.positions + looked_up.positions, joined.shape[0], joined.shape[1], joined.left.dtype
        ):
            return Mixed(joined, looked_up)
    total = contributions[0].instantiated()
    for one in contributions[1:]:
        total = total + one.instantiated()
    return Dense(total)


def _joined(outer: Sequence[Outer]) -> Outer:
    if len(outer) == 1:
        return outer[0]
    return Outer(torch.cat([one.left for one in outer], 1), torch.cat([one.right for one in outer], 1))


def widened(tensor: Tensor) -> Tensor:
    """Return `tensor` in float32 if it is of lower precision."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
