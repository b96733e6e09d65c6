"""What a training run tells, and how often."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias, final


@dataclass(frozen=True, kw_only=True)
class Progressed:
    """How far the run is.

    Attributes:
        epsilon: upper bound of what has been spent up to and including `step`; None without privacy.
    """

    step: int
    steps: int
    samples_per_second: float
    eta_seconds: float
    epsilon: float | None


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Numbers at one step.

    Attributes:
        released: they are covered by the guarantee, or do not depend on the rows. Exact numbers are not.
    """

    step: int
    values: Mapping[str, float]
    released: bool


Event: TypeAlias = Progressed | Measured


@final
class Pace:
    """Says when something that is done at most every `seconds` is due; the first time always is."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._next = 0.0

    def due(self, now: float) -> bool:
        """Return whether it is due at `now`, and count from there if so."""
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True
