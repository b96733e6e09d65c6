"""What a model computes on a batch."""

from dataclasses import dataclass, replace
from typing import Any, final


@final
@dataclass(frozen=True, kw_only=True)
class Gradients:
    """The averaged gradient of a batch, and what was seen of its units.

    Attributes:
        values: parameter name to array: the sum over units, divided by `divisor`. They are this
            object's own: a caller may change them in place. Noise of standard deviation `s` on the sum
            is noise of `s / divisor` on these.
        divisor: what the sum was divided by.
        sample_losses: loss of every row, (B,), before its weight; 0 for padding (weight 0).
        sample_norms: joint norm of every unit's gradient before clipping, (G,), float64, 0 where it was not
            finite; None without clipping.
        clip_factors: what every unit's gradient was multiplied with, (G,), the smallest of its parts; None
            without clipping.
        parts: what the K parts are called that the clip rule divides the parameters into; one where it
            clips by the joint norm, and none without clipping.
        part_norms: as `sample_norms`, of every part, (G, K).
        part_factors: as `clip_factors`, of every part, (G, K).
        sensitivity: most that one unit can contribute to the sum, in joint L2 norm; None without clipping.
        nonfinite: number of units that counted as zero because their gradient was not finite.
    """

    values: dict[str, Any]
    divisor: float
    sample_losses: Any
    sample_norms: Any | None = None
    clip_factors: Any | None = None
    parts: tuple[str, ...] = ()
    part_norms: Any | None = None
    part_factors: Any | None = None
    sensitivity: float | None = None
    nonfinite: int = 0

    def with_values(self, values: dict[str, Any]) -> "Gradients":
        """Return these gradients with other `values`, such as noised ones."""
        return replace(self, values=values)
