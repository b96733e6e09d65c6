"""Every clip rule against the oracle, and held to its word, part by part."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import reference
from tests.core.clipping.settings import ROWS, SETTINGS, Setting, Tied
from tests.core.clipping.test_engine import KEY, TOLERANCE, assert_equal, made
from torch import Tensor, nn

from clipwise.clipping import ClippedSum, ClippingEngine, clipped_gradients
from clipwise.clipping.batch import as_rows
from clipwise.errors import InvalidInput
from clipwise.models import TorchModel
from clipwise.schedules import (
    AnyClipRule,
    AutomaticClip,
    ClipGroup,
    FlatClip,
    Part,
    PerGroupClip,
    PerParameterClip,
    joint_sensitivity,
    sensitivity_of,
)

Names = Sequence[str]


def halves(names: Names) -> dict[tuple[str, ...], float]:
    """Return two groups, every other parameter in each, with bounds of their own."""
    groups = {tuple(names[::2]): 0.07, tuple(names[1::2]): 0.2}
    return {held: bound for held, bound in groups.items() if held}


def grouped(names: Names) -> PerGroupClip:
    """Return the rule of `halves`."""
    return PerGroupClip(
        groups=tuple(
            ClipGroup(name=f"part {i}", parameters=held, max_norm=bound)
            for i, (held, bound) in enumerate(halves(names).items())
        )
    )


RULES: dict[str, tuple[Callable[[Names], AnyClipRule], Callable[[Names], reference.Clip]]] = {
    "joint": (
        lambda _: PerParameterClip(max_norm=0.2),
        lambda names: reference.per_parameter(0.2 / len(names) ** 0.5),
    ),
    "each": (
        lambda _: PerParameterClip(max_norm=0.1, bound="each"),
        lambda _: reference.per_parameter(0.1),
    ),
    "groups": (grouped, lambda names: reference.per_group(halves(names))),
    "automatic": (
        lambda _: AutomaticClip(max_norm=0.5, stability=0.05),
        lambda _: reference.automatic(0.5, 0.05),
    ),
}


def scaled(setting: Setting, rule: str, dtype: torch.dtype, **more: Any) -> tuple[ClippedSum, Any, Any]:
    """Return what the engine and the oracle give for a rule, and the engine's rule."""
    weights = torch.tensor([1.0, 0.5, 20.0, 1.0, 0.0, 1.0])
    module, batch = made(setting, dtype, weights)
    ours, theirs = RULES[rule]
    names = list(reference.storages(module))
    group = more.pop("group", 1)
    engine = ClippingEngine(module, setting.loss, **more)
    found = engine.clipped_sum(as_rows(batch), ours(names), group=group, key=KEY)
    expected = reference.clipped_sum(module, setting.loss, batch, theirs(names), group=group, key=KEY)
    return found, expected, ours(names)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_equal_to_a_loop_over_single_samples(setting: Setting, rule: str, dtype: torch.dtype) -> None:
    found, expected, _ = scaled(setting, rule, dtype)
    assert_equal(found, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_equal_with_groups_of_rows_in_microbatches(setting: Setting, rule: str) -> None:
    found, expected, made_rule = scaled(setting, rule, torch.float64, group=2, microbatch_size=2)
    assert_equal(found, expected, 1e-10)
    parts = len(found.parts)
    assert found.norms.shape == found.factors.shape == (ROWS // 2,)
    assert found.part_norms.shape == found.part_factors.shape == (ROWS // 2, parts)
    assert torch.allclose(found.part_norms.square().sum(1).sqrt(), found.norms, rtol=1e-12)
    assert torch.equal(found.part_factors.amin(1), found.factors)
    bounds = torch.tensor([part.rule.sensitivity for part in found.parts], dtype=torch.float64)
    assert bool((found.part_norms * found.part_factors <= bounds * (1 + 1e-9)).all())
    assert joint_sensitivity(found.parts) == sensitivity_of(made_rule, list(found.values))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ["classifier", "twice", "tied_by_storage", "bare_parameters"])
def test_equal_where_the_whole_model_is_differentiated(
    name: str, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("not to be captured")

    monkeypatch.setattr("clipwise.clipping.engine.capture", refuse)
    (setting,) = [one for one in SETTINGS if one.name == name]
    found, expected, _ = scaled(setting, rule, torch.float64)
    assert_equal(found, expected, 1e-10)


@pytest.mark.parametrize("whole", [False, True])
def test_a_part_of_an_unused_or_empty_parameter_is_zero(whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("not to be captured")

    module = nn.Linear(3, 2)
    module.register_parameter("unused", nn.Parameter(torch.ones(2)))
    module.register_parameter("empty", nn.Parameter(torch.ones(0, 3)))
    if whole:
        monkeypatch.setattr("clipwise.clipping.engine.capture", refuse)
    batch = as_rows((torch.randn(4, 3), torch.randn(4, 2)))
    found = ClippingEngine(module, "mse").clipped_sum(batch, PerParameterClip(max_norm=1.0))
    assert [part.label for part in found.parts] == ["weight", "bias", "unused", "empty"]
    assert found.part_norms[:, 2:].tolist() == [[0.0, 0.0]] * 4
    assert found.values["unused"].tolist() == [0.0, 0.0]
    assert found.values["empty"].shape == (0, 3)


@pytest.mark.parametrize("apart", [False, True])
def test_a_tied_parameter_is_one_part(apart: bool) -> None:
    batch = as_rows((torch.randint(7, (4, 3)), torch.randint(7, (4,))))
    engine = ClippingEngine(Tied(apart=apart), "cross_entropy")
    found = engine.clipped_sum(batch, PerParameterClip(max_norm=0.3, bound="each"))
    assert [part.names for part in found.parts] == [("embedding.weight",)]
    assert joint_sensitivity(found.parts) == 0.3


SCALES = st.sampled_from([1e-15, 1e-4, 1.0, 1e4, 1e15])
BOUNDS = st.sampled_from([1e-12, 1e-3, 1.0, 1e6])
KINDS: dict[str, Callable[[Names, float], AnyClipRule]] = {
    "flat": lambda _, bound: FlatClip(max_norm=bound),
    "joint": lambda _, bound: PerParameterClip(max_norm=bound),
    "each": lambda _, bound: PerParameterClip(max_norm=bound, bound="each"),
    "groups": lambda names, bound: PerGroupClip(
        groups=(
            ClipGroup(name="first", parameters=(names[0],), max_norm=bound),
            ClipGroup(name="rest", parameters=tuple(names[1:]), max_norm=2 * bound),
        )
    ),
    "automatic": lambda _, bound: AutomaticClip(max_norm=bound, stability=1e-6),
}


class TwoScales(nn.Module):
    """Parameters whose gradients have two sizes."""

    def __init__(self, positions: int) -> None:
        super().__init__()
        self.left = nn.Linear(7, 3)
        self.right = nn.Linear(5, 3)
        self.positions = positions

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        rows = x.shape[0]
        left = self.left(x.view(rows, self.positions, 7)).sum(1)
        return left + self.right(y.view(rows, self.positions, 5)).sum(1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(one=SCALES, other=SCALES, slope=SCALES, bound=BOUNDS, positions=st.sampled_from([1, 4]))
def test_no_part_exceeds_what_it_states(
    kind: str, dtype: torch.dtype, one: float, other: float, slope: float, bound: float, positions: int
) -> None:
    torch.manual_seed(0)
    module = TwoScales(positions).to(dtype)
    names = [name for name, _ in module.named_parameters()]
    x, y = torch.randn(2, positions * 7) * one, torch.randn(2, positions * 5) * other
    x, y = x.to(dtype), y.to(dtype)
    if positions > 1:  # positions that cancel
        x[1, 7:14] = -x[1, :7]

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs * slope * targets).sum(1)

    rule = KINDS[kind](names, bound)
    for row in range(2):
        batch = as_rows(((x[row : row + 1], y[row : row + 1]), torch.ones(1, 3, dtype=dtype)))
        found = ClippingEngine(module, loss).clipped_sum(batch, rule)
        assert all(bool(value.isfinite().all()) for value in found.values.values())
        for part in found.parts:
            size = torch.cat([found.values[name].double().flatten() for name in part.names]).norm()
            assert float(size) <= part.rule.sensitivity * (1 + 1e-6)


def test_normalisation_multiplies_nothing_beyond_what_a_number_holds() -> None:
    module = nn.Linear(1, 1, bias=False)

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs * targets).sum(1)

    batch = as_rows((torch.tensor([[3e38]]), torch.tensor([[1e-39]])))
    found = ClippingEngine(module, loss).clipped_sum(batch, AutomaticClip(max_norm=1000.0, stability=0.1))
    norm = float(found.norms[0])
    assert norm == pytest.approx(0.3, rel=1e-2)
    assert float(found.factors[0]) > 1
    assert float(found.values["weight"]) == pytest.approx(1000 * norm / (norm + 0.1), rel=1e-5)


def test_a_gradient_that_is_not_finite_in_one_part_counts_as_zero_in_all() -> None:
    module = TwoScales(1)
    x, y = torch.randn(3, 7), torch.randn(3, 5)
    y[1, 0] = math.inf
    for rule in (PerParameterClip(max_norm=1.0), AutomaticClip()):
        found = ClippingEngine(module, "mse").clipped_sum(as_rows(((x, y), torch.zeros(3, 3))), rule)
        kept = [0, 2]
        finite = ClippingEngine(module, "mse").clipped_sum(
            as_rows(((x[kept], y[kept]), torch.zeros(2, 3))), rule
        )
        assert int(found.nonfinite) == 1
        assert found.part_factors[1].tolist() == [0.0] * len(found.parts)
        for name, value in finite.values.items():
            assert reference.relative_error(found.values[name], value) <= 1e-5


def test_an_empty_batch_has_norms_of_no_unit() -> None:
    batch = as_rows((torch.zeros(0, 3), torch.zeros(0, 2)))
    found = ClippingEngine(nn.Linear(3, 2), "mse").clipped_sum(batch, PerParameterClip(max_norm=1.0))
    assert found.part_norms.shape == (0, 2)
    assert found.norms.shape == found.factors.shape == (0,)


def test_a_model_tells_the_parts_and_their_joint_sensitivity() -> None:
    model = TorchModel(nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)), "mse")
    batch = (torch.randn(6, 4), torch.randn(6, 2))
    found = model.compute_batch_gradients(batch, PerParameterClip(max_norm=0.5, bound="each"), groups=2)
    assert found.parts == ("0.weight", "0.bias", "2.weight", "2.bias")
    assert found.sensitivity == 1.0
    assert found.part_norms is not None
    assert found.part_factors is not None
    assert found.part_norms.shape == found.part_factors.shape == (3, 4)
    plain = model.compute_batch_gradients(batch)
    assert (plain.parts, plain.part_norms, plain.sensitivity) == ((), None, None)


class Mine:
    """A rule that somebody has made: clip the bias alone, and hard."""

    def parts(self, names: Sequence[str]) -> tuple[Part, ...]:
        bias = tuple(name for name in names if name.endswith("bias"))
        rest = tuple(name for name in names if name not in bias)
        return (
            Part(label="rest", names=rest, rule=AutomaticClip(max_norm=3.0)),
            Part(label="bias", names=bias, rule=FlatClip(max_norm=4.0)),
        )


def test_a_rule_of_ones_own_divides_the_parameters() -> None:
    module = nn.Linear(3, 2)
    assert sensitivity_of(Mine(), ["weight", "bias"]) == 5.0
    found = ClippingEngine(module, "mse").clipped_sum(as_rows((torch.randn(2, 3), torch.randn(2, 2))), Mine())
    assert [part.label for part in found.parts] == ["rest", "bias"]


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ([("weight",)], "'bias' in 0 parts"),
        ([("weight", "bias"), ("bias",)], "'bias' in 2 parts"),
        ([("weight", "bias"), ("scale",)], "'scale' in 1 parts"),
    ],
)
def test_parts_hold_every_parameter_once(held: list[tuple[str, ...]], message: str) -> None:
    class Careless:
        def parts(self, names: Sequence[str]) -> tuple[Part, ...]:  # noqa: ARG002
            return tuple(
                Part(label=str(i), names=one, rule=FlatClip(max_norm=1.0)) for i, one in enumerate(held)
            )

    with pytest.raises(InvalidInput, match=message):
        clipped_gradients(nn.Linear(3, 1), "mse", (torch.randn(4, 3), torch.randn(4)), Careless())
