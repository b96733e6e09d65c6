"""The clip rule of automatic clipping: bring every gradient to about the same length."""

from typing import Annotated, Any, Literal

from annotated_types import Ge, Le

from clipwise.configuration import configuration
from clipwise.schedules.bounds import Bound


@configuration
class AutomaticClip:
    """Scale a gradient of norm `n` by `max_norm / (n + stability)`: AUTO-S.

    Short gradients grow, long ones shrink, and their order is kept: a scaled norm is
    `max_norm * n / (n + stability)`, below `max_norm`. `max_norm` then only multiplies the step, so that it
    can stay 1 and the learning rate alone is tuned.

    Source: Bu, Wang, Zha and Karypis, Automatic clipping: differentially private deep learning made easier
    and stronger (2023).

    Attributes:
        max_norm: what the norms of scaled gradients stay below.
        stability: norm at which a gradient is scaled to half of `max_norm`.

    Example:
        >>> import numpy as np
        >>> AutomaticClip(max_norm=1.0, stability=0.5).factors(np.array([0.0, 0.5, 1.5])).tolist()
        [2.0, 1.0, 0.5]
    """

    kind: Literal["automatic"] = "automatic"
    max_norm: Bound = 1.0
    stability: Annotated[float, Ge(1e-12), Le(1e12)] = 0.01

    @property
    def sensitivity(self) -> float:
        """Bound of the L2 norm of a scaled gradient: `max_norm`, which is never reached."""
        return self.max_norm

    def factors(self, norms: Any) -> Any:
        """Return `max_norm / (norms + stability)`."""
        return self.max_norm / (norms + self.stability)
