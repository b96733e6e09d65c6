"""The loop: what it computes, what it tells, and when it stops."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from clipwise.training import Measured, NonFiniteLoss, Progressed, ShuffledMean
from tests.core.training.samples import FEATURES, made_up, mechanism, model, trainer


def shuffled() -> ShuffledMean:
    return ShuffledMean(batch_size=20, seed=3)


@pytest.mark.parametrize("rule", [None, 0.3])
def test_a_step_is_the_mean_of_clipped_gradients(rule: float | None) -> None:
    """Against a loop over single rows, for logical batches cut into physical ones."""
    rows, trained = made_up(), model(dtype=torch.float64)
    before = [p.detach().clone() for p in trained.module.parameters()]
    drawn = shuffled().draw(150)
    total = [torch.zeros_like(p) for p in before]
    for i in drawn:
        logits = trained.module(torch.from_numpy(rows.inputs[i : i + 1]).double())
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(rows.targets[i : i + 1]))
        gradient = torch.autograd.grad(loss, list(trained.module.parameters()))
        norm = math.sqrt(sum(float(g.square().sum()) for g in gradient))
        factor = 1.0 if rule is None else min(1.0, rule / norm)
        total = [t + factor * g for t, g in zip(total, gradient, strict=True)]
    run = trainer(
        shuffled(),
        trained=trained,
        rows=rows,
        steps=1,
        physical=7,
        private=False,
        rule=rule,
        dtype=torch.float64,
    )
    list(run.run())
    for parameter, start, summed in zip(trained.module.parameters(), before, total, strict=True):
        assert torch.allclose(parameter, start - 0.5 * summed / 20, rtol=0, atol=1e-7)


@pytest.mark.parametrize("unevaluated", [False, True])
def test_an_evaluation_that_was_broken_off_comes_before_further_steps(unevaluated: bool) -> None:
    run = trainer(mechanism(), steps=5, start=2, unevaluated=unevaluated)
    measured = [
        event.step for event in run.run() if isinstance(event, Measured) and "eval/loss" in event.values
    ]
    assert measured == [2, 4, 5] if unevaluated else [4, 5]


def test_progress_comes_first_and_last_and_epsilon_is_released() -> None:
    events = list(trainer(mechanism(), steps=5).run())
    progress = [event for event in events if isinstance(event, Progressed)]
    assert (progress[0].step, progress[0].epsilon) == (0, 0.0)
    assert (progress[-1].step, progress[-1].steps, progress[-1].epsilon) == (5, 5, 1.0)
    assert progress[-1] is events[-1]
    measured = [event for event in events if isinstance(event, Measured)]
    for event in measured:
        assert event.released == (set(event.values) == {"privacy/epsilon"})
    exact = {name for event in measured if not event.released for name in event.values}
    assert {
        "train/loss",
        "train/gradient_norm_mean",
        "train/gradient_norm_max",
        "train/gradient_norm_p50",
        "train/gradient_norm_p90",
        "train/clip_fraction",
        "eval/accuracy",
        "eval/loss",
    } <= exact
    assert [e.step for e in measured if "eval/loss" in e.values] == [2, 4, 5]


def test_it_learns_without_privacy() -> None:
    events = list(trainer(shuffled(), steps=300, private=False, rule=None).run())
    last = [
        e.values["eval/accuracy"] for e in events if isinstance(e, Measured) and "eval/accuracy" in e.values
    ]
    assert last[-1] > 0.8
    assert not any(e.released for e in events if isinstance(e, Measured))


def test_a_stop_ends_it_between_two_steps() -> None:
    said: list[bool] = []
    run = trainer(mechanism(), steps=10_000, before_step=lambda _: not said)
    steps = []
    for event in run.run():
        if isinstance(event, Progressed):
            steps.append(event.step)
        if isinstance(event, Measured) and event.step >= 4:
            said.append(True)
    assert 4 <= steps[-1] <= 6


class Counted:
    """A mechanism that counts its steps."""

    def __init__(self) -> None:
        self.steps = 0
        self._of = shuffled()

    def draw(self, rows: int) -> Any:
        self.steps += 1
        return self._of.draw(rows)

    def average(self, sums: Any, realised: int) -> Any:
        return self._of.average(sums, realised)


@pytest.mark.parametrize("calls", range(1, 12))
def test_a_stop_at_any_moment_is_told_with_every_step_that_was_made(calls: int) -> None:
    asked = 0

    def stopping() -> bool:
        nonlocal asked
        asked += 1
        return asked > calls

    draws = Counted()
    run = trainer(draws, steps=10_000, stopping=stopping, before_step=lambda _: not stopping())
    steps = [event.step for event in run.run() if isinstance(event, Progressed)]
    assert steps[-1] == draws.steps
    assert steps == sorted(set(steps))


def test_a_loss_that_is_not_finite_fails_without_privacy_only() -> None:
    rows = made_up()
    rows.inputs[:150] = np.full((150, FEATURES), np.inf, np.float32)
    with pytest.raises(NonFiniteLoss, match="learning_rate"):
        list(trainer(shuffled(), rows=rows, private=False, rule=None).run())
    run = trainer(mechanism(), rows=rows)
    assert isinstance(list(run.run())[-1], Progressed)
    assert all(p.isfinite().all() for p in run.model.parameters.values())


def test_the_same_seed_gives_the_same_weights_without_privacy() -> None:
    def weights() -> list[float]:
        trained = model(seed=5)
        list(trainer(shuffled(), trained=trained, steps=8, private=False).run())
        return [float(x) for p in trained.module.parameters() for x in p.detach().flatten()]

    assert weights() == weights()


def test_every_step_is_measured_however_fast_it_is() -> None:
    events = list(trainer(shuffled(), steps=60, private=False, rule=None).run())
    measured = [e.step for e in events if isinstance(e, Measured) and "train/loss" in e.values]
    assert measured == list(range(1, 61))
