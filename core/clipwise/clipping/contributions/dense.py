"""Gradients that exist as tensors."""

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from clipwise.clipping.contributions.contribution import Contribution, Norms, widened
from clipwise.clipping.norms import row_norms


@final
class Dense(Contribution):
    """Gradients that exist as tensors.

    Args:
        parts: gradients (g, *shape) of consecutive units, at least one.
        known: gives the norms (G,), in float64, where they have been found already.
    """

    def __init__(self, *parts: Tensor, known: Callable[[], Tensor] | None = None) -> None:
        self._parts = tuple(map(widened, parts))
        self._known = known
        self._norms: Norms | None = None
        self.units, self.shape = sum(map(len, parts)), parts[0].shape[1:]

    def prepare(self) -> None:
        """Find the norms while the gradients are in the cache."""
        self._norms = self.norms()

    def norms(self) -> Norms:
        """Return the squared norms of the gradients."""
        if self._norms is not None:
            return self._norms
        if self._known is not None:
            return Norms(squared=self._known().square())
        found = [row_norms(part.reshape(len(part), -1)) for part in self._parts]
        return Norms(squared=_whole(found).square())

    def weighted(self, factors: Tensor) -> Tensor | None:
        """Return products of a vector and a matrix."""
        first, *others = self._parts
        if factors.dtype != first.dtype or not first.numel():
            return None
        start = len(first)
        total: Tensor = factors[:start] @ first.reshape(start, -1)
        for part in others:
            total.addmv_(part.reshape(len(part), -1).t(), factors[start : start + len(part)])
            start += len(part)
        return total.view(self.shape)

    def kept_bytes(self) -> int:
        """Return the size of the gradients."""
        return sum(part.numel() * part.element_size() for part in self._parts)

    def instantiated(self) -> Tensor:
        """Return the gradients themselves, (G, *shape)."""
        return _whole(self._parts)

    def add_to(self, total: Tensor, factors: Tensor) -> None:
        """Add the weighted sum to `total`."""
        start = 0
        for part in self._parts:
            add_weighted(total, part, factors[start : start + len(part)])
            start += len(part)

    def path(self) -> str:
        """Return how the norms are found."""
        return "instantiated"


def _whole(parts: "tuple[Tensor, ...] | list[Tensor]") -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


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
