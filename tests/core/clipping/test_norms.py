"""After clipping, a unit's norm is at most C (1 + 1e-6): also for huge, denormal and half-precision input."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from clipwise.clipping import clipped_gradients
from clipwise.clipping.norms import joint_norms, round_down

BOUNDS = st.floats(1e-30, 1e12)
EXPONENTS = {torch.float32: (-149, 126), torch.float64: (-1074, 1022), torch.bfloat16: (-133, 126)}
SHAPES = st.sampled_from([((3,),), ((2, 3), (5,)), ((), (4, 1, 2), (1,)), ((400,), (0, 3))])


class Given(nn.Module):
    """A module whose gradient for a row is the row itself."""

    def __init__(self, shapes: tuple[tuple[int, ...], ...], dtype: torch.dtype) -> None:
        super().__init__()
        self.shapes = shapes
        self.parts = nn.ParameterList([nn.Parameter(torch.zeros(shape, dtype=dtype)) for shape in shapes])

    def forward(self, rows: Tensor) -> Tensor:
        pieces = rows.split([math.prod(shape) for shape in self.shapes], dim=1)
        terms = zip(pieces, self.parts, strict=True)
        return torch.stack([(piece.reshape(1, *part.shape) * part).sum() for piece, part in terms]).sum(
            0, True
        )


def itself(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs


@settings(max_examples=150, deadline=None)
@given(
    dtype=st.sampled_from(list(EXPONENTS)),
    shapes=SHAPES,
    bound=BOUNDS,
    rows=st.integers(1, 3),
    data=st.data(),
)
def test_a_clipped_norm_is_at_most_the_bound(
    dtype: torch.dtype, shapes: tuple[tuple[int, ...], ...], bound: float, rows: int, data: st.DataObject
) -> None:
    low, high = EXPONENTS[dtype]
    size = sum(math.prod(shape) for shape in shapes)
    exponents = data.draw(st.lists(st.integers(low, high), min_size=rows, max_size=rows))
    spread = data.draw(st.integers(0, 40))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    mantissas = torch.rand(rows, size, generator=generator, dtype=torch.float64) - 0.5
    below = torch.randint(0, spread + 1, (rows, size), generator=generator)
    powers = torch.tensor(exponents)[:, None] - below
    values = torch.ldexp(torch.ldexp(mantissas, powers // 2), powers - powers // 2).to(dtype)
    module = Given(shapes, dtype)
    found = [
        clipped_gradients(module, itself, (values[i : i + 1], torch.zeros(1)), bound) for i in range(rows)
    ]
    for clipped in found:
        assert exact_norm(list(clipped.values())) <= bound * (1 + 1e-6)
    together = clipped_gradients(module, itself, (values, torch.zeros(rows)), bound, divisor=1.0)
    assert exact_norm(list(together.values())) <= rows * bound * (1 + 2e-6)


def test_a_callers_autocast_does_not_loosen_the_bound() -> None:
    module, inputs = nn.Linear(400, 1), 100 * torch.randn(8, 400)
    with torch.autocast("cpu", torch.bfloat16):
        for row in inputs.split(1):
            clipped = clipped_gradients(module, "mse", (row, torch.zeros(1)), 0.1)
            assert exact_norm(list(clipped.values())) <= 0.1 * (1 + 1e-6)


def exact_norm(tensors: list[Tensor]) -> float:
    return math.hypot(*(float(value) for tensor in tensors for value in tensor.flatten()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_gradient_whose_square_overflows_is_clipped_and_not_dropped(dtype: torch.dtype) -> None:
    huge = torch.finfo(dtype).max / 4
    module = Given(((2,),), dtype)
    row = torch.tensor([[huge, 0.0]], dtype=dtype)
    found = clipped_gradients(module, itself, (row, torch.zeros(1)), 2.0)["parts.0"]
    # In float32 the factor is a denormal number, rounded towards zero.
    assert 1.9 < float(found[0]) <= 2.0


def test_norms_of_long_gradients_are_not_too_small() -> None:
    torch.manual_seed(0)
    gradient = torch.randn(2, 2_400_000)
    exact = gradient.double().square().sum(1).sqrt()
    assert float(((joint_norms([gradient], 2) - exact) / exact).abs().max()) < 1e-8


def test_the_norm_is_joint_over_tensors_of_different_precision() -> None:
    parts = [torch.full((2, 4), 3.0), torch.full((2, 1), 8.0, dtype=torch.float64)]
    assert joint_norms(parts, 2).tolist() == [10.0, 10.0]


@given(st.floats(0, 1, allow_subnormal=True))
def test_factors_are_rounded_towards_zero(factor: float) -> None:
    rounded = float(round_down(torch.tensor([factor], dtype=torch.float64), torch.float32).double())
    assert 0 <= rounded <= factor
    assert factor - rounded <= max(factor * 1.2e-7, 1.5e-45)
