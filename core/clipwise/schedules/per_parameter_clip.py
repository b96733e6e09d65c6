"""The clip rule that clips each parameter's gradient on its own."""

import math
from collections.abc import Sequence
from typing import Literal

from clipwise.configuration import configuration
from clipwise.errors import InvalidInput
from clipwise.schedules.bounds import SMALLEST_NORM, Bound
from clipwise.schedules.clip_rule import Part
from clipwise.schedules.flat_clip import FlatClip


@configuration
class PerParameterClip:
    """Clip the gradient of each of the `K` trained parameters by its own norm.

    Source: McMahan et al., Learning differentially private recurrent language models (2018), "per-layer".

    Attributes:
        max_norm: the bound; of what, `bound` says.
        bound: `"joint"`: all together stay within `max_norm`, and each parameter within
            `max_norm / sqrt(K)`. `"each"`: each parameter stays within `max_norm`, and all together within
            `max_norm * sqrt(K)`, which noise is then calibrated to.

    Example:
        >>> from clipwise.schedules import sensitivity_of
        >>> names = ["a.weight", "a.bias", "b.weight", "b.bias"]
        >>> round(sensitivity_of(PerParameterClip(max_norm=1.0), names), 12)
        1.0
        >>> sensitivity_of(PerParameterClip(max_norm=1.0, bound="each"), names)
        2.0
    """

    kind: Literal["per_parameter"] = "per_parameter"
    max_norm: Bound
    bound: Literal["joint", "each"] = "joint"

    def parts(self, names: Sequence[str]) -> tuple[Part, ...]:
        """Return one part for each parameter.

        Raises:
            InvalidInput: if a parameter's share of the bound is too small for arithmetic.
        """
        share = self.max_norm
        if self.bound == "joint" and len(names) > 1:
            # Rounded down, so that together they never exceed the bound.
            share = math.nextafter(self.max_norm / math.sqrt(len(names)), 0.0)
        if share < SMALLEST_NORM:
            raise InvalidInput(
                f"max_norm is {self.max_norm:g}, and {share:g} for each of {len(names)} parameters; give "
                f"{SMALLEST_NORM * math.sqrt(len(names)):.2g} or more"
            )
        rule = FlatClip(max_norm=share)
        return tuple(Part(label=name, names=(name,), rule=rule) for name in names)
