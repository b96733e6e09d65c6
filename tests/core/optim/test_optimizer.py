from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from clipwise.errors import InvalidInput, InvalidState
from clipwise.models import TorchModel
from clipwise.optim import Optimizer
from clipwise.optim.modules import Adam, GaussianNoise, L2Clipping, Momentum

STEPS = 50
Reference = Callable[[Any], torch.optim.Optimizer]


class ArrayModel:
    """A model of bare arrays, whose gradients are given."""

    def __init__(self, **arrays: Any) -> None:
        self.parameters = arrays

    def apply_updates(self, updates: Mapping[str, Any]) -> None:
        for name, value in updates.items():
            self.parameters[name] += value


def given(**values: Any) -> Any:
    return SimpleNamespace(values=values)


EQUALS: dict[str, tuple[dict[str, Any], Reference]] = {
    "sgd": ({}, lambda p: torch.optim.SGD(p, lr=0.05)),
    "weight_decay": ({"weight_decay": 0.1}, lambda p: torch.optim.SGD(p, lr=0.05, weight_decay=0.1)),
    "momentum": ({"modules": [Momentum(beta=0.8)]}, lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.8)),
    "nesterov": (
        {"modules": [Momentum(nesterov=True)]},
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    ),
    "adam": (
        {"modules": [Adam(beta_1=0.8, beta_2=0.99, eps=1e-6)]},
        lambda p: torch.optim.Adam(p, lr=0.05, betas=(0.8, 0.99), eps=1e-6),
    ),
    "adamw": (
        {"modules": [Adam()], "weight_decay": 0.1},
        lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=0.1),
    ),
}


def module_and_data() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(5)
    module = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    return module, torch.randn(STEPS, 8, 4).double(), torch.randn(STEPS, 8, 2).double()


@pytest.mark.parametrize("name", EQUALS)
def test_equal_to_torch_optim_over_many_steps(name: str) -> None:
    arguments, reference = EQUALS[name]
    theirs, inputs, targets = module_and_data()
    ours, _, _ = module_and_data()
    torch_optimizer = reference(theirs.parameters())
    optimizer = Optimizer(0.05, **arguments)
    model = TorchModel(ours, "mse")
    start = [parameter.detach().clone() for parameter in theirs.parameters()]
    for x, y in zip(inputs, targets, strict=True):
        torch_optimizer.zero_grad()
        (theirs(x) - y).square().mean().backward()
        torch_optimizer.step()
        optimizer.run_train_step(model, (x, y))
    for before, expected, found in zip(start, theirs.parameters(), ours.parameters(), strict=True):
        expected, found = expected.detach(), found.detach()
        assert float((expected - before).norm()) > 1e-3
        assert float((found - expected).norm() / expected.norm()) < 1e-10


@pytest.mark.parametrize("name", EQUALS)
def test_numpy_and_torch_do_the_same(name: str) -> None:
    arguments, _ = EQUALS[name]
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(3, 2)), rng.normal(size=(20, 3, 2))
    numpy_model = ArrayModel(a=start.copy(), b=start[0].copy())
    torch_model = ArrayModel(a=torch.tensor(start), b=torch.tensor(start[0]))
    optimizers = Optimizer(0.05, **arguments), Optimizer(0.05, **arguments)
    for g in gradients:
        optimizers[0].apply_gradients(numpy_model, given(a=g, b=g[1]))
        optimizers[1].apply_gradients(torch_model, given(a=torch.tensor(g), b=torch.tensor(g[1])))
    for key in ("a", "b"):
        np.testing.assert_allclose(
            numpy_model.parameters[key], torch_model.parameters[key].numpy(), rtol=1e-12
        )


@pytest.mark.parametrize("array", [np.array, torch.DoubleTensor])
def test_l2_clipping_bounds_the_joint_norm(array: Callable[[Any], Any]) -> None:
    model = ArrayModel(a=array([0.0, 0.0]), b=array([[0.0]]))
    optimizer = Optimizer(1.0, modules=[L2Clipping(max_norm=1.0)])
    long = optimizer.compute_updates_from_gradients(model, given(a=array([2.0, 0.0]), b=array([[-1.5]])))
    assert [float(value) for value in (*long["a"], long["b"][0, 0])] == pytest.approx([-0.8, 0.0, 0.6])
    short = optimizer.compute_updates_from_gradients(model, given(a=array([0.1, 0.0]), b=array([[0.0]])))
    assert [float(value) for value in short["a"]] == pytest.approx([-0.1, 0.0])
    huge = optimizer.compute_updates_from_gradients(model, given(a=array([1e200, 0.0]), b=array([[1e200]])))
    assert float(huge["a"][0]) == pytest.approx(-(0.5**0.5))


def test_gaussian_noise_has_its_deviation_and_no_seed_of_ours() -> None:
    model = ArrayModel(a=torch.zeros(20_000))
    optimizer = Optimizer(1.0, modules=[GaussianNoise(std=3.0)])
    draws = []
    for _ in range(2):
        torch.manual_seed(0)
        draws.append(optimizer.compute_updates_from_gradients(model, given(a=torch.zeros(20_000)))["a"])
    assert float(draws[0].std()) == pytest.approx(3.0, rel=0.05)
    assert abs(float(torch.corrcoef(torch.stack(draws))[0, 1])) < 0.05


def test_the_chain_is_applied_in_order() -> None:
    def step(*modules: Any) -> float:
        model = ArrayModel(a=torch.zeros(1))
        optimizer = Optimizer(1.0, modules=modules)
        for _ in range(2):
            optimizer.apply_gradients(model, given(a=torch.ones(1)))
        return float(model.parameters["a"][0])

    assert step(L2Clipping(max_norm=0.5), Momentum(beta=0.5)) == pytest.approx(-0.5 - 0.75)
    assert step(Momentum(beta=0.5), L2Clipping(max_norm=0.5)) == pytest.approx(-0.5 - 0.5)


