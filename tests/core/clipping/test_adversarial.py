"""Whatever the input: what one unit really adds is at most C (1 + slack), and one bad unit harms no other.

What is added is measured in float64 from the returned sums. The loss is the product of outputs and
targets, so that the targets are the output gradients, and a test chooses both factors of every gradient.
"""

# ruff: noqa: ARG005 - every pattern is made for P, its width and a generator

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from clipwise.clipping import ClippedSum, ClippingEngine, FlatClip
from clipwise.clipping.batch import as_rows
from clipwise.clipping.contributions.gram import prefers_gram

SLACK = {torch.float64: 1e-6, torch.float32: 1e-6, torch.bfloat16: 1e-6}
"""Over C. In bfloat16 too, because norms and sums are taken from the same numbers, in float32."""
DTYPES = list(SLACK)
EXACT = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 1e-2}


def product(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs * targets).flatten(1).sum(1)


def run(module: nn.Module, inputs: Tensor, targets: Tensor, bound: float) -> ClippedSum:
    return ClippingEngine(module, product).clipped_sum(as_rows((inputs, targets)), FlatClip(max_norm=bound))


def added(found: ClippedSum) -> float:
    """Return the norm of all sums, in float64, whatever their size."""
    values = torch.cat([value.double().flatten() for value in found.values.values()])
    assert bool(values.isfinite().all())
    largest = float(values.abs().max())
    return largest * float((values / largest).norm()) if largest else 0.0


def over(module: nn.Module, inputs: Tensor, targets: Tensor, bound: float) -> float:
    """Return by how much what one row adds exceeds the bound: alone, beside zeros, beside itself."""
    beside_zeros = [torch.cat([x, torch.zeros_like(x), torch.zeros_like(x)]) for x in (inputs, targets)]
    beside_itself = [torch.cat([x, x, x]) for x in (inputs, targets)]
    return (
        max(
            added(run(module, inputs, targets, bound)) / bound,
            added(run(module, *beside_zeros, bound)) / bound,
            added(run(module, *beside_itself, bound)) / (3 * bound),
        )
        - 1
    )


# --- sums over positions ------------------------------------------------------------------------------

GRAM = [(2, 64, 64), (2, 8192, 4), (8, 128, 512), (16, 64, 256), (16, 128, 200)]
INSTANTIATED = [(3, 1, 1), (128, 64, 64), (256, 16, 32), (2048, 1, 8), (4096, 2, 2)]


@pytest.mark.parametrize("shape", GRAM + INSTANTIATED, ids=str)
def test_the_shapes_reach_both_paths(shape: tuple[int, int, int]) -> None:
    assert prefers_gram(*shape, torch.float32) == (shape in GRAM)


Pattern = Callable[[int, int, torch.Generator], Tensor]
"""Gives (P, width)."""


def noise(p: int, width: int, generator: torch.Generator) -> Tensor:
    return torch.randn(p, width, generator=generator, dtype=torch.float64)


def signs(p: int) -> Tensor:
    return (1.0 - 2.0 * (torch.arange(p) % 2)).double()[:, None]


