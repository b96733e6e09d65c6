import math
from typing import Any

import numpy as np
import pytest
import torch
from tests import reference
from torch import Tensor, nn

from clipwise.clipping.losses import LOSSES, cross_entropy, mse
from clipwise.errors import InvalidInput
from clipwise.models import Gradients, Model, TorchModel
from clipwise.schedules import FlatClip


def model_and_batch(rows: int = 6) -> tuple[TorchModel, Tensor, Tensor]:
    torch.manual_seed(2)
    module = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    return TorchModel(module, "cross_entropy"), torch.randn(rows, 4).double(), torch.randint(3, (rows,))


def averaged(model: TorchModel, batch: Any, bound: float | None, divisor: float) -> dict[str, Tensor]:
    values, _ = reference.clipped_sum(model.module, cross_entropy, batch, bound)
    return {name: value / divisor for name, value in values.items()}


def assert_close(found: Gradients, expected: dict[str, Tensor]) -> None:
    assert list(found.values) == list(expected)
    for name, value in expected.items():
        assert reference.relative_error(found.values[name], value) < 1e-10


@pytest.mark.parametrize("bound", [None, 0.2, FlatClip(max_norm=0.2)])
@pytest.mark.parametrize("divisor", [None, 12.5])
@pytest.mark.parametrize("microbatch_size", [None, 2])
def test_gradients_are_averages(bound: Any, divisor: float | None, microbatch_size: int | None) -> None:
    model, x, y = model_and_batch()
    model = TorchModel(model.module, "cross_entropy", microbatch_size=microbatch_size)
    weights = torch.tensor([1.0, 2, 0.5, 0, 1, 1]).double()
    found = model.compute_batch_gradients((x, y, weights), bound, divisor=divisor)
    norm = None if bound is None else 0.2
    assert_close(found, averaged(model, (x, y, weights), norm, divisor or 6))
    assert found.divisor == (divisor or 6)
    losses = cross_entropy(model.module(x), y).detach()
    losses[3] = 0
    assert torch.allclose(found.sample_losses, losses)
    if bound is None:
        assert (found.sample_norms, found.clip_factors, found.sensitivity) == (None, None, None)
    else:
        assert found.sample_norms.shape == found.clip_factors.shape == (6,)
        assert found.sensitivity == 0.2
        assert float((found.sample_norms * found.clip_factors).max()) <= 0.2 * (1 + 1e-9)


def test_a_bound_that_nothing_reaches_gives_the_ordinary_gradient() -> None:
    model, x, y = model_and_batch()
    ordinary, clipped = (model.compute_batch_gradients((x, y), bound) for bound in (None, 1e6))
    assert_close(clipped, ordinary.values)


def test_groups_are_one_unit() -> None:
    model, x, y = model_and_batch()
    weights = torch.ones(6).double()
    values, norms = reference.clipped_sum(model.module, cross_entropy, (x, y, weights), 0.2, group=2)
    found = model.compute_batch_gradients((x, y), 0.2, groups=2, divisor=1.0)
    assert_close(found, values)
    assert torch.allclose(found.sample_norms, norms)
    with pytest.raises(InvalidInput, match="groups is 0"):
        model.compute_batch_gradients((x, y), 0.2, groups=0)


@pytest.mark.parametrize("bound", [None, 1.0])
@pytest.mark.parametrize("divisor", [None, 32.0])
def test_an_empty_batch_gives_zeros(bound: float | None, divisor: float | None) -> None:
    model, x, y = model_and_batch()
    found = model.compute_batch_gradients((x[:0], y[:0]), bound, divisor=divisor)
    assert found.values.keys() == model.parameters.keys()
    assert all(bool((value == 0).all()) for value in found.values.values())
    assert found.sample_losses.shape == (0,)
    assert found.nonfinite == 0


@pytest.mark.parametrize("divisor", [0, -1.0, math.nan, math.inf, True])
def test_a_divisor_must_be_positive(divisor: float) -> None:
    model, x, y = model_and_batch()
    with pytest.raises(InvalidInput, match="divisor is"):
        model.compute_batch_gradients((x, y), 1.0, divisor=divisor)


@pytest.mark.parametrize("bound", [None, 1.0])
def test_rows_that_are_not_finite_count_as_zero(bound: float | None) -> None:
    model, x, y = model_and_batch()
    x[1], x[4] = math.nan, math.inf
    found = model.compute_batch_gradients((x, y), bound, divisor=6)
    rows = [0, 2, 3, 5]
    assert found.nonfinite == 2
    assert_close(found, model.compute_batch_gradients((x[rows], y[rows]), bound, divisor=6).values)


def test_the_values_are_the_callers_own() -> None:
    model, x, y = model_and_batch()
    first = model.compute_batch_gradients((x, y), 1.0)
    for value in first.values.values():
        value.add_(torch.randn_like(value))
    second = model.compute_batch_gradients((x, y), 1.0)
    assert not torch.equal(first.values["0.weight"], second.values["0.weight"])
    noised = second.with_values({name: value + 1 for name, value in second.values.items()})
    assert torch.equal(noised.values["0.bias"], second.values["0.bias"] + 1)
    assert noised.divisor == second.divisor


def test_ordinary_training_is_ordinary_torch_batch_norm_included() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 1))
    x, y = torch.randn(8, 4), torch.randn(8, 1)
    expected = torch.autograd.grad((module(x) - y).square().mean(), list(module.parameters()))
    found = TorchModel(module, "mse").compute_batch_gradients((x, y))
    assert int(module[1].num_batches_tracked) == 2
    for value, gradient in zip(found.values.values(), expected, strict=True):
        assert torch.allclose(value, gradient, atol=1e-6)
    assert all(parameter.grad is None for parameter in module.parameters())


