"""The Poisson-subsampled Gaussian mechanism: coins, noise, divisor."""

import math

import numpy as np
import pytest
from scipy import stats

from clipwise.privacy import PoissonGaussian


def mechanism(**changes: float) -> PoissonGaussian:
    numbers = {
        "sampling_rate": 0.1,
        "noise_multiplier": 2.0,
        "sensitivity": 1.5,
        "expected_batch_size": 64.0,
    }
    return PoissonGaussian(**{**numbers, **changes})


@pytest.mark.parametrize("rate", [1e-4, 0.01, 0.3, 0.34, 0.9, 1.0])
def test_every_row_has_a_coin_of_its_own(rate: float) -> None:
    """Counts per row and per batch are binomial, and neighbouring rows are independent."""
    rows, draws = 50, 4000
    sampler = mechanism(sampling_rate=rate)
    heads = np.zeros((draws, rows), dtype=np.int64)
    for draw in heads:
        positions = sampler.draw(rows)
        assert (np.diff(positions) > 0).all()
        draw[positions] = 1
    if rate == 1.0:
        assert heads.all()
        return
    for column in (heads[:, 0], heads[:, rows // 2], heads[:, -1]):
        assert stats.binomtest(int(column.sum()), draws, rate).pvalue > 1e-6
    assert stats.binomtest(int(heads.sum()), heads.size, rate).pvalue > 1e-6
    if draws * rate > 20:
        chi2 = ((heads.sum(axis=0) - draws * rate) ** 2 / (draws * rate * (1 - rate))).sum()
        assert 1e-6 < stats.chi2.cdf(chi2, rows) < 1 - 1e-6
    variance = rows * rate * (1 - rate)
    assert abs(heads.sum(axis=1).var() / variance - 1) < 6 * math.sqrt((2 + 1 / variance) / draws)
    both = int((heads[:, :-1] & heads[:, 1:]).sum())
    pairs = draws * (rows - 1)
    assert abs(both - pairs * rate**2) < 6 * math.sqrt(pairs * rate**2 * (1 + 2 * rate)) + 1


def test_the_cost_of_a_draw_does_not_grow_with_the_rows() -> None:
    drawn = mechanism(sampling_rate=1e-7).draw(10**9)
    assert 30 < len(drawn) < 200
    assert drawn.max() < 10**9


@pytest.mark.parametrize("rows", [0, 1])
def test_few_rows(rows: int) -> None:
    for _ in range(100):
        assert len(mechanism().draw(rows)) <= rows


def test_noise_is_gaussian_on_the_sum_and_divided_once_by_the_expected_size() -> None:
    released = mechanism()
    zero = np.zeros(200_000, np.float32)
    average = released.average({"w": zero}, realised=3)["w"]
    assert average.dtype == np.float64
    std = 2.0 * 1.5 / 64.0
    assert average.std() == pytest.approx(std, rel=0.01)
    assert abs(average.mean()) < 6 * std / math.sqrt(zero.size)
    assert stats.kstest(average / std, "norm").pvalue > 1e-6
    shifted = released.average({"w": zero + 640.0}, realised=3)["w"]
    assert shifted.mean() == pytest.approx(10.0, abs=6 * std / math.sqrt(zero.size))


def test_the_mechanism_tells_its_own_epsilon() -> None:
    found = mechanism(sampling_rate=0.01, noise_multiplier=1.0).epsilon(steps=1000, delta=1e-5)
    assert found == pytest.approx(1.828, abs=1e-3)


@pytest.mark.parametrize("name", ["noise_multiplier", "sensitivity", "expected_batch_size", "sampling_rate"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_numbers_outside_of_their_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        mechanism(**{name: value})