@pytest.mark.parametrize("link", [Adam(), Momentum(nesterov=True), L2Clipping(max_norm=0.1)])
def test_modules_are_pure_without_out(link: Any) -> None:
    params, updates = torch.randn(5), torch.randn(5)
    state = link.init(params)
    before = {name: value.clone() for name, value in state.items()}
    kept = updates.clone(), params.clone()
    first, _ = link.update(state, updates, params)
    assert all(torch.equal(state[name], value) for name, value in before.items())
    assert torch.equal(updates, kept[0])
    assert torch.equal(params, kept[1])
    second, _ = link.update(state, updates, params, out=(updates, state))
    assert torch.equal(first, second)


def trained(steps: int, modules: list[Any]) -> tuple[Optimizer, TorchModel]:
    module, inputs, targets = module_and_data()
    model, optimizer = TorchModel(module, "mse"), Optimizer(0.05, modules=modules)
    for x, y in zip(inputs[:steps], targets, strict=False):
        optimizer.run_train_step(model, (x, y))
    return optimizer, model


def test_a_state_goes_on_where_it_was_taken() -> None:
    modules: list[Any] = [Adam(), Momentum()]
    _, expected = trained(20, modules)
    first, model = trained(8, modules)
    state = first.get_state()
    assert {name.split(".")[2] for name in state} == {"adam", "momentum"}
    assert state["modules.0.adam.mean.0.weight"].shape == (6, 4)
    kept = {name: value.clone() for name, value in state.items()}
    _, inputs, targets = module_and_data()
    second = Optimizer(0.05, modules=modules)
    second.set_state(model, state)
    for x, y in zip(inputs[8:20], targets[8:20], strict=True):
        second.run_train_step(model, (x, y))
    for name, value in expected.parameters.items():
        assert torch.equal(model.parameters[name], value)
    assert all(torch.equal(state[name], value) for name, value in kept.items())


def test_a_state_from_before_the_first_step_is_a_start() -> None:
    optimizer, model = trained(3, [Adam()])
    assert Optimizer(0.1, modules=[Adam()]).get_state() == {}
    optimizer.set_state(model, {})
    assert float(optimizer.get_state()["modules.0.adam.step"]) == 0


@pytest.mark.parametrize("fault", ["missing", "foreign", "shape", "framework", "other_chain"])
def test_a_foreign_state_is_refused_and_changes_nothing(fault: str) -> None:
    optimizer, model = trained(3, [Adam()])
    before = optimizer.get_state()
    state = {name: value + 1 for name, value in before.items()}
    if fault == "missing":
        state.pop("modules.0.adam.mean.0.weight")
    elif fault == "foreign":
        state["modules.0.adam.mean.9.weight"] = torch.zeros(1)
    elif fault == "shape":
        state["modules.0.adam.square.2.bias"] = torch.zeros(3)
    elif fault == "framework":
        state["modules.0.adam.square.2.bias"] = np.zeros(2)
    else:
        state = trained(3, [Momentum()])[0].get_state()
    with pytest.raises(InvalidState):
        optimizer.set_state(model, state)
    after = optimizer.get_state()
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"learning_rate": True}, "learning_rate"),
        ({"learning_rate": 0.1, "weight_decay": -1.0}, "weight_decay"),
        ({"learning_rate": 0.1, "modules": [Adam(), "momentum"]}, "modules.1"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], name: str) -> None:
    with pytest.raises(InvalidInput, match=name):
        Optimizer(**arguments)


def test_gradients_must_be_those_of_the_parameters() -> None:
    model, optimizer = ArrayModel(a=torch.zeros(2), b=torch.zeros(1)), Optimizer(0.1)
    with pytest.raises(InvalidInput, match=r"missing \['b'\]"):
        optimizer.apply_gradients(model, given(a=torch.zeros(2)))
    with pytest.raises(InvalidInput, match="'a' have shape"):
        optimizer.apply_gradients(model, given(a=torch.zeros(3), b=torch.zeros(1)))


def test_arrays_of_an_unknown_framework_are_refused() -> None:
    foreign = SimpleNamespace(shape=(2,))
    with pytest.raises(InvalidInput, match="give arrays of numpy or torch"):
        Optimizer(0.1).apply_gradients(ArrayModel(a=foreign), given(a=foreign))


def test_updates_do_not_touch_the_model_and_are_the_callers_own() -> None:
    model, optimizer = ArrayModel(a=torch.zeros(2)), Optimizer(0.5)
    first = optimizer.compute_updates_from_gradients(model, given(a=torch.ones(2)))
    optimizer.compute_updates_from_gradients(model, given(a=torch.zeros(2)))
    assert first["a"].tolist() == [-0.5, -0.5]
    assert model.parameters["a"].tolist() == [0, 0]


def test_low_precision_parameters_have_their_state_in_float32() -> None:
    module = nn.Linear(3, 1).to(torch.bfloat16)
    model, optimizer = TorchModel(module, "mse"), Optimizer(0.1, modules=[Adam()])
    x = torch.randn(4, 3, dtype=torch.bfloat16)
    before = module.weight.detach().clone()
    optimizer.run_train_step(model, (x, torch.ones(4, 1)), sclip=1.0)
    assert optimizer.get_state()["modules.0.adam.mean.weight"].dtype == torch.float32
    assert module.weight.dtype == torch.bfloat16
    assert not torch.equal(module.weight, before)
