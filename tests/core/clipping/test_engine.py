import math
from typing import Any

import pytest
import torch
from tests import reference
from tests.core.clipping.settings import ROWS, SETTINGS, Setting, evaluated_batch_norm
from torch import Tensor, nn

from clipwise.clipping import ClippedSum, ClippingEngine, FlatClip, clipped_gradients
from clipwise.clipping.batch import as_rows
from clipwise.errors import InvalidInput

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
KEY = 1234


def made(
    setting: Setting, dtype: torch.dtype, weights: Tensor | None = None
) -> tuple[nn.Module, tuple[Any, ...]]:
    torch.manual_seed(3)
    module = evaluated_batch_norm(setting.module().train(setting.training)).to(dtype)

    def cast(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: cast(part) for name, part in value.items()}
        if isinstance(value, tuple):
            return tuple(map(cast, value))
        return value.to(dtype) if value.is_floating_point() else value

    row_weights = torch.ones(ROWS) if weights is None else weights
    return module, cast((setting.inputs(), setting.targets(), row_weights))


def run(setting: Setting, module: nn.Module, batch: Any, bound: float | None, **more: Any) -> ClippedSum:
    group = more.pop("group", 1)
    engine = ClippingEngine(module, setting.loss, **more)
    rule = None if bound is None else FlatClip(max_norm=bound)
    return engine.clipped_sum(as_rows(batch), rule, group=group, key=KEY)


def assert_equal(found: ClippedSum, expected: tuple[dict[str, Tensor], Tensor], tolerance: float) -> None:
    values, norms = expected
    assert list(found.values) == list(values)
    for name, value in values.items():
        assert found.values[name].shape == value.shape
        assert reference.relative_error(found.values[name], value) <= tolerance, name
    assert reference.relative_error(found.norms, norms) <= tolerance


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_equal_to_a_loop_over_single_samples(setting: Setting, dtype: torch.dtype) -> None:
    module, batch = made(setting, dtype)
    _, norms = reference.clipped_sum(module, setting.loss, batch, None, key=KEY)
    bound = float(
        norms.sort().values[ROWS // 2 - 1 : ROWS // 2 + 1].mean()
    )  # some rows are scaled, some are not
    expected = reference.clipped_sum(module, setting.loss, batch, bound, key=KEY)
    found = run(setting, module, batch, bound)
    assert_equal(found, expected, TOLERANCE[dtype])
    assert 0 < int((found.factors < 1).sum()) < ROWS


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
@pytest.mark.parametrize("size", [1, 4, 100])
def test_a_microbatch_size_never_changes_the_result(setting: Setting, size: int) -> None:
    module, batch = made(setting, torch.float64)
    expected = reference.clipped_sum(module, setting.loss, batch, 0.1, key=KEY)
    assert_equal(run(setting, module, batch, 0.1, microbatch_size=size), expected, 1e-10)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_groups_of_rows_are_clipped_by_the_norm_of_their_sum(setting: Setting) -> None:
    weights = torch.tensor([1.0, 0.5, 2.0, 1.0, 1.0, 0.0])
    module, batch = made(setting, torch.float64, weights)
    expected = reference.clipped_sum(module, setting.loss, batch, 0.1, group=3, key=KEY)
    found = run(setting, module, batch, 0.1, group=3, microbatch_size=3)
    assert_equal(found, expected, 1e-10)
    assert found.norms.shape == (2,)
    assert found.losses.shape == (ROWS,)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_weights_scale_the_loss_before_clipping(setting: Setting) -> None:
    module, batch = made(setting, torch.float64, torch.tensor([3.0, 0.25, 1000.0, 0.0, 1.0, 1e-9]))
    expected = reference.clipped_sum(module, setting.loss, batch, 0.1, key=KEY)
    found = run(setting, module, batch, 0.1)
    assert_equal(found, expected, 1e-10)
    assert float((found.norms * found.factors).max()) <= 0.1 * (1 + 1e-9)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_the_module_is_left_as_it_was(setting: Setting) -> None:
    module, batch = made(setting, torch.float32)
    marker = {name: torch.full_like(p, 7.0) for name, p in module.named_parameters() if p.requires_grad}
    for name, parameter in module.named_parameters():
        parameter.grad = marker.get(name)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    attributes = {path: sorted(vars(part)) for path, part in module.named_modules()}
    flags = {path: part.training for path, part in module.named_modules()}
    run(setting, module, batch, 0.1)
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])
    for name, parameter in module.named_parameters():
        assert parameter.grad is marker.get(name)
        assert name not in marker or torch.equal(marker[name], torch.full_like(parameter, 7.0))
        assert parameter.grad_fn is None
    for path, part in module.named_modules():
        assert sorted(vars(part)) == attributes[path]
        assert part.training == flags[path]
        assert not part._forward_hooks
        assert not part._backward_hooks


