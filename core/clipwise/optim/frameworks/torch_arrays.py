"""The optimizer's arithmetic on PyTorch tensors."""

import secrets
from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from torch import Tensor


@final
class TorchArrays:
    """See `clipwise.optim.frameworks.arrays.Arrays`. Only making one imports torch."""

    def __init__(self) -> None:
        import torch

        self._torch = torch

    def flat(self, size: int, like: "Sequence[Tensor]") -> "Tensor":
        """Return zeros of shape (size,) in the widest of float32 and the dtypes of `like`."""
        dtype = reduce(self._torch.promote_types, (a.dtype for a in like), self._torch.float32)
        return self._torch.zeros(size, dtype=dtype, device=like[0].device if like else None)

    def zeros_like(self, a: "Tensor") -> "Tensor":
        """Return zeros of `a`'s shape, dtype and device."""
        return self._torch.zeros_like(a)

    def number(self, value: float) -> "Tensor":
        """Return `value` as a 0-d float64 tensor on the host."""
        return self._torch.tensor(value, dtype=self._torch.float64, device="cpu")

    def copy(self, a: "Tensor") -> "Tensor":
        """Return a copy that shares no memory with `a`."""
        return a.detach().clone()

    def write(self, source: "Tensor", target: "Tensor") -> None:
        """Write `source` into `target`, converting dtype and device."""
        target.copy_(source.detach())

    def multiply(self, a: "Tensor", b: "Tensor | float", out: "Tensor | None" = None) -> "Tensor":
        """Return `a * b`."""
        return self._torch.mul(a, b, out=out)

    def add_scaled(self, a: "Tensor", b: "Tensor", scale: float, out: "Tensor | None" = None) -> "Tensor":
        """Return `a + scale * b`."""
        return self._torch.add(a, b, alpha=scale, out=out)

    def add_scaled_product(self, a: "Tensor", b: "Tensor", c: "Tensor", scale: float) -> "Tensor":
        """Return `a + scale * b * c`, written into `a`."""
        return a.addcmul_(b, c, value=scale)

    def divide(self, a: "Tensor", b: "Tensor", out: "Tensor | None" = None) -> "Tensor":
        """Return `a / b`."""
        return self._torch.div(a, b, out=out)

    def root_plus(self, a: "Tensor", scale: float, epsilon: float) -> "Tensor":
        """Return `scale * sqrt(a) + epsilon` as a new tensor."""
        return a.sqrt().mul_(scale).add_(epsilon)

    def clip_factor(self, a: "Tensor", max_norm: float) -> "Tensor":
        """Return `min(1, max_norm / ||a||)`; scaled by the largest element, so squares stay in range."""
        if a.numel() == 0:
            return self._torch.ones((), dtype=self._torch.float64, device=a.device)
        largest = a.abs().amax().double()
        safe = self._torch.where(largest > 0, largest, 1.0)
        norm = safe * (a.double() / safe).square().sum().sqrt()
        return max_norm / norm.clamp(min=max_norm)

    def standard_normal_like(self, a: "Tensor") -> "Tensor":
        """Return independent standard normal numbers, seeded by the operating system."""
        generator = self._torch.Generator(device=a.device)
        generator.manual_seed(secrets.randbits(63))
        return self._torch.randn(a.shape, dtype=a.dtype, device=a.device, generator=generator)
