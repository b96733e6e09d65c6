"""Clip rules: from the norms of units to the factors that their gradients are scaled with."""

import math
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

from annotated_types import Ge, Le

from clipwise.configuration import configuration
from clipwise.errors import InvalidInput

SMALLEST_NORM = 1e-30
"""Below it, float32 gradients would be rounded by more than the bound's slack of 1e-6."""
LARGEST_NORM = 1e12


@runtime_checkable
class ClipRule(Protocol):
    """Maps norms (G,) to factors (G,) and states what one unit can then contribute at most.

    The engine holds a rule to its word: a factor that would let a unit exceed `sensitivity` is lowered.
    """

    @property
    def sensitivity(self) -> float:
        """Largest L2 norm that one unit's scaled gradient can have."""
        ...

    def factors(self, norms: Any) -> Any:
        """Return the factors (G,) for the norms (G,), an array of any framework, in float64."""
        ...


@configuration
class FlatClip:
    """Scale a gradient of norm `n` by `min(1, max_norm / n)`.

    Source: Abadi et al., Deep learning with differential privacy (2016).

    Example:
        >>> import numpy as np
        >>> FlatClip(max_norm=1.0).factors(np.array([0.0, 0.5, 4.0])).tolist()
        [1.0, 1.0, 0.25]
    """

    kind: Literal["flat"] = "flat"
    max_norm: Annotated[float, Ge(SMALLEST_NORM), Le(LARGEST_NORM)]

    @property
    def sensitivity(self) -> float:
        """Largest L2 norm of a scaled gradient: the bound itself."""
        return self.max_norm

    def factors(self, norms: Any) -> Any:
        """Return `min(1, max_norm / norms)`; 1 where the norm is zero."""
        # In this form exactly 1 below the bound, in every framework.
        return 1.0 / (norms.clip(min=self.max_norm) / self.max_norm)


def as_clip_rule(max_norm: Any) -> ClipRule:
    """Return `max_norm` if it is a rule, else the flat rule with this bound.

    Raises:
        InvalidInput: if it is neither a rule nor a positive, finite number.
    """
    if isinstance(max_norm, ClipRule) and not isinstance(max_norm, type):
        sensitivity = max_norm.sensitivity
        if not (math.isfinite(sensitivity) and sensitivity > 0):
            raise InvalidInput(
                f"the clip rule {type(max_norm).__name__} states a sensitivity of {sensitivity}; "
                "a rule bounds every unit by a positive, finite number"
            )
        return max_norm
    number = isinstance(max_norm, int | float) and not isinstance(max_norm, bool)
    if not number or not SMALLEST_NORM <= max_norm <= LARGEST_NORM:
        raise InvalidInput(
            f"max_norm is {max_norm!r}; give a number from {SMALLEST_NORM:g} to {LARGEST_NORM:g}, "
            "a clip rule, or None for no clipping"
        )
    return FlatClip(max_norm=float(max_norm))