def test_prediction_and_losses_are_of_evaluation_and_the_mode_is_put_back() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 30), nn.Dropout(0.5), nn.BatchNorm1d(30).eval(), nn.Linear(30, 2))
    model, x, y = TorchModel(module, mse, microbatch_size=2), torch.randn(5, 4), torch.randn(5, 2)
    flags = [part.training for part in module.modules()]
    outputs = model.predict(x)
    assert torch.equal(outputs, model.predict(x))
    assert not outputs.requires_grad
    assert [part.training for part in module.modules()] == flags == [True, True, True, False, True]
    assert torch.allclose(model.compute_losses((x, y)), (outputs - y).square().mean(1))
    assert model.predict(x[:0]).shape == (0, 2)
    assert model.compute_losses((x[:0], y[:0])).shape == (0,)
    module[0].register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.predict(x)
    assert [part.training for part in module.modules()] == flags


def test_updates_are_added_and_must_be_complete() -> None:
    module = nn.Linear(2, 1)
    module.bias.requires_grad_(False)
    model = TorchModel(module, "mse")
    before, bias = module.weight.detach().clone(), module.bias.clone()
    model.apply_updates({"weight": torch.ones(1, 2)})
    assert torch.equal(module.weight, before + 1)
    assert torch.equal(module.bias, bias)
    assert list(model.parameters) == ["weight"]
    for wrong in ({}, {"weight": torch.ones(1, 2), "bias": torch.ones(1)}):
        with pytest.raises(InvalidInput, match="trainable parameters"):
            model.apply_updates(wrong)


def test_a_flag_flipped_between_steps_is_seen() -> None:
    model, x, y = model_and_batch()
    assert len(model.compute_batch_gradients((x, y), 1.0).values) == 4
    model.module[0].weight.requires_grad_(False)
    found = model.compute_batch_gradients((x, y), 1.0)
    assert found.values.keys() == model.parameters.keys() == {"0.bias", "2.weight", "2.bias"}


def test_batches_may_be_numpy() -> None:
    model, x, y = model_and_batch()
    found = model.compute_batch_gradients((x.numpy(), y.numpy(), np.ones(6)), 1.0)
    assert_close(found, model.compute_batch_gradients((x, y), 1.0).values)
    assert isinstance(model, Model)


def test_memory_bounds_the_chunks_and_not_the_result() -> None:
    model, x, y = model_and_batch(20)
    expected = model.compute_batch_gradients((x, y), 0.1).values
    for size in (1, 5_000):
        small = TorchModel(model.module, "cross_entropy", memory_limit=size)
        assert_close(small.compute_batch_gradients((x, y), 0.1), expected)


def test_a_microbatch_size_is_proposed_for_a_memory_limit() -> None:
    module, x, y = nn.Linear(1000, 300), torch.randn(64, 1000), torch.randint(300, (64,))
    sizes = [
        TorchModel(module, "cross_entropy", memory_limit=limit).propose_microbatch_size((x, y))
        for limit in (1, 40_000, 80_000, 2**30)
    ]
    assert sizes[0] == 1
    assert sizes[0] < sizes[1] < sizes[2] < sizes[3] == 64
    given = TorchModel(module, "cross_entropy", microbatch_size=10)
    assert given.propose_microbatch_size((x, y)) == 10
    assert given.propose_microbatch_size((x, y), groups=4) == 8
    for groups in (1, 8):  # what a row needs says nothing of units
        model = TorchModel(nn.Linear(1000, 300), "mse", memory_limit=300_000)
        alone = TorchModel(nn.Linear(1000, 300), "mse", memory_limit=300_000)
        rows = (torch.randn(64, 1000), torch.randn(64, 300))
        model.propose_microbatch_size(rows)
        assert model.propose_microbatch_size(rows, groups) == alone.propose_microbatch_size(rows, groups)


@pytest.mark.parametrize(
    ("name", "outputs", "targets"),
    [
        ("cross_entropy", (4, 3), torch.tensor([0, 1, 2, 0])),
        ("binary_cross_entropy", (4, 1), torch.tensor([0, 1, 1, 0])),
        ("mse", (4, 1), torch.randn(4)),
        ("mae", (4,), torch.randn(4, 1)),
        ("huber", (4, 2), torch.randn(4, 2)),
    ],
)
def test_named_losses_give_one_number_for_each_row(
    name: str, outputs: tuple[int, ...], targets: Tensor
) -> None:
    made = torch.randn(outputs)
    losses = LOSSES[name](made, targets)
    assert losses.shape == (4,)
    for i in range(4):
        assert torch.allclose(LOSSES[name](made[i : i + 1], targets[i : i + 1]), losses[i : i + 1])


def test_cross_entropy_averages_over_a_rows_own_positions() -> None:
    outputs, targets = torch.randn(2, 5, 3), torch.tensor([[0, 1, 2], [4, -100, -100]])
    losses = cross_entropy(outputs, targets)
    alone = cross_entropy(outputs[1:, :, 0], targets[1:, 0])
    assert torch.allclose(losses[1:], alone)
    assert cross_entropy(outputs, torch.full((2, 3), -100)).tolist() == [0, 0]


def test_mismatched_targets_do_not_broadcast() -> None:
    with pytest.raises(InvalidInput, match="one target for each output"):
        mse(torch.zeros(4, 2), torch.zeros(4))
    with pytest.raises(InvalidInput, match="unknown loss 'nll'; known: binary_cross_entropy"):
        TorchModel(nn.Linear(1, 1), "nll")
    with pytest.raises(InvalidInput, match="microbatch_size is 0"):
        TorchModel(nn.Linear(1, 1), "mse", microbatch_size=0)
