"""What people who keep their own loop use: noise of the right size, and `.grad` without pitfalls."""

from typing import Any

import numpy as np
import pytest
import torch
from tests.core.clipping.settings import Bare, Tied
from torch import Tensor, nn

from clipwise.clipping import clipped_gradients, fill_gradients, private_gradients
from clipwise.errors import InvalidInput
from clipwise.privacy import PoissonGaussian
from clipwise.schedules import PerParameterClip


def mechanism(**changes: float) -> PoissonGaussian:
    numbers = {"sampling_rate": 0.5, "noise_multiplier": 2.0, "sensitivity": 0.5, "expected_batch_size": 8.0}
    return PoissonGaussian(**{**numbers, **changes})


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW, torch.optim.Adagrad])
def test_any_optimizer_of_torch_trains(optimizer: Any) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    steps = optimizer(module.parameters(), lr=0.05)
    inputs = torch.randn(64, 4)
    targets = (inputs @ torch.tensor([1.0, -2.0, 0.5, 0.0])).tanh()

    def error() -> float:
        with torch.no_grad():
            return float((module(inputs).squeeze(1) - targets).square().mean())

    before = error()
    for _ in range(200):
        fill_gradients(module, clipped_gradients(module, "mse", (inputs, targets), 1.0))
        steps.step()
    assert error() < before / 4


def test_gradients_replace_what_was_there_and_leave_the_frozen_alone() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    module[0].requires_grad_(False)
    mark = torch.ones(3, 3)
    module[0].weight.grad = mark
    module[1].weight.grad = torch.full((2, 3), 100.0)
    found = clipped_gradients(module, "mse", (torch.randn(4, 3), torch.randn(4, 2)), 1.0)
    fill_gradients(module, found)
    assert module[0].weight.grad is mark
    assert torch.equal(module[1].weight.grad, found["1.weight"])


def test_a_parameter_that_is_not_used_has_a_gradient_of_zero() -> None:
    module = Bare()
    found = clipped_gradients(module, "mse", (torch.randn(4, 5), torch.randn(4, 3)), 1.0)
    fill_gradients(module, found)
    assert module.unused.grad is not None
    assert module.unused.grad.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("apart", [False, True])
def test_a_tied_storage_is_updated_once(apart: bool) -> None:
    module = Tied(apart=apart)
    before = module.embedding.weight.detach().clone()
    found = clipped_gradients(
        module, "cross_entropy", (torch.randint(7, (4, 3)), torch.randint(7, (4,))), 1.0
    )
    fill_gradients(module, found)
    torch.optim.SGD(module.parameters(), lr=1.0).step()
    assert torch.allclose(module.embedding.weight.detach(), before - found["embedding.weight"])
    assert module.head.weight.data_ptr() == module.embedding.weight.data_ptr()


def test_a_gradient_takes_the_type_of_its_parameter() -> None:
    module = nn.Linear(3, 2).to(torch.bfloat16)
    batch = (torch.randn(4, 3).bfloat16(), torch.randn(4, 2).bfloat16())
    found = clipped_gradients(module, "mse", batch, 1.0)
    assert found["weight"].dtype == torch.float32
    fill_gradients(module, {name: value.numpy() for name, value in found.items()})
    assert module.weight.grad is not None
    assert module.weight.grad.dtype == torch.bfloat16
    assert torch.equal(module.weight.grad, found["weight"].bfloat16())


@pytest.mark.parametrize(
    ("gradients", "message"),
    [
        ({"weight": torch.zeros(2, 3)}, r"missing \['bias'\], foreign none"),
        ({"weight": torch.zeros(2, 3), "bias": torch.zeros(2), "c": torch.zeros(1)}, r"foreign \['c'\]"),
        ({"weight": torch.zeros(3, 2), "bias": torch.zeros(2)}, r"'weight' has shape \(3, 2\)"),
    ],
)
def test_what_does_not_fit_changes_nothing(gradients: dict[str, Tensor], message: str) -> None:
    module = nn.Linear(3, 2)
    with pytest.raises(InvalidInput, match=message):
        fill_gradients(module, gradients)
    assert module.weight.grad is None


def test_private_gradients_are_the_clipped_sum_with_noise_over_the_public_size() -> None:
    module = nn.Linear(200, 100)
    batch = (torch.randn(5, 200), torch.randn(5, 100))
    noise = []
    for size in (8.0, 1.0):
        made = mechanism(expected_batch_size=size)
        clipped = clipped_gradients(module, "mse", batch, 0.5, divisor=size)
        found = private_gradients(module, "mse", batch, 0.5, made)
        noise.append(torch.cat([(found[name] - value).flatten() for name, value in clipped.items()]) * size)
        assert {name: value.dtype for name, value in found.items()} == dict.fromkeys(found, torch.float32)
    for one in noise:
        assert float(one.std()) == pytest.approx(2.0 * 0.5, rel=0.03)
        assert abs(float(one.mean())) < 0.05
    assert abs(float(np.corrcoef(torch.stack(noise).numpy())[0, 1])) < 0.05


def test_a_step_that_draws_nobody_is_noise() -> None:
    module = nn.Linear(3, 2)
    found = private_gradients(module, "mse", (torch.zeros(0, 3), torch.zeros(0, 2)), 0.5, mechanism())
    assert all(bool((value != 0).all()) for value in found.values())


def test_noise_for_less_than_the_rule_lets_through_is_an_error() -> None:
    module, batch = nn.Linear(3, 2), (torch.randn(4, 3), torch.randn(4, 2))
    with pytest.raises(InvalidInput, match=r"sensitivity of 0\.5.*can contribute 0\.6"):
        private_gradients(module, "mse", batch, 0.6, mechanism())
    each = PerParameterClip(max_norm=0.5, bound="each")
    with pytest.raises(InvalidInput, match=r"can contribute 0\.707107"):
        private_gradients(module, "mse", batch, each, mechanism())
    assert private_gradients(module, "mse", batch, PerParameterClip(max_norm=0.5), mechanism())
    assert private_gradients(module, "mse", batch, 0.4, mechanism())
