"""From what met the data to the parameters behind it.

A weight may be a parameter, a view of one, or a tensor derived from parameters. A view without overlap
keeps norms, so its contribution stands for the parameter's own, at a place in its storage. Any other
derivation is pulled back by one batched vector-Jacobian product.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import torch
from torch import Tensor

from clipwise.clipping.contributions import Contribution, Dense, Norms, combined
from clipwise.clipping.parameters import Leaves

Place: TypeAlias = tuple[int, tuple[int, ...], tuple[int, ...]]
"""Offset, sizes and strides of a view within a parameter's storage, in elements."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Share:
    """Everything that one parameter's gradient consists of.

    Attributes:
        parts: contributions to disjoint places of the parameter.
    """

    parts: tuple[tuple[Place, Contribution], ...]

    def norms(self) -> Norms:
        """Return the squared norms (G,) of the parameter's gradients."""
        found = [contribution.norms() for _, contribution in self.parts]
        if len(found) == 1:
            return found[0]
        spreads = [one.spread for one in found if one.spread is not None]
        errors = [one.error.square() for one in found if one.error is not None]
        return Norms(
            squared=torch.stack([one.squared for one in found]).sum(0),
            spread=torch.stack(spreads).sum(0) if spreads else None,
            error=torch.stack(errors).sum(0).sqrt() if errors else None,
        )

    def weighted(self, factors: Tensor, parameter: Tensor, dtype: torch.dtype) -> Tensor | None:
        """Return the weighted sum over units, or None if it does not fill a tensor like `parameter`."""
        place, contribution = self.parts[0]
        whole = (0, tuple(parameter.shape), parameter.stride())
        if len(self.parts) > 1 or place != whole or not parameter.is_contiguous():
            return None
        found = contribution.weighted(factors)
        return found if found is None or found.dtype == dtype else found.to(dtype)

    def add_to(self, total: Tensor, factors: Tensor) -> None:
        """Add the weighted sum over units to `total`, of the parameter's shape and strides."""
        for (offset, size, stride), contribution in self.parts:
            contribution.add_to(total.as_strided(size, stride, total.storage_offset() + offset), factors)


def shares(
    met: Iterable[tuple[Tensor, Contribution]], leaves: Leaves, parameters: Mapping[str, Tensor]
) -> dict[str, Share]:
    """Return the share of every parameter that data has met, by canonical name.

    Args:
        met: weights with their contributions.
        leaves: the module's trainable parameters.
        parameters: canonical name to parameter: its strides say where an element is.
    """
    places: dict[str, dict[Place, list[Contribution]]] = defaultdict(lambda: defaultdict(list))
    derived: list[tuple[Tensor, Contribution]] = []
    for weight, contribution in met:
        found = place_of(weight, leaves)
        if found is None:
            derived.append((weight, contribution))
        else:
            places[found[0]][found[1]].append(contribution)
    for name, gradient in _pulled_back(derived, leaves):
        parameter = parameters[name]
        places[name][0, tuple(parameter.shape), parameter.stride()].append(Dense(gradient))
    return {
        name: Share(
            parts=_disjoint({place: combined(uses) for place, uses in found.items()}, parameters[name])
        )
        for name, found in places.items()
    }


def whole_share(parameter: Tensor, gradients: Tensor) -> Share:
    """Return the share of a parameter whose gradients (G, *shape) are all there."""
    return Share(parts=(((0, tuple(parameter.shape), parameter.stride()), Dense(gradients)),))


def place_of(weight: Tensor, leaves: Leaves) -> tuple[str, Place] | None:
    """Return which part of which parameter `weight` is, or None if it is more than a view."""
    name = leaves.name(weight)
    if name is not None:
        return name, (0, tuple(weight.shape), weight.stride())
    base = weight._base  # noqa: SLF001 - torch's own account of what a view is a view of
    name = None if base is None else leaves.name(base)
    if base is None or name is None or _overlaps(weight) or weight.dtype != base.dtype:
        return None
    offset = int(weight.storage_offset()) - int(base.storage_offset())
    return name, (offset, tuple(weight.shape), weight.stride())


def _overlaps(view: Tensor) -> bool:
    """Tell whether two elements of a view may be one in memory."""
    reach = 0
    for stride, size in sorted(zip(view.stride(), view.shape, strict=True)):
        if size > 1:
            if stride <= reach:
                return True
            reach += stride * (size - 1)
    return False


def _pulled_back(derived: Sequence[tuple[Tensor, Contribution]], leaves: Leaves) -> list[tuple[str, Tensor]]:
    """Return the gradients (G, *shape) of the parameters behind derived weights."""
    if not derived:
        return []
    uses: dict[int, list[Contribution]] = defaultdict(list)
    weights = {id(weight): weight for weight, _ in derived}
    for weight, contribution in derived:
        uses[id(weight)].append(contribution)
    grads = [combined(uses[key]).instantiated().to(weight.dtype) for key, weight in weights.items()]
    found = torch.autograd.grad(
        list(weights.values()),
        list(leaves.tensors),
        grads,
        retain_graph=True,
        allow_unused=True,
        is_grads_batched=True,
    )
    gradients: list[tuple[str, Tensor | None]] = list(zip(leaves.names, found, strict=True))
    return [(name, gradient) for name, gradient in gradients if gradient is not None]


def _disjoint(parts: dict[Place, Contribution], total: Tensor) -> tuple[tuple[Place, Contribution], ...]:
    """Return `parts` as they are if no two share an element, else their sum as one."""
    if len(parts) == 1:
        return tuple(parts.items())
    spans = sorted((place[0], place[0] + _extent(place)) for place in parts)
    if all(stop <= start for (_, stop), (start, _) in pairwise(spans)):
        return tuple(parts.items())
    units = next(iter(parts.values())).units
    whole: Tensor | None = None
    for (offset, size, stride), contribution in parts.items():
        gradient = contribution.instantiated()
        if whole is None:
            whole = torch.empty_strided(
                (units, *total.shape),
                (total.numel(), *total.stride()),
                dtype=gradient.dtype,
                device=total.device,
            ).zero_()
        whole.as_strided((units, *size), (total.numel(), *stride), offset).add_(gradient)
    if whole is None:
        return ()
    return (((0, tuple(total.shape), total.stride()), Dense(whole)),)


def _extent(place: Place) -> int:
    _, size, stride = place
    return 1 + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
