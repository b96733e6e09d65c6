"""Where the weighted sums of all chunks are gathered."""

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

from clipwise.clipping.attribution import Share
from clipwise.clipping.large_tensors import zeros
from clipwise.clipping.norms import round_down


@final
class Sums:
    """One sum for each trainable parameter, in float32 or the parameter's wider type.

    Args:
        parameters: canonical name to parameter.
        divisor: what every sum is divided by; it is part of the factors, so that it costs nothing.
    """

    def __init__(self, parameters: Mapping[str, Tensor], divisor: float) -> None:
        self._parameters = parameters
        self._divisor = divisor
        self._sums: dict[str, Tensor] = {}

    def add(self, shares: Mapping[str, Share], factors: Mapping[str, Tensor], scale: float = 1.0) -> None:
        """Add the sums of one chunk.

        Args:
            shares: canonical name to what its gradients consist of.
            factors: canonical name to factors (G,), float64; parameters that have the same factors have
                the same tensor.
            scale: power of two that all of them are divided by until the end. A factor above 1 could make
                large numbers infinite that would still cancel, or meet small ones.
        """
        if scale != 1.0:
            self._add_scaled(shares, factors, scale)
            return
        rounded: dict[tuple[int, torch.dtype], Tensor] = {}
        for name, share in shares.items():
            dtype = self.dtype(name)
            key = (id(factors[name]), dtype)
            if key not in rounded:
                rounded[key] = round_down(factors[name] / self._divisor, dtype)
            known = self._sums.get(name)
            if known is None:
                known = share.weighted(rounded[key], self._parameters[name], dtype)
                if known is not None:
                    self._sums[name] = known
                    continue
                known = self._sums[name] = self._zeros(name)
            share.add_to(known, rounded[key])

    def _add_scaled(self, shares: Mapping[str, Share], factors: Mapping[str, Tensor], scale: float) -> None:
        apart = Sums(self._parameters, self._divisor)
        lowered = {id(one): one / scale for one in factors.values()}
        apart.add(shares, {name: lowered[id(one)] for name, one in factors.items()})
        for name, value in apart._sums.items():
            known = self._sums.get(name)
            self._sums[name] = value.mul_(scale) if known is None else known.add_(value, alpha=scale)

    def values(self) -> dict[str, Tensor]:
        """Return every parameter's sum; zeros where nothing was added."""
        return {
            name: self._sums[name] if name in self._sums else self._zeros(name) for name in self._parameters
        }

    def dtype(self, name: str) -> torch.dtype:
        """Return the type that a parameter's sum has."""
        return torch.promote_types(self._parameters[name].dtype, torch.float32)

    def largest(self) -> float:
        """Return the largest number that every sum can hold."""
        return min(torch.finfo(self.dtype(name)).max for name in self._parameters)

    def _zeros(self, name: str) -> Tensor:
        parameter, dtype = self._parameters[name], self.dtype(name)
        if not parameter.is_contiguous():
            return torch.zeros_like(parameter, dtype=dtype)
        return zeros(parameter.shape, dtype, parameter.device)