def test_padding_contributes_nothing_whatever_it_holds() -> None:
    module = nn.Linear(3, 1)
    inputs = torch.randn(4, 3)
    targets = torch.randn(4, 1)
    padded = (
        torch.cat([inputs, torch.full((2, 3), math.inf)]),
        torch.cat([targets, torch.full((2, 1), math.nan)]),
        torch.tensor([1.0, 1, 1, 1, 0, 0]),
    )
    expected = ClippingEngine(module, "mse").clipped_sum(as_rows((inputs, targets)), FlatClip(max_norm=0.3))
    found = ClippingEngine(module, "mse").clipped_sum(as_rows(padded), FlatClip(max_norm=0.3))
    for name, value in expected.values.items():
        assert torch.allclose(found.values[name], value, rtol=1e-6)
    assert int(found.nonfinite) == 0
    assert found.norms[4:].tolist() == [0, 0]
    assert found.losses[4:].tolist() == [0, 0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 3e38])
def test_a_gradient_that_is_not_finite_counts_as_zero_and_is_counted(bad: float) -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    inputs, targets = torch.randn(5, 3), torch.randn(5, 1)
    faulty = inputs.clone()
    faulty[2] = bad
    others = [0, 1, 3, 4]
    engine = ClippingEngine(module, "mse")
    expected = engine.clipped_sum(as_rows((inputs[others], targets[others])), FlatClip(max_norm=1.0))
    found = engine.clipped_sum(as_rows((faulty, targets)), FlatClip(max_norm=1.0))
    assert int(found.nonfinite) == 1
    assert found.factors[2] == 0
    assert found.norms[2] == 0
    for name, value in expected.values.items():
        assert torch.allclose(found.values[name], value, rtol=1e-5)


@pytest.mark.filterwarnings("error")
def test_a_gradient_that_is_one_number_for_all_elements_can_be_left_out() -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift = nn.Parameter(torch.randn(2, 3))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.shift.sum()

    module, inputs = Shifted(), torch.randn(4, 1)
    inputs[1] = math.nan
    kept = torch.stack(
        [clipped_gradients(module, "mse", (inputs[i : i + 1],) * 2, 1.0)["shift"] for i in (0, 2)]
    )
    found = clipped_gradients(module, "mse", (inputs[:3], inputs[:3]), 1.0, divisor=1.0)["shift"]
    assert torch.allclose(found, kept.sum(0))


def test_an_empty_batch_gives_zeros() -> None:
    found = clipped_gradients(nn.Linear(3, 2), "mse", (torch.zeros(0, 3), torch.zeros(0, 2)), 1.0)
    assert {name: value.shape for name, value in found.items()} == {"weight": (2, 3), "bias": (2,)}
    assert all(bool((value == 0).all()) for value in found.values())


def test_dropout_differs_for_every_sample_and_between_calls() -> None:
    module = nn.Sequential(nn.Linear(4, 64, bias=False), nn.Dropout(0.5))

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.sum(1)

    same = torch.ones(8, 4)
    engine = ClippingEngine(module, loss)

    def masks() -> Tensor:
        rows = [
            engine.clipped_sum(as_rows((same, torch.zeros(8))), None).values["0.weight"] for _ in range(2)
        ]
        return torch.stack(rows)

    torch.manual_seed(0)
    first = masks()
    torch.manual_seed(0)
    assert torch.equal(masks(), first)
    assert not torch.equal(first[0], first[1])
    # Of 8 rows, each element is kept by some and dropped by others: 0 or 2 per row, 8 on average.
    kept = first[0][:, 0] / 2
    assert kept.unique().numel() > 3
    assert 3.0 < float(kept.mean()) < 5.0


def test_a_rule_is_held_to_the_sensitivity_that_it_states() -> None:
    class Boasting:
        sensitivity = 0.5

        def factors(self, norms: Tensor) -> Tensor:
            return torch.full_like(norms, 100.0)

    module, x = nn.Linear(3, 2), torch.randn(1, 3)
    found = ClippingEngine(module, "mse").clipped_sum(as_rows((x, torch.zeros(1, 2))), Boasting())
    norm = torch.cat([value.double().flatten() for value in found.values.values()]).norm()
    assert float(norm) <= 0.5 * (1 + 1e-6)


def test_a_rule_must_give_one_factor_per_norm() -> None:
    class Short:
        sensitivity = 1.0

        def factors(self, norms: Tensor) -> Tensor:
            return norms[:1]

    with pytest.raises(InvalidInput, match="one factor per norm"):
        clipped_gradients(nn.Linear(3, 1), "mse", (torch.randn(4, 3), torch.randn(4)), Short())


