"""The smallest noise that keeps a promise: noise multiplier from a target epsilon."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypedDict

from clipwise.errors import InvalidSpec, Problem
from clipwise.privacy import accountant

SMALLEST_NOISE = 0.1
LARGEST_NOISE = 10_000.0
TOLERANCE = 1e-3
"""The epsilon that is reached lies in [target * (1 - TOLERANCE), target]."""


@dataclass(frozen=True, kw_only=True)
class NoiseRequest:
    """What noise is asked for: one of `target_epsilon` and `noise_multiplier`, and public numbers.

    Plain and hashable: it is what a calibration is cached by, and it travels to other processes.
    """

    target_epsilon: float | None
    noise_multiplier: float | None
    delta: float
    sampling_rate: float
    steps: int


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The noise that a request comes to.

    Attributes:
        noise_multiplier: the noise's standard deviation in units of the clip rule's sensitivity.
        epsilon: what all steps together spend at the request's delta, by the accountant.
        curve: an upper bound of what has been spent after so many steps.
        accountant: version of `dp_accounting`.
    """

    noise_multiplier: float
    epsilon: float
    curve: accountant.EpsilonCurve
    accountant: str


def settle(request: NoiseRequest) -> Calibration:
    """Find the noise for `request`, its epsilon and its curve. Takes up to seconds, and imports SciPy.

    Raises:
        InvalidSpec: if the target is out of reach, or the numbers give no protection worth the name.
    """
    if request.delta < accountant.MIN_DELTA:
        raise _refusal(
            "/privacy/delta",
            f"delta {request.delta:g} is below {accountant.MIN_DELTA:g}, where the accountant's rounding is "
            f"no longer negligible; give {accountant.MIN_DELTA:g} or more",
        )
    noise_multiplier = request.noise_multiplier
    if noise_multiplier is None:
        if request.target_epsilon is None:
            raise ValueError("a NoiseRequest has a target_epsilon or a noise_multiplier")
        noise_multiplier = calibrate(
            target_epsilon=request.target_epsilon,
            delta=request.delta,
            sampling_rate=request.sampling_rate,
            steps=request.steps,
        )
    numbers: _Numbers = {
        "noise_multiplier": noise_multiplier,
        "sampling_rate": request.sampling_rate,
        "steps": request.steps,
        "delta": request.delta,
    }
    epsilon = accountant.epsilon(**numbers)
    if not epsilon <= accountant.MAX_EPSILON:
        raise _refusal(
            "/privacy/noise_multiplier",
            f"noise_multiplier {noise_multiplier:g} gives an epsilon beyond {accountant.MAX_EPSILON:g}, "
            "which protects nobody; raise it, or lower steps or batch_size",
        )
    return Calibration(
        noise_multiplier=noise_multiplier,
        epsilon=epsilon,
        curve=accountant.curve(**numbers, final=epsilon),
        accountant=accountant.installed_version(),
    )


class _Numbers(TypedDict):
    noise_multiplier: float
    sampling_rate: float
    steps: int
    delta: float


def _refusal(pointer: str, detail: str) -> InvalidSpec:
    return InvalidSpec(detail, (Problem(pointer=pointer, detail=detail, code="out_of_reach"),))


def calibrate(*, target_epsilon: float, delta: float, sampling_rate: float, steps: int) -> float:
    """Return the smallest noise multiplier whose epsilon does not exceed `target_epsilon`.

    It errs to the safe side: the number that is returned was itself given to the accountant, at the
    accountant's default precision, and its epsilon is at most the target and at least 99.9% of it
    (less only where `SMALLEST_NOISE` is already enough). It is never rounded afterwards.

    Raises:
        InvalidSpec: if no noise multiplier up to `LARGEST_NOISE` is enough.
    """

    def epsilon_at(noise_multiplier: float, interval: float) -> float:
        return accountant.epsilon(
            noise_multiplier=noise_multiplier,
            sampling_rate=sampling_rate,
            steps=steps,
            delta=delta,
            interval=interval,
        )

    # What a Gaussian approximation would say. Starting high is cheap, starting low needs large arrays.
    guess = 1 + 2 * sampling_rate * math.sqrt(steps * math.log(1 / delta)) / target_epsilon
    guess = min(guess, LARGEST_NOISE)
    interval = accountant.cheap_interval(
        noise_multiplier=guess,
        sampling_rate=sampling_rate,
        steps=steps,
        delta=delta,
        epsilon=target_epsilon,
    )
    fine = partial(epsilon_at, interval=accountant.DEFAULT_INTERVAL)
    if interval > accountant.DEFAULT_INTERVAL:
        # Coarse epsilons are too large, so even a failure of theirs is not the last word.
        guess = _solve(partial(epsilon_at, interval=interval), target_epsilon, guess) or LARGEST_NOISE
    found = _solve(fine, target_epsilon, guess)
    if found is not None:
        return found
    least = fine(LARGEST_NOISE)
    raise _refusal(
        "/privacy/target_epsilon",
        f"target_epsilon {target_epsilon:g} is out of reach: with {steps} steps at sampling rate "
        f"{sampling_rate:g} even the noise multiplier {LARGEST_NOISE:g} gives epsilon {least:.3g} at delta "
        f"{delta:g}; raise target_epsilon or delta, or lower steps or batch_size",
    )


def _solve(epsilon_at: Callable[[float], float], target: float, guess: float) -> float | None:
    """Find a noise multiplier with epsilon in [target * (1 - TOLERANCE), target], or None.

    Epsilon falls with the noise, nearly as a power of it: secants in logarithms, kept inside the
    bracket that is known so far, and moving down by at most a factor of two at a time.
    """
    goal = math.log(target * (1 - TOLERANCE / 2))
    floor, ceiling = math.log(SMALLEST_NOISE), math.log(LARGEST_NOISE)
    low: tuple[float, float] | None = None  # (log noise, log epsilon) with too much epsilon
    high: tuple[float, float] | None = None  # the same with epsilon at most the target
    here = math.log(guess)
    for _ in range(100):
        noise = math.exp(here)
        reached = epsilon_at(noise)
        if target * (1 - TOLERANCE) <= reached <= target:
            return noise
        point = (here, math.log(min(max(reached, target * 1e-9), 1e300)))
        if reached > target:
            if here >= ceiling:
                return None
            low = point
        else:
            if here <= floor:
                return noise
            high = point
        here = min(max(_next(low, high, goal, math.isinf(reached)), floor), ceiling)
    # Epsilon is finite in steps here: what is known to be enough is returned, never less.
    return None if high is None else math.exp(high[0])


def _next(
    low: tuple[float, float] | None, high: tuple[float, float] | None, goal: float, beyond: bool
) -> float:
    if low is None or high is None:
        here, value = low or high or (0.0, goal)
        wanted = value - goal  # a power of -1 is what epsilon follows at large noise
        return here + math.log(2) if beyond else here + min(max(wanted, -math.log(2)), math.log(16))
    width = high[0] - low[0]
    secant = low[0] + width * (low[1] - goal) / (low[1] - high[1])
    # Never closer to an end than a fiftieth: a secant that keeps one end does not converge.
    return min(max(secant, low[0] + width / 50), high[0] - width / 50)