def half(p: int) -> Tensor:
    return torch.where(torch.arange(p) < p // 2, 1.0, -1.0).double()[:, None]


def carried(first: float, rest: float) -> Pattern:
    """Return like terms of which every one is rounded up as it is added to the first one."""
    return lambda p, n, g: torch.where(torch.arange(p)[:, None] == 0, first, rest).double().expand(p, n)


INPUTS: dict[str, Pattern] = {
    "random": noise,
    "huge offset": lambda p, n, g: 1e7 + noise(p, n, g),
    "constant": lambda p, n, g: torch.full((p, n), 1 + float(torch.rand((), generator=g))).double(),
    "a third": lambda p, n, g: torch.full((p, n), 1 / 3).double(),
    "ones": lambda p, n, g: torch.ones(p, n).double(),
}
GRADIENTS: dict[str, Pattern] = {
    "random": noise,
    "constant": INPUTS["constant"],
    "alternating": lambda p, n, g: signs(p) * torch.ones(n).double() + 1e-4 * noise(p, n, g),
    "alternating exactly": lambda p, n, g: signs(p) * torch.ones(n).double(),
    "halves": lambda p, n, g: half(p) * (1 + torch.rand(n, generator=g).double()) + 1e-6 * noise(p, n, g),
    "sum of zero": lambda p, n, g: noise(p, n, g) - noise(p, n, g).mean(0),
    "carries": carried(1.0, 2.0**-24 * 1.01),
    "late carries": lambda p, n, g: carried(1.0, 2.0**-24 * 1.01)(p, n, g).roll(p // 2, 0),
    "one of many": lambda p, n, g: torch.where(torch.arange(p)[:, None] == 0, 1.0, 1e-8) * noise(p, n, g),
}


def of_pattern(
    inputs: str, gradients: str, shape: tuple[int, int, int], dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    p, r, c = shape
    generator = torch.Generator().manual_seed(p + r + c)
    x, g = INPUTS[inputs](p, c, generator), GRADIENTS[gradients](p, r, generator)
    return x[None].to(dtype), g[None].to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", GRAM + INSTANTIATED, ids=str)
def test_a_layer_over_positions(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    module = nn.Linear(shape[2], shape[1], bias=False, dtype=dtype)
    for inputs in INPUTS:
        for gradients in GRADIENTS:
            x, g = of_pattern(inputs, gradients, shape, dtype)
            norm = float((g[0].double().t() @ x[0].double()).norm())
            bound = min(norm, 1e12) / 1.0001 if norm > 1e-12 else 1.0
            assert over(module, x, g, bound) <= SLACK[dtype], (inputs, gradients)


# --- sizes --------------------------------------------------------------------------------------------

SIZES = {
    torch.float64: [5e-324, 1e-310, 1e-150, 1.0, 1e150, 1e307],
    torch.float32: [1e-45, 1e-40, 1e-20, 1.0, 1e18, 1e30, 3e38],
    torch.bfloat16: [1e-40, 1e-20, 1.0, 1e18, 1e30, 3e38],
}
BOUNDS = [1e-12, 3.0]


class Tied(nn.Module):
    """A table that is looked up, and multiplied with."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(rows, width))

    def forward(self, x: Tensor) -> Tensor:
        return functional.embedding(x, self.table) @ self.table.t()


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(6, 5), (6,), (5,)),
    "linear, few positions": (lambda: nn.Linear(64, 48), (4, 64), (4, 48)),
    "linear, many positions": (lambda: nn.Linear(6, 5), (40, 6), (40, 5)),
    "two layers": (lambda: nn.Sequential(nn.Linear(6, 7), nn.Linear(7, 5)), (6,), (5,)),
    "conv1d": (lambda: nn.Conv1d(3, 4, 3), (3, 12), (4, 10)),
    "conv2d": (lambda: nn.Conv2d(3, 4, 3, padding=1), (3, 5, 5), (4, 5, 5)),
    "wide conv2d": (lambda: nn.Conv2d(32, 32, 3, padding=1), (32, 3, 3), (32, 3, 3)),
    "layer norm": (lambda: nn.LayerNorm(6), (5, 6), (5, 6)),
    "group norm": (lambda: nn.GroupNorm(2, 6), (6, 5), (6, 5)),
    "attention": (Attention, (5, 8), (5, 8)),
    "gru": (lambda: nn.GRU(4, 3, batch_first=True), (5, 4), (5, 3)),
    "embedding": (lambda: nn.Embedding(5, 6), (), (7, 6)),
    "tied": (lambda: Tied(5, 6), (), (7, 5)),
    "tied, wide": (lambda: Tied(80, 96), (), (3, 80)),
}


def first(outputs: Tensor | tuple[Tensor, ...], targets: Tensor) -> Tensor:
    return product(outputs[0] if isinstance(outputs, tuple) else outputs, targets)


def batch_of(name: str, dtype: torch.dtype, rows: int) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    made, inputs, targets = MODELS[name]
    module = made().to(dtype)
    x = torch.randn(rows, *inputs, dtype=torch.float64) if inputs else torch.randint(5, (rows, targets[0]))
    return module, x, torch.randn(rows, *targets, dtype=torch.float64)


def scaled(x: Tensor, size: float, dtype: torch.dtype) -> Tensor:
    largest = torch.finfo(dtype).max
    return (x * size).clamp(-largest, largest).to(dtype) if x.is_floating_point() else x


def clipped(module: nn.Module, inputs: Tensor, targets: Tensor, bound: float) -> ClippedSum:
    return ClippingEngine(module, first).clipped_sum(as_rows((inputs, targets)), FlatClip(max_norm=bound))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "name",
    MODELS,
)
def test_any_size_of_inputs_and_of_gradients(name: str, dtype: torch.dtype) -> None:
    module, x, g = batch_of(name, dtype, 1)
    for size in SIZES[dtype] if x.is_floating_point() else [1.0]:
        for steepness in SIZES[dtype]:
            inputs, targets = scaled(x, size, dtype), scaled(g, steepness, dtype)
            for bound in BOUNDS:
                found = clipped(module, inputs, targets, bound)
                assert added(found) <= bound * (1 + SLACK[dtype]), (size, steepness, bound)
                assert int(found.nonfinite) in (0, 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_one_huge_row_harms_no_other(name: str, dtype: torch.dtype) -> None:
    module, x, g = batch_of(name, dtype, 4)
    inputs, targets = scaled(x, 1.0, dtype), scaled(g, 1.0, dtype)
    steep = targets.clone()
    steep[2] *= 1e12
    bound = 1e-3
    found = clipped(module, inputs, steep, bound)
    expected = clipped(module, inputs, targets, bound)  # the same direction, and all are scaled
    assert int((found.factors < 1).sum()) == 4
    error = relative_error(found, expected)
    assert error <= EXACT[dtype], error


def relative_error(one: ClippedSum, other: ClippedSum) -> float:
    got, wanted = (
        torch.cat([value.double().flatten() for value in found.values.values()]) for found in (one, other)
    )
    return float((got - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", MODELS)
def test_what_is_not_finite_counts_as_zero_and_is_counted(name: str, bad: float, dtype: torch.dtype) -> None:
    module, x, g = batch_of(name, dtype, 5)
    inputs, targets = scaled(x, 1.0, dtype), scaled(g, 1.0, dtype)
    faulty = targets.clone()
    faulty[1] = bad
    faulty[3].view(-1)[0] = bad
    others = [0, 2, 4]
    found = clipped(module, inputs, faulty, 0.1)
    expected = clipped(module, inputs[others], targets[others], 0.1)
    assert int(found.nonfinite) == 2
    assert found.norms[[1, 3]].tolist() == [0, 0]
    assert found.factors[[1, 3]].tolist() == [0, 0]
    assert relative_error(found, expected) <= EXACT[dtype]
    if x.is_floating_point():
        broken = inputs.clone()
        broken[3].view(-1)[0] = bad
        found = clipped(module, broken, targets, 0.1)
        expected = clipped(module, inputs[[0, 1, 2, 4]], targets[[0, 1, 2, 4]], 0.1)
        assert int(found.nonfinite) == 1
        assert relative_error(found, expected) <= EXACT[dtype]


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(
    name=st.sampled_from(
        ["linear, few positions", "linear, many positions", "conv1d", "tied, wide", "layer norm"]
    ),
    dtype=st.sampled_from(DTYPES),
    exponents=st.tuples(st.integers(-120, 120), st.integers(-120, 120)),
    offset=st.sampled_from([0.0, 1.0, 1e3, 1e7]),
    bound=st.floats(1e-30, 1e12),
    seed=st.integers(0, 100),
)
def test_offsets_of_any_size(
    name: str, dtype: torch.dtype, exponents: tuple[int, int], offset: float, bound: float, seed: int
) -> None:
    module, x, g = batch_of(name, dtype, 1)
    torch.manual_seed(seed)
    if x.is_floating_point():
        x = scaled(torch.randn_like(x) + offset, 2.0 ** exponents[0], dtype)
    g = torch.randn_like(g) * torch.randn(g.shape[:2] + (1,) * (g.dim() - 2), dtype=g.dtype).sign()
    found = clipped(module, x, scaled(g - g.mean(1, keepdim=True), 2.0 ** exponents[1], dtype), bound)
    assert added(found) <= bound * (1 + SLACK[dtype])


@pytest.mark.parametrize("name", MODELS)
def test_a_callers_autocast(name: str) -> None:
    module, x, g = batch_of(name, torch.float32, 1)
    for steepness in (1e-20, 1.0, 1e18):
        for bound in BOUNDS:
            inputs, targets = scaled(x, 1.0, torch.float32), scaled(g, steepness, torch.float32)
            with torch.autocast("cpu", torch.bfloat16):
                found = clipped(module, inputs, targets, bound)
            assert added(found) <= bound * (1 + SLACK[torch.bfloat16])