def test_five_lines_for_a_loop_of_ones_own() -> None:
    torch.manual_seed(0)
    module = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.2)
    inputs = torch.randn(64, 4)
    targets = inputs @ torch.tensor([1.0, -2.0, 0.5, 0.0])

    def error() -> float:
        with torch.no_grad():
            return float((module(inputs).squeeze(1) - targets).square().mean())

    before = error()
    for _ in range(200):
        found = clipped_gradients(module, "mse", (inputs, targets), 1.0)
        for name, parameter in module.named_parameters():
            parameter.grad = found[name]
        optimizer.step()
    assert error() < before / 1000


@pytest.mark.parametrize("bound", [0, -1.0, math.nan, math.inf, "1", True, None, 1e-31])
def test_a_bound_that_is_not_positive_and_finite_is_an_error(bound: Any) -> None:
    with pytest.raises(InvalidInput, match="max_norm is"):
        clipped_gradients(nn.Linear(3, 1), "mse", (torch.randn(4, 3), torch.randn(4)), bound)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (torch.zeros(3, 3), "a batch is"),
        ((torch.zeros(3, 3), torch.zeros(2)), "targets of a batch have 2 rows"),
        ((torch.zeros(3, 3), torch.zeros(3), torch.ones(3, 1)), "one number per row"),
        (((), torch.zeros(3)), "inputs are empty"),
        (([[1.0]], torch.zeros(3)), "give tensors"),
        ((torch.zeros(()), torch.zeros(3)), "no dimension of rows"),
    ],
)
def test_what_is_no_batch_is_an_error(batch: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        clipped_gradients(nn.Linear(3, 1), "mse", batch, 1.0)


def test_a_loss_that_averages_over_the_batch_is_an_error() -> None:
    with pytest.raises(InvalidInput, match="reduction='none'"):
        clipped_gradients(nn.Linear(3, 1), nn.MSELoss(), (torch.randn(4, 3), torch.randn(4, 1)), 1.0)


def test_groups_must_divide_the_rows() -> None:
    with pytest.raises(InvalidInput, match="pad with rows of weight 0"):
        clipped_gradients(nn.Linear(3, 1), "mse", (torch.randn(4, 3), torch.randn(4)), 1.0, groups=3)


class LastOf(nn.Module):
    """The one number that a last layer gives is the loss itself."""

    def __init__(self, last: nn.Module, *shape: int) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.last, self.shape = last, shape

    def forward(self, x: Tensor) -> Tensor:
        found = self.last(self.first(x).view(-1, *self.shape))
        return (found[0] if isinstance(found, tuple) else found).flatten(1)[:, 0]


@pytest.mark.parametrize(
    ("last", "shape"),
    [
        (lambda: nn.Linear(6, 1), (6,)),
        (lambda: nn.Linear(6, 1), (1, 6)),
        (lambda: nn.Conv1d(2, 1, 3), (2, 3)),
        (lambda: nn.GroupNorm(2, 6), (6, 1)),
        (lambda: nn.LayerNorm(6), (6,)),
        (lambda: nn.PReLU(), (6,)),
        (lambda: nn.LSTM(6, 1, batch_first=True), (1, 6)),
        (lambda: nn.Bilinear(6, 6, 1), (6,)),
    ],
)
def test_a_loss_that_is_the_output_itself(last: Any, shape: tuple[int, ...]) -> None:
    torch.manual_seed(4)
    layer = last()
    if isinstance(layer, nn.Bilinear):
        module: nn.Module = LastOf(Twofold(layer), *shape).double()
    else:
        module = LastOf(layer, *shape).double()
    x = torch.randn(ROWS, 4, dtype=torch.float64)
    unweighted = (x, torch.zeros(ROWS))
    _, norms = reference.clipped_sum(module, itself, (*unweighted, torch.ones(ROWS)), None)
    bound = float(norms.median())
    expected = reference.clipped_sum(module, itself, (*unweighted, torch.ones(ROWS)), bound)
    for group, wanted in ((1, expected), (3, None)):
        wanted = wanted or reference.clipped_sum(
            module, itself, (*unweighted, torch.ones(ROWS)), bound, group=group
        )
        engine = ClippingEngine(module, itself)
        found = engine.clipped_sum(as_rows(unweighted), FlatClip(max_norm=bound), group=group)
        assert engine.whole_model == {}
        assert_equal(found, wanted, 1e-10)


def itself(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs


class Twofold(nn.Module):
    """A layer of two inputs, given the same one twice."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x, x)
