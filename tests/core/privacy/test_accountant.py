"""Epsilon: equal to plain dp_accounting, and never below the truth."""

import math
import time

import dp_accounting
import pytest
from dp_accounting.pld import PLDAccountant

from clipwise.privacy import accountant

SETTINGS = [
    (1.1, 128 / 1437, 300, 1e-4),
    (1.0, 0.01, 1000, 1e-5),
    (5.0, 0.25, 400, 1e-4),
    (30.0, 1.0, 300, 1e-5),
    (1.0, 1.0, 1, 1e-5),
]


def plain(noise_multiplier: float, rate: float, steps: int, delta: float) -> float:
    event = dp_accounting.SelfComposedDpEvent(
        dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(noise_multiplier)), steps
    )
    judge = PLDAccountant(dp_accounting.NeighboringRelation.REPLACE_SPECIAL)
    return float(judge.compose(event).get_epsilon(delta))


@pytest.mark.parametrize(("noise_multiplier", "rate", "steps", "delta"), SETTINGS)
def test_epsilon_is_that_of_plain_dp_accounting(
    noise_multiplier: float, rate: float, steps: int, delta: float
) -> None:
    ours = accountant.epsilon(noise_multiplier=noise_multiplier, sampling_rate=rate, steps=steps, delta=delta)
    assert ours == pytest.approx(plain(noise_multiplier, rate, steps, delta), abs=1e-6)


@pytest.mark.parametrize(("noise_multiplier", "rate", "steps", "delta"), SETTINGS)
def test_the_curve_is_an_upper_bound_and_ends_at_epsilon(
    noise_multiplier: float, rate: float, steps: int, delta: float
) -> None:
    final = plain(noise_multiplier, rate, steps, delta)
    curve = accountant.curve(
        noise_multiplier=noise_multiplier, sampling_rate=rate, steps=steps, delta=delta, final=final
    )
    assert curve.after(0) == 0.0
    assert curve.after(steps) == final
    assert list(curve.epsilons) == sorted(curve.epsilons)
    for step in sorted({1, steps // 7 + 1, steps // 2 + 1, steps} & set(range(steps + 1))):
        # Of a shorter job the same accountant says less, or the same up to its discretisation.
        assert curve.after(step) >= min(plain(noise_multiplier, rate, step, delta) - 1e-4, final)
    with pytest.raises(ValueError, match="beyond"):
        curve.after(steps + 1)


def test_a_loss_beyond_all_protection_is_told_without_large_arrays() -> None:
    started = time.monotonic()
    hopeless = accountant.epsilon(noise_multiplier=0.1, sampling_rate=1.0, steps=1_000_000, delta=1e-5)
    assert hopeless == math.inf
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("sigma", [0.1, 0.5, 3.0, 1000.0])
def test_expected_loss_without_sampling_is_that_of_two_gaussians(sigma: float) -> None:
    loss = accountant.expected_loss(noise_multiplier=sigma, sampling_rate=1.0)
    assert loss == pytest.approx(1 / (2 * sigma**2), rel=1e-6)
