"""Joint norms of per-unit gradients that neither overflow, underflow nor come out too small."""

from collections.abc import Iterable

import torch
from torch import Tensor


def joint_norms(grads: Iterable[Tensor], units: int) -> Tensor:
    """Return the L2 norm (G,) of every unit over all tensors (G, ...), in float64.

    Squares of float32 numbers, denormal or huge, are normal numbers in float64. Float64 tensors are
    scaled by the unit's largest element first. A unit with an element that is not finite has a norm
    that is not finite.
    """
    flat = [grad.reshape(units, -1) for grad in grads if grad.numel()]
    device = flat[0].device if flat else None
    total = torch.zeros(units, dtype=torch.float64, device=device)
    wide = [grad for grad in flat if grad.dtype == torch.float64]
    scale = torch.ones_like(total)
    if wide:
        largest = torch.stack([grad.abs().amax(1) for grad in flat]).double().amax(0)
        scale = torch.where(largest > 0, largest, 1.0)
    for grad in flat:
        scaled = grad.double() / scale[:, None] if wide else grad
        norm = torch.linalg.vector_norm(scaled, dim=1, dtype=torch.float64).to(total.device)
        total += norm.square()
    return total.sqrt() * scale


def round_down(factors: Tensor, dtype: torch.dtype) -> Tensor:
    """Return float64 `factors` in `dtype`, rounded towards zero.

    Rounding to nearest would be wrong where it matters: the factor of a huge gradient can be a denormal
    number in float32, which has few digits left.
    """
    rounded = factors.to(dtype)
    return torch.where(
        rounded.double() > factors, torch.nextafter(rounded, torch.zeros_like(rounded)), rounded
    )
