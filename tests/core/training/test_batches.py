"""Physical batches, the split, shuffled epochs and evaluation."""

import numpy as np
import pytest
import torch

from clipwise.models import TorchModel
from clipwise.training import Evaluation, PhysicalBatches, ShuffledMean, physical_size, split
from tests.core.training.samples import MadeUp, made_up


@pytest.mark.parametrize(
    ("expected", "varies", "microbatch", "size"),
    [
        (128.0, False, None, 128),
        (128.0, True, None, 162),
        (128.0, True, 32, 27),
        (128.0, True, 162, 162),
        (4096.0, False, None, 1024),
        (1024.0, True, None, 560),
        (1.0, True, None, 4),
        (3.0, False, 1, 1),
    ],
)
def test_physical_size(expected: float, varies: bool, microbatch: int | None, size: int) -> None:
    assert physical_size(expected, varies=varies, microbatch_size=microbatch) == size


@pytest.mark.parametrize("count", [0, 1, 7, 8, 20])
def test_every_physical_batch_has_the_same_size_and_every_row_comes_once(count: int) -> None:
    rows = made_up()
    batches = PhysicalBatches(rows, np.arange(50, 150), size=8, dtype=torch.float64)
    drawn = np.random.default_rng(0).permutation(100)[:count]
    pieces = list(batches.cut(drawn))
    assert len(pieces) == max(1, -(-count // 8))
    for inputs, targets, weights in pieces:
        assert inputs.shape == (8, 5)
        assert inputs.dtype == torch.float64
        assert targets.dtype == torch.int64
        assert set(weights.tolist()) <= {0.0, 1.0}
        assert not inputs[weights == 0].any()
    assert sum(int(weights.sum()) for _, _, weights in pieces) == count
    kept = torch.cat([inputs[weights == 1] for inputs, _, weights in pieces])
    assert np.array_equal(kept.float().numpy(), rows.inputs[50 + drawn])


def test_a_row_is_held_out_by_a_coin_of_its_own() -> None:
    train, held = split(100_000, 0.2, seed=7)
    assert sorted([*train, *held]) == list(range(100_000))
    assert abs(len(held) - 20_000) < 6 * (100_000 * 0.16) ** 0.5
    # More rows move none of the others: a permutation would.
    more_train, more_held = split(100_001, 0.2, seed=7)
    assert np.array_equal(more_train[more_train < 100_000], train)
    assert np.array_equal(more_held[more_held < 100_000], held)
    other = split(100_000, 0.2, seed=8)[1]
    assert 0.15 < len(np.intersect1d(held, other)) / len(held) < 0.25
    neighbours = np.isin(held + 1, held).mean()
    assert 0.18 < neighbours < 0.22


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_no_row_is_held_out_of_nothing(seed: int) -> None:
    assert len(split(1000, 0.0, seed)[1]) == 0
    assert [len(part) for part in split(0, 0.5, seed)] == [0, 0]


def test_shuffled_epochs_show_every_row_once_before_any_twice() -> None:
    batches = ShuffledMean(batch_size=7, seed=1)
    drawn = np.concatenate([batches.draw(10) for _ in range(10)])
    for epoch in drawn.reshape(7, 10):
        assert sorted(epoch) == list(range(10))
    again = ShuffledMean(batch_size=7, seed=1)
    assert np.array_equal(drawn[:7], again.draw(10))


def test_a_regression_is_measured_in_the_unit_of_its_target() -> None:
    rows = MadeUp(np.ones((5, 1), np.float32), np.array([0.0, 0.1, 0.2, 0.3, 0.4], np.float32))
    trained = TorchModel(torch.nn.Linear(1, 1), "mse")
    torch.nn.init.zeros_(trained.module.weight)  # type: ignore[arg-type]
    torch.nn.init.zeros_(trained.module.bias)  # type: ignore[arg-type]
    batches = PhysicalBatches(rows, np.arange(5), size=2, dtype=torch.float32)
    measured = Evaluation(batches, loss="mse", target_scale=100.0, every_steps=None).measure(
        trained, lambda: False
    )
    assert measured["eval/mae"] == pytest.approx(20.0, rel=1e-5)
    assert measured["eval/rmse"] == pytest.approx(600**0.5, rel=1e-5)
    assert measured["eval/loss"] == pytest.approx(0.06, rel=1e-5)
