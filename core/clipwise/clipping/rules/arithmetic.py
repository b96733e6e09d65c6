"""`x + w`, `x - w` and `x * w` with broadcasting: sums over the axes that were broadcast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clipwise.clipping.contributions import Contribution, Dense, widened
from clipwise.clipping.rules.rule import Meeting, Rule

if TYPE_CHECKING:
    from clipwise.clipping.capture import CaptureMode


def add_forward(capture: CaptureMode, input: Tensor, other: Any, *, alpha: float = 1) -> Meeting | str:  # noqa: A002
    """Run `input + alpha * other`, either of which is the weight."""
    if alpha != 1:
        return "it scales one of its operands"
    found = _operands(capture, input, other)
    if isinstance(found, str):
        return found
    x, weight = found
    with capture.whole_batch():
        y = x + capture.detached(weight, x)
    return Meeting(weights=(weight,), saved=(), places=(y,), outputs=y)


def add_contributions(
    weights: Sequence[Tensor], saved: Any, gradients: Sequence[Tensor | None], units: int
) -> list[Contribution | None]:
    """Return the output's gradients, summed over what was broadcast."""
    (g,) = gradients
    return [None if g is None else Dense(reduced(g, units, weights[0].shape))]


def mul_forward(capture: CaptureMode, input: Tensor, other: Any) -> Meeting | str:  # noqa: A002
    """Run `input * other`, either of which is the weight."""
    found = _operands(capture, input, other)
    if isinstance(found, str):
        return found
    x, weight = found
    with capture.whole_batch():
        y = x * capture.detached(weight, x)
    return Meeting(weights=(weight,), saved=(x.detach(),), places=(y,), outputs=y)


def mul_contributions(
    weights: Sequence[Tensor], saved: Any, gradients: Sequence[Tensor | None], units: int
) -> list[Contribution | None]:
    """Return the products with the other operand, summed over what was broadcast."""
    (x,), (g,) = saved, gradients
    return [None if g is None else Dense(reduced(widened(g) * x, units, weights[0].shape))]


def _operands(capture: CaptureMode, one: Any, other: Any) -> tuple[Tensor, Tensor] | str:
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return "an operand is no tensor"
    data, weight = (one, other) if capture.is_data(one) else (other, one)
    if one.dim() < weight.dim() or (data.dim() < weight.dim()):
        return "the weight has more dimensions than the data"
    if not data.dtype.is_floating_point or data.dtype != weight.dtype:
        return "the operands are of different types"
    return capture.physical(data), weight


def reduced(g: Tensor, units: int, shape: torch.Size) -> Tensor:
    """Return (G, *shape) from (B, *row), summing over a unit's rows and over what was broadcast."""
    g = widened(g)
    row = g.shape[1:]
    extra = len(row) - len(shape)
    axes = [1 + i for i in range(extra)]
    axes += [1 + extra + i for i, size in enumerate(shape) if size == 1 and row[extra + i] != 1]
    summed = [axis for axis in axes if g.shape[axis] != 1]
    kept = g.sum(summed, keepdim=True) if summed else g
    per_row = kept.reshape(g.shape[0], *shape)
    if per_row.shape[0] == units:
        return per_row
    return per_row.reshape(units, -1, *shape).sum(1)


addition = Rule(name="addition", forward=add_forward, contributions=add_contributions)
multiplication = Rule(name="multiplication", forward=mul_forward, contributions=mul_contributions)
