"""Products of data with a matrix of weights: `x @ W`, `addmm(b, x, W)`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clipwise.clipping.contributions import Contribution, Dense, Outer
from clipwise.clipping.rules.linear import summed_positions
from clipwise.clipping.rules.rule import Meeting, Rule, as_place

if TYPE_CHECKING:
    from clipwise.clipping.capture import CaptureMode


def matmul_forward(capture: CaptureMode, input: Tensor, other: Tensor) -> Meeting | str:  # noqa: A002
    """Run `x @ W` on rows (B, ..., I) with W (I, O)."""
    if not capture.is_data(input) or capture.is_data(other):
        return "the weight is the left operand"
    if other.dim() != 2 or input.dim() < 1:
        return "the weight is no matrix"
    x = capture.physical(input)
    with capture.whole_batch():
        y = as_place(torch.matmul(x, capture.detached(other, x)))
    return Meeting(weights=(other,), saved=(x.detach(),), places=(y,), outputs=y)


def matmul_contributions(
    weights: Sequence[Tensor], saved: Any, gradients: Sequence[Tensor | None], units: int
) -> list[Contribution | None]:
    """Return `sum_p x_p g_p^T`."""
    (x,), (g,) = saved, gradients
    if g is None:
        return [None] * len(weights)
    found: list[Contribution | None] = [
        Outer(x.reshape(units, -1, x.shape[-1]), g.reshape(units, -1, g.shape[-1]))
    ]
    if len(weights) > 1:
        found.insert(0, Dense(summed_positions(g.reshape(units, -1, g.shape[-1]))))
    return found


def addmm_forward(
    capture: CaptureMode,
    input: Tensor,  # noqa: A002
    mat1: Tensor,
    mat2: Tensor,
    *,
    beta: float = 1,
    alpha: float = 1,
) -> Meeting | str:
    """Run `b + x @ W` on rows (B, N, I) with W (I, O) and b (O,)."""
    if beta != 1 or alpha != 1:
        return "it scales its operands"
    if not capture.is_data(mat1) or not capture.is_weight(mat2) or not capture.is_weight(input):
        return "its operands are not bias, data, weight"
    if input.shape != mat2.shape[1:]:
        return "its bias is no vector"
    x = capture.physical(mat1)
    with capture.whole_batch():
        y = torch.matmul(x, capture.detached(mat2, x)) + capture.detached(input, x)
    return Meeting(weights=(input, mat2), saved=(x.detach(),), places=(y,), outputs=y)


matmul = Rule(name="matmul", forward=matmul_forward, contributions=matmul_contributions)
addmm = Rule(name="addmm", forward=addmm_forward, contributions=matmul_contributions)
