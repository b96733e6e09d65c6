"""From norms to factors, part by part: what a clip rule asks for, held to what it states.

Letters: G units, K parts of the clip rule.
"""

import math
from collections.abc import Mapping, Sequence
from typing import final

import torch
from torch import Tensor

from clipwise.clipping.contributions import Norms
from clipwise.clipping.norms import joint_norms
from clipwise.errors import InvalidInput
from clipwise.schedules import AnyClipRule, ClipRule, FlatClip, Part, parts_of
from clipwise.schedules.clip_rule import WHOLE

LARGEST_FACTOR = 2.0**100
"""Factors stop here: a norm that asks for more is below what float32 tells from zero."""


@final
class Unscaled:
    """The rule that leaves every gradient as it is, and so bounds nothing."""

    sensitivity = math.inf

    def factors(self, norms: Tensor) -> Tensor:
        """Return ones."""
        return torch.ones_like(norms)


@final
class Scaling:
    """A clip rule on the parameters of one module.

    Args:
        rule: None scales nothing.
        names: canonical names of the trained parameters.

    Attributes:
        parts: of the parameters, each with its own rule.

    Raises:
        InvalidInput: if the rule does not fit the parameters.
    """

    def __init__(self, rule: AnyClipRule | None, names: Sequence[str]) -> None:
        if rule is None:
            self.parts: tuple[Part, ...] = (Part(label=WHOLE, names=tuple(names), rule=Unscaled()),)
        else:
            self.parts = parts_of(rule, names)
        self._place = {name: place for place, part in enumerate(self.parts) for name in part.names}
        self._only_shrinks = all(isinstance(part.rule, FlatClip | Unscaled) for part in self.parts)

    def norms(self, found: Mapping[str, Norms], units: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the parts' norms (G, K), and upper bounds of the norms of what will be added, (G, K).

        Args:
            found: of the parameters that met the rows, by canonical name.
            units: number of units G.
            device: of the results.
        """
        pairs = [
            joint_of([found[name] for name in part.names if name in found], units, device)
            for part in self.parts
        ]
        return _columns([squared for squared, _ in pairs]).sqrt(), _columns([upper for _, upper in pairs])

    def norms_of(self, gradients: Mapping[str, Tensor], units: int) -> Tensor:
        """Return the parts' norms (G, K) of the gradients (G, *shape) of all parameters."""
        found = [joint_norms([gradients[name] for name in part.names], units) for part in self.parts]
        device = next(iter(gradients.values())).device
        return torch.stack([norms.to(device) for norms in found], 1)

    def factors(self, norms: Tensor, upper: Tensor) -> Tensor:
        """Return the factors (G, K) for finite norms (G, K); see `scale_factors`."""
        columns = zip(self.parts, norms.unbind(1), upper.unbind(1), strict=True)
        return _columns([scale_factors(part.rule, one, most) for part, one, most in columns])

    def by_name(self, factors: Tensor) -> dict[str, Tensor]:
        """Return the factors (G,) of every parameter; those of one part have the same tensor."""
        columns = factors.unbind(1)
        return {name: columns[place] for name, place in self._place.items()}

    def scale(self, factors: Tensor) -> float:
        """Return the power of two that brings factors (G, K) down to 1, where some are above it."""
        if self._only_shrinks or not factors.numel():
            return 1.0
        return 2.0 ** max(0, math.ceil(math.log2(max(1.0, float(factors.max())))))


def _columns(found: list[Tensor]) -> Tensor:
    return found[0][:, None] if len(found) == 1 else torch.stack(found, 1)


def joint_of(parts: Sequence[Norms], units: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the squared joint norms (G,), and upper bounds of the norms of what will be added, (G,)."""
    if not parts:
        return (torch.zeros(units, dtype=torch.float64, device=device),) * 2
    squared = torch.stack([part.squared for part in parts]).sum(0)
    upper = squared
    spreads = [part.spread for part in parts if part.spread is not None]
    if spreads:
        upper = squared + torch.stack(spreads).sum(0)
    upper = upper.sqrt()
    errors = [part.error for part in parts if part.error is not None]
    if errors:
        upper = upper + torch.stack(errors).square().sum(0).sqrt()
    return squared, upper


def scale_factors(rule: ClipRule, norms: Tensor, upper: Tensor) -> Tensor:
    """Return the factors (G,) of `rule` for finite norms (G,), held to the sensitivity that it states.

    Args:
        rule: gives one factor per unit.
        norms: what the rule sees.
        upper: bounds of the norms of what will be added.

    Raises:
        InvalidInput: if the rule gives something else than one factor per unit.
    """
    factors = rule.factors(norms)
    if not isinstance(factors, Tensor) or factors.shape != norms.shape:
        raise InvalidInput(
            f"{type(rule).__name__}.factors must return one factor per norm, {tuple(norms.shape)}"
        )
    # Division by zero gives inf, which bounds nothing, and a norm of zero needs no bound.
    bounded = factors.to(norms.dtype).clamp(min=0.0, max=LARGEST_FACTOR).minimum(rule.sensitivity / upper)
    return bounded.nan_to_num(nan=0.0)
