"""Ways to lose the guarantee, by number, as far as this version has what they are about.

Those of the gradient itself (7 to 13, 15, 38) are tested with the clipping engine, those of budgets and
ledgers come with them.
"""

import dataclasses
import inspect
from typing import Any

import dp_accounting
import numpy as np
import numpy.typing as npt
import pytest
import torch

from clipwise.privacy import PoissonGaussian, accountant, calibrate, private_statement
from clipwise.training import Measured, Progressed, split
from tests.core.training.samples import FEATURES, made_up, mechanism, model, trainer


class Fixed:
    """A mechanism whose coins and noise are recorded, and whose batches can be given."""

    def __init__(self, batches: list[list[int]], inner: PoissonGaussian | None = None) -> None:
        self.inner = inner or mechanism()
        self.batches = [np.array(batch, dtype=np.int64) for batch in batches]
        self.sums: list[dict[str, npt.NDArray[Any]]] = []

    def draw(self, rows: int) -> npt.NDArray[np.int64]:
        assert max(self.batches[len(self.sums)], default=0) < rows
        return self.batches[len(self.sums)]

    def average(self, sums: Any, realised: int) -> Any:
        self.sums.append({name: value.copy() for name, value in sums.items()})
        return self.inner.average(sums, realised)


def test_01_sampler_and_accounting_are_one_object() -> None:
    """The event has the very rate of the coins and the very noise of the sums."""
    one = mechanism(sampling_rate=0.037, noise_multiplier=1.234)
    assert one.event(17) == dp_accounting.SelfComposedDpEvent(
        dp_accounting.PoissonSampledDpEvent(0.037, dp_accounting.GaussianDpEvent(1.234)), 17
    )
    sizes = [len(one.draw(1000)) for _ in range(2000)]
    assert np.mean(sizes) == pytest.approx(37, rel=0.02)
    assert np.var(sizes) == pytest.approx(1000 * 0.037 * 0.963, rel=0.2)  # a shuffled sampler has none
    noise = one.average({"w": np.zeros(100_000)}, 0)["w"] * one.expected_batch_size
    assert noise.std() == pytest.approx(1.234 * one.sensitivity, rel=0.02)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.sampling_rate = 0.5  # type: ignore[misc]


def test_02_the_rate_does_not_depend_on_the_rows() -> None:
    for rows in (999, 1000, 1001):
        sizes = [len(mechanism(sampling_rate=0.1).draw(rows)) for _ in range(1000)]
        assert np.mean(sizes) == pytest.approx(0.1 * rows, rel=0.05)


def test_03_the_sum_is_divided_by_the_expected_size() -> None:
    quiet = mechanism(noise_multiplier=1e-12, expected_batch_size=20.5)
    sums = {"w": np.full(4, 41.0, np.float32)}
    for realised in (0, 1, 20, 1000):
        assert quiet.average(sums, realised)["w"] == pytest.approx([2.0] * 4)


def test_04_an_empty_batch_is_a_noisy_step_like_any_other() -> None:
    run = trainer(Fixed([[], [], []]))
    before = {name: p.detach().clone() for name, p in run.model.parameters.items()}
    events = list(run.run())
    for name, parameter in run.model.parameters.items():
        assert parameter.isfinite().all()
        assert not torch.equal(parameter, before[name])
    assert isinstance(events[-1], Progressed)
    assert events[-1].step == 3
    assert run.mechanism.sums[0]["weight"].any() == np.False_  # type: ignore[attr-defined]


def test_05_the_number_of_steps_is_fixed_beforehand() -> None:
    fixed = Fixed([[], list(range(150)), [0], list(range(100)), []])
    *_, last = trainer(fixed, steps=5).run()
    assert isinstance(last, Progressed)
    assert (last.step, len(fixed.sums)) == (5, 5)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e38])
def test_06_a_row_without_a_finite_gradient_counts_as_zero(value: float) -> None:
    clean, dirty = made_up(), made_up()
    dirty.inputs[3] = np.full(FEATURES, value, np.float32)
    sums = []
    for rows, batch in ((clean, [1, 2]), (dirty, [1, 2, 3])):
        fixed = Fixed([batch])
        list(trainer(fixed, rows=rows, steps=1).run())
        sums.append(fixed.sums[0])
    change = sum(float(np.square(sums[0][n] - sums[1][n]).sum()) for n in sums[0]) ** 0.5
    # Either it counts as zero, or its gradient is finite and then it is clipped.
    assert change <= 1.0 + 1e-6
    assert all(np.isfinite(value).all() for value in sums[1].values())


def test_14_one_noise_draw_for_a_logical_batch_and_any_physical_size() -> None:
    """The sums that noise is added to do not depend on how a logical batch was cut; noise comes once."""
    seen = []
    for physical in (1, 7, 64):
        fixed = Fixed([list(range(50))] * 2)
        list(
            trainer(
                fixed, trained=model(dtype=torch.float64), physical=physical, steps=2, dtype=torch.float64
            ).run()
        )
        assert len(fixed.sums) == 2
        seen.append(fixed.sums[0])
    for other in seen[1:]:
        for name, value in seen[0].items():
            assert other[name] == pytest.approx(value, abs=1e-10)


