"""Epsilon of private training, by Google's `dp_accounting` (PLD, an upper bound)."""

import bisect
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

DEFAULT_INTERVAL = 1e-4
"""Discretisation of privacy losses that every stated epsilon uses: `dp_accounting`'s own default."""
COARSEST_INTERVAL = 1e-2
"""A hundredth of the cost, for searches and curves; pessimistic as well, so still an upper bound."""
MAX_EPSILON = 1000.0
"""Beyond this there is no protection to speak of, and the arithmetic needs gigabytes."""
MIN_DELTA = 1e-10
"""Below this, rounding of the accountant's convolutions is no longer negligible."""


def installed_version() -> str:
    """Return the version of `dp_accounting` that is installed, without importing it."""
    return version("dp-accounting")


def event(*, noise_multiplier: float, sampling_rate: float, steps: int) -> Any:
    """Return the `dp_accounting` event of `steps` Poisson-sampled Gaussian steps."""
    import dp_accounting

    step = dp_accounting.PoissonSampledDpEvent(sampling_rate, dp_accounting.GaussianDpEvent(noise_multiplier))
    return dp_accounting.SelfComposedDpEvent(step, steps)


def epsilon(
    *,
    noise_multiplier: float,
    sampling_rate: float,
    steps: int,
    delta: float,
    interval: float = DEFAULT_INTERVAL,
) -> float:
    """Return epsilon at `delta` after `steps` steps, under zero-out adjacency.

    `REPLACE_SPECIAL` is the accountant's name of zero-out: a row is replaced by one that contributes
    nothing, and the number of rows is public. Infinite where the loss is certainly beyond
    `MAX_EPSILON`, which is told cheaply before any large array is made.
    """
    from dp_accounting import NeighboringRelation
    from dp_accounting.pld import PLDAccountant

    if expected_loss(noise_multiplier=noise_multiplier, sampling_rate=sampling_rate) * steps > MAX_EPSILON:
        return math.inf
    accountant = PLDAccountant(NeighboringRelation.REPLACE_SPECIAL, interval)
    with np.errstate(over="ignore"):  # it divides by the last, vanishing mass
        accountant.compose(event(noise_multiplier=noise_multiplier, sampling_rate=sampling_rate, steps=steps))
        return float(accountant.get_epsilon(delta))


def cheap_interval(
    *, noise_multiplier: float, sampling_rate: float, steps: int, delta: float, epsilon: float
) -> float:
    """Return the widest discretisation that still gives an epsilon near `epsilon` within some percent.

    A loss that is small beside the grid costs about `loss * interval` in variance at each step; the sum
    of that over the steps is held to a tenth of `epsilon`. For searches and curves, never for a claim.
    """
    variance = steps * sampling_rate / noise_multiplier * 2 * math.log(1 / delta)
    return min(max((epsilon / 10) ** 2 / variance, DEFAULT_INTERVAL), COARSEST_INTERVAL)


def expected_loss(*, noise_multiplier: float, sampling_rate: float) -> float:
    r"""Return the mean privacy loss of one step.

    That is :math:`KL((1-q) N(0,\sigma^2) + q N(1,\sigma^2) \,\|\, N(0,\sigma^2))`.

    Losses add up over steps and gather around the sum of their means, so this tells in a millisecond
    how large epsilon is at least. It is a guard and never a claim.
    """
    sigma, q = noise_multiplier, sampling_rate
    x = np.linspace(-12 * sigma, 1 + 12 * sigma, 4001)
    # log of the ratio of densities; the plain formula overflows where sigma is small.
    tilt = (2 * x - 1) / (2 * sigma**2)
    with np.errstate(divide="ignore"):
        ratio = np.logaddexp(np.log1p(-q), math.log(q) + tilt) if q < 1 else tilt
    reference = np.exp(-((x / sigma) ** 2) / 2) / (sigma * math.sqrt(2 * math.pi))
    density = np.exp(np.minimum(ratio, 700.0)) * reference
    shifted = np.exp(-(((x - 1) / sigma) ** 2) / 2) / (sigma * math.sqrt(2 * math.pi))
    density = np.where(reference > 0, density, q * shifted)
    return max(0.0, float(np.sum(density * ratio) * (x[1] - x[0])))


@dataclass(frozen=True, kw_only=True)
class EpsilonCurve:
    """Epsilon spent after so many steps: a staircase that is nowhere below the truth.

    Attributes:
        steps: ascending numbers of steps; the last is the job's.
        epsilons: an upper bound of epsilon after each of them; the last is the job's, as stated.
    """

    steps: Sequence[int]
    epsilons: Sequence[float]

    def after(self, steps: int) -> float:
        """Return an upper bound of epsilon after `steps` steps: that of the next point of the grid.

        Raises:
            ValueError: if the curve ends before `steps`.
        """
        if steps <= 0:
            return 0.0
        position = bisect.bisect_left(self.steps, steps)
        if position == len(self.steps):
            raise ValueError(f"the curve ends at {self.steps[-1]} steps; {steps} is beyond it")
        return self.epsilons[position]


def curve(
    *, noise_multiplier: float, sampling_rate: float, steps: int, delta: float, final: float, points: int = 48
) -> EpsilonCurve:
    """Return epsilon over the steps of a job whose own epsilon is `final`.

    The points lie denser at the start, where epsilon grows fastest (like a square root). One step's
    loss distribution is made once and composed to each point.
    """
    from dp_accounting.pld import privacy_loss_distribution as pld

    interval = cheap_interval(
        noise_multiplier=noise_multiplier,
        sampling_rate=sampling_rate,
        steps=steps,
        delta=delta,
        epsilon=final,
    )
    step = pld.from_gaussian_mechanism(
        noise_multiplier, value_discretization_interval=interval, sampling_prob=sampling_rate
    )
    # Where only the fine form is tight, each point costs up to half a second.
    points = points if interval > DEFAULT_INTERVAL else points // 4
    grid = sorted({math.ceil(steps * (i / points) ** 2) for i in range(1, points + 1)})
    with np.errstate(over="ignore"):
        bounds = [float(step.self_compose(k).get_epsilon_for_delta(delta)) for k in grid[:-1]] + [final]
    # Epsilon never falls, so what bounds a later point bounds every earlier one.
    falling = list(itertools.accumulate(reversed(bounds), min))
    return EpsilonCurve(steps=tuple(grid), epsilons=tuple(reversed(falling)))
