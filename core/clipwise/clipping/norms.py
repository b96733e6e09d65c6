"""Norms that neither overflow, underflow nor come out too small."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

BLOCK = 1024
"""Squares are summed in float32 in blocks of this many; longer sums come out too small (1e-4 at 2e6)."""
SMALL, LARGE = 1e-15, 1e15
"""Between them, squares of float32 numbers are normal numbers, and so are sums of squares."""


def row_norms(x: Tensor) -> Tensor:
    """Return the L2 norms (N,) of the rows of `x` (N, M), in float64.

    Relative error at most 3e-7 in float32, whatever the size of the elements: rows that are very large or
    very small are summed again in float64. A row with an element that is not finite has a norm that is not
    finite.
    """
    if not x.numel():
        return torch.zeros(x.shape[0], dtype=torch.float64, device=x.device)
    if x.dtype == torch.float64:
        return _scaled_norms(x)
    if not takes_blocks(x):
        return _wide_norms(x)
    if x.shape[1] > BLOCK:
        return norms_of([x], [block_norms(x)])
    norms: Tensor = torch.linalg.vector_norm(x, dim=1)
    return norms.double() if _all_normal(norms) else norms_of([x], [norms[:, None]])


def takes_blocks(x: Tensor) -> bool:
    """Tell whether norms of rows like `x` are found from those of blocks; what is traced sees no numbers."""
    return x.dtype == torch.float32 and x.device.type == "cpu" and not torch.compiler.is_compiling()


def norms_of(parts: Sequence[Tensor], blocks: Sequence[Tensor]) -> Tensor:
    """Return the norms (N,) of the rows of `parts` (n, M), for which `takes_blocks` holds; see `row_norms`.

    Args:
        parts: rows behind each other.
        blocks: norms of the blocks of these rows, in as many tensors as their `block_norms` were found.
    """
    joined = blocks[0] if len(blocks) == 1 else torch.cat(list(blocks))
    norms: Tensor = torch.linalg.vector_norm(joined, dim=1, dtype=torch.float64)
    if not _all_normal(norms):
        for part, found in zip(parts, norms.split_with_sizes([len(part) for part in parts]), strict=True):
            outside = ~((found >= SMALL) & (found <= LARGE))
            again = part[outside]
            if bool(again.any()):  # rows of zeros are many: padding, and units that a rectifier has put out
                found[outside] = _wide_norms(again)
    return norms


def _all_normal(norms: Tensor) -> bool:
    """Tell whether the squares of all `norms` are normal numbers; of what is no number they are not."""
    smallest, largest = torch.aminmax(norms)
    return float(smallest) >= SMALL and float(largest) <= LARGE


def block_norms(x: Tensor) -> Tensor:
    """Return the norms (N, K) of blocks of the rows of `x` (N, M), which one float32 number can hold."""
    rows, width = x.shape
    if width <= BLOCK:
        narrow: Tensor = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        return narrow
    whole = width - width % BLOCK
    blocks: Tensor = torch.linalg.vector_norm(x[:, :whole].reshape(rows, -1, BLOCK), dim=2)
    if whole == width:
        return blocks
    return torch.cat([blocks, torch.linalg.vector_norm(x[:, whole:], dim=1, keepdim=True)], 1)


def _wide_norms(x: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(x, dim=1, dtype=torch.float64)
    return norms


def _scaled_norms(x: Tensor) -> Tensor:
    largest = torch.maximum(x.amax(1), -x.amin(1))
    scale = torch.where((largest > 0) & largest.isfinite(), largest, 1.0)
    norms: Tensor = torch.linalg.vector_norm(x / scale[:, None], dim=1) * scale
    return norms


def joint_norms(grads: Iterable[Tensor], units: int) -> Tensor:
    """Return the L2 norm (G,) of every unit over all tensors (G, ...), in float64.

    A unit with an element that is not finite has a norm that is not finite.
    """
    norms = [row_norms(grad.reshape(units, -1)) for grad in grads if grad.numel()]
    return joint(norms) if norms else torch.zeros(units, dtype=torch.float64)


def joint(norms: list[Tensor]) -> Tensor:
    """Return the norms (G,) of vectors whose parts have the given norms, each (G,), in float64."""
    stacked = torch.stack([norm.to(norms[0].device) for norm in norms])
    return _scaled_norms(stacked.t())


def round_down(factors: Tensor, dtype: torch.dtype) -> Tensor:
    """Return float64 `factors` in `dtype`, rounded towards zero.

    Rounding to nearest would be wrong where it matters: the factor of a huge gradient can be a denormal
    number in float32, which has few digits left.
    """
    rounded = factors.to(dtype)
    return torch.where(
        rounded.double() > factors, torch.nextafter(rounded, torch.zeros_like(rounded)), rounded
    )