def test_17_noise_is_never_reused_over_tensors_or_steps() -> None:
    one = mechanism()
    zero = np.zeros((50, 20))
    draws = [one.average({"a": zero, "b": zero}, 0)[name].ravel() for _ in range(3) for name in "ab"]
    draws += [mechanism().average({"a": zero}, 0)["a"].ravel()]
    together = np.stack(draws)
    correlation = np.corrcoef(together) - np.eye(len(draws))
    assert np.abs(correlation).max() < 0.2
    assert len(np.unique(together)) == together.size


def test_18_a_users_seed_reaches_neither_noise_nor_sampling() -> None:
    """Everything that a user or a library could seed is seeded twice alike; coins and noise differ."""
    coins, noise, weights = [], [], []
    for _ in range(2):
        np.random.seed(1)
        torch.manual_seed(1)
        one = mechanism()
        coins.append([one.draw(1000).tolist() for _ in range(3)])
        noise.append(one.average({"w": np.zeros(5)}, 0)["w"].tolist())
        trained = model(seed=1)
        list(trainer(mechanism(), trained=trained, steps=1).run())
        weights.append([float(x) for p in trained.module.parameters() for x in p.detach().flatten()])
    assert coins[0] != coins[1]
    assert noise[0] != noise[1]
    assert weights[0] != weights[1]
    assert "seed" not in inspect.signature(PoissonGaussian).parameters
    assert "Generator" not in repr(mechanism())


def test_21_what_is_exact_is_never_called_released() -> None:
    for event in trainer(mechanism(), steps=4).run():
        if isinstance(event, Measured) and event.released:
            assert set(event.values) == {"privacy/epsilon"}
        if isinstance(event, Progressed):
            # Speed is told by the public batch size, so that it does not tell the realised one.
            assert event.step == 0 or event.samples_per_second > 0


def statement(**more: Any) -> dict[str, Any]:
    return private_statement(
        mechanism(),
        clipping={"kind": "flat", "max_norm": 1.0},
        steps=10,
        epsilon=2.99961,
        delta=1e-5,
        accountant_version="0.6.0",
        **more,
    )


def test_24_adjacency_is_zero_out_and_stated() -> None:
    said = statement()
    assert said["adjacency"]["kind"] == "zero_out"
    assert said["accountant"]["neighboring_relation"] == "REPLACE_SPECIAL"
    assert "number of rows is public" in said["adjacency"]["explanation"]


def test_25_26_what_was_read_off_the_rows_is_named_outside() -> None:
    said = statement(from_rows=("bounds or categories of 'age'", "classes"))
    assert any("'age'" in line for line in said["outside"])
    assert any("classes" in line for line in said["outside"])


def test_27_people_with_several_rows_are_named_outside() -> None:
    assert any("several rows" in line for line in statement(unit_rows=4)["outside"])
    assert not any("several rows" in line for line in statement()["outside"])
    assert statement()["unit"] == {"kind": "row", "max_rows": 1}


def test_30_noise_is_never_rounded_down() -> None:
    noise = calibrate(target_epsilon=2.0, delta=1e-5, sampling_rate=0.25, steps=60)
    epsilon = accountant.epsilon(noise_multiplier=noise, sampling_rate=0.25, steps=60, delta=1e-5)
    assert epsilon <= 2.0
    made = mechanism(noise_multiplier=noise, sampling_rate=0.25)
    assert made.noise_multiplier == noise
    said = private_statement(
        made,
        clipping={"kind": "flat", "max_norm": made.sensitivity},
        steps=60,
        epsilon=epsilon,
        delta=1e-5,
        accountant_version="0.6.0",
    )
    assert said["mechanism"]["noise_multiplier"] == noise
    assert said["guarantee"]["epsilon"] == epsilon
    assert "(3, 1e-05)" in statement()["guarantee"]["summary"]  # 2.99961, rounded up


def test_31_the_claim_is_above_what_is_known_to_be_true() -> None:
    """A Gaussian without sampling has a closed form (Balle and Wang 2018); the accountant is above it."""
    from scipy.stats import norm

    for sigma, steps in ((20.0, 100), (2.0, 1)):
        mu = steps**0.5 / sigma
        epsilon = accountant.epsilon(noise_multiplier=sigma, sampling_rate=1.0, steps=steps, delta=1e-5)
        true_delta = norm.cdf(mu / 2 - epsilon / mu) - np.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)
        assert true_delta <= 1e-5
        assert true_delta > 0.9e-5


def test_39_batches_have_one_padded_size_and_the_split_moves_no_row() -> None:
    rows = made_up()
    shapes: set[tuple[int, ...]] = set()
    run = trainer(mechanism(sampling_rate=0.3), rows=rows, steps=20, physical=16)
    for _ in range(50):
        for inputs, _, weights in run.batches.cut(run.mechanism.draw(len(run.batches))):
            shapes |= {tuple(inputs.shape), tuple(weights.shape)}
    assert shapes == {(16, FEATURES), (16,)}
    train, _ = split(1000, 0.2, seed=3)
    longer, _ = split(2000, 0.2, seed=3)
    assert np.array_equal(train, longer[longer < 1000])
