"""Norms by Gram matrices over positions: `|sum_p l_p r_p^T|^2 = sum_pq <l_p, l_q> <r_p, r_q>`.

Sources: Goodfellow (2015); Li, Tramer, Liang and Hashimoto (2022).
"""

import torch
from torch import Tensor

from clipwise.clipping.contributions.contribution import MEMORY, Norms
from clipwise.clipping.norms import LARGE, SMALL, row_norms

PRICE = 2.0
"""Of a multiplication in a Gram matrix: batches of small products, and passes over the matrices."""
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

    Counted in multiplications: Gram matrices `P^2 (R + C)`, each at the price of `PRICE` of those of an
    ordinary weight gradient; instantiated gradients are that weight gradient, unit by unit, but are written
    once and read twice, each element at the price of `MEMORY` multiplications.
    """
    if dtype != torch.float64 and positions > MOST_SUMMED_POSITIONS:
        return False
    return gram_cost(positions, rows, columns) < instantiated_cost(rows, columns)


def gram_cost(positions: int, rows: int, columns: int) -> float:
    """Return the price of norms by Gram matrices, in multiplications per unit."""
    return PRICE * positions**2 * (rows + columns)


def instantiated_cost(rows: int, columns: int) -> float:
    """Return the price of an instantiated gradient, in multiplications per unit."""
    return MEMORY * rows * columns


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
