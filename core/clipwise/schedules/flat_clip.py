"""The clip rule of DP-SGD: shorten what is longer than a bound."""

from typing import Any, Literal

from clipwise.configuration import configuration
from clipwise.schedules.bounds import Bound


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
    max_norm: Bound

    @property
    def sensitivity(self) -> float:
        """Largest L2 norm of a scaled gradient: the bound itself."""
        return self.max_norm

    def factors(self, norms: Any) -> Any:
        """Return `min(1, max_norm / norms)`; 1 where the norm is zero."""
        # In this form exactly 1 below the bound, in every framework.
        return 1.0 / (norms.clip(min=self.max_norm) / self.max_norm)
