"""`x + w`, `x - w`, `x * w`, `x / w` and `where`, with broadcasting: sums over what was broadcast."""

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
    found = _operands(capture, input, other)
    if isinstance(found, str):
        return found
    x, weight = found
    with capture.whole_batch():
        w = capture.detached(weight, x)
        y = torch.add(w, x, alpha=alpha) if weight is input else torch.add(x, w, alpha=alpha)
    return Meeting(weights=(weight,), saved=(1 if weight is input else alpha,), places=(y,), outputs=y)


def sub_forward(capture: CaptureMode, input: Tensor, other: Any, *, alpha: float = 1) -> Meeting | str:  # noqa: A002
    """Run `input - alpha * other`, either of which is the weight."""
    return add_forward(capture, input, other, alpha=-alpha)


def rsub_forward(capture: CaptureMode, input: Tensor, other: Any) -> Meeting | str:  # noqa: A002
    """Run `other - input`, either of which is the weight."""
    return add_forward(capture, other, input, alpha=-1) if isinstance(other, Tensor) else "no tensor"


def add_contributions(
    weights: Sequence[Tensor], saved: Any, gradients: Sequence[Tensor | None], units: int
) -> list[Contribution | None]:
    """Return the output's gradients, summed over what was broadcast."""
    (alpha,), (g,) = saved, gradients
    if g is None:
        return [None]
    found = reduced(g, units, weights[0].shape)
    return [Dense(found if alpha == 1 else found * alpha)]


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


def div_forward(
    capture: CaptureMode,
    input: Tensor,  # noqa: A002
    other: Any,
    *,
    rounding_mode: str | None = None,
) -> Meeting | str:
    """Run `input / other`, either of which is the weight."""
    found = _operands(capture, input, other)
    if isinstance(found, str) or rounding_mode is not None:
        return found if isinstance(found, str) else "it rounds"
    x, weight = found
    below = weight is other
    with capture.whole_batch():
        w = capture.detached(weight, x)
        y = x / w if below else w / x
    return Meeting(weights=(weight,), saved=(x.detach(), below), places=(y,), outputs=y)


def div_contributions(
    weights: Sequence[Tensor], saved: Any, gradients: Sequence[Tensor | None], units: int
) -> list[Contribution | None]:
    """Return `-g x / w^2` for a divisor and `g / x` for a dividend, summed over what was broadcast."""
    (x, below), (g,) = saved, gradients
    if g is None:
        return [None]
    shape = weights[0].shape
    if not below:
        return [Dense(reduced(widened(g) / x, units, shape))]
    return [Dense(reduced(widened(g) * x, units, shape) / -widened(weights[0].detach()).square())]


def where_forward(
    capture: CaptureMode,
    condition: Tensor,
    input: Any = None,  # noqa: A002
    other: Any = None,
) -> Meeting | str:
    """Run `torch.where` with a weight in one branch or in both."""
    if input is None or other is None:
        return "it is called with a condition alone"
    branches = (input, other)
    dims = max(value.dim() for value in (condition, *branches) if isinstance(value, Tensor))
    data = [capture.physical(one) for one in branches if capture.is_data(one)]
    beside = next((one for one in data if one.requires_grad), None)
    chosen, *run = (
        _rows(capture, value, dims) if capture.is_data(value) else value for value in (condition, *branches)
    )
    with capture.whole_batch():
        first, second = (
            capture.detached(one, beside) if capture.is_weight(branch) else one
            for one, branch in zip(run, branches, strict=True)
        )
        y = torch.where(chosen, first, second)
    trained = tuple(one for one in branches if capture.is_weight(one))
    firsts = tuple(one is input for one in trained)
    return Meeting(weights=trained, saved=(chosen, firsts), places=(y,), outputs=y)


def where_method_forward(
    capture: CaptureMode,
    input: Tensor,  # noqa: A002
    condition: Tensor,
    other: Any,
) -> Meeting | str:
    """Run `input.where(condition, other)`."""
    return where_forward(capture, condition, input, other)


def where_contributions(
    weights: Sequence[Tensor], saved: Any, gradients: Sequence[Tensor | None], units: int
) -> list[Contribution | None]:
    """Return the gradients where the weight was chosen, summed over what was broadcast."""
    (chosen, firsts), (g,) = saved, gradients
    if g is None:
        return [None] * len(weights)
    return [
        Dense(reduced(torch.where(chosen if first else ~chosen, g, 0.0), units, weight.shape))
        for weight, first in zip(weights, firsts, strict=True)
    ]


def prelu_forward(capture: CaptureMode, input: Tensor, weight: Tensor) -> Meeting | str:  # noqa: A002
    """Run `max(x, 0) + w min(x, 0)` on rows (B, N, C, ...)."""
    if not capture.is_data(input) or not capture.is_weight(weight) or weight.dim() > 1:
        return "its slope depends on the rows"
    x = capture.physical(input)
    # The slope of a channel broadcasts over the axes behind it.
    axes = max(input.dim() - 2, 0) if weight.numel() > 1 else 0
    slope = weight.view(*weight.shape, *(1 for _ in range(axes)))
    with capture.whole_batch():
        y = torch.where(x > 0, x, x * capture.detached(slope, x))
    return Meeting(weights=(slope,), saved=(x.detach().clamp(max=0.0),), places=(y,), outputs=y)


def written(rule: Rule) -> Rule:
    """Return the rule of the form of an operation that writes into its first operand."""

    def forward(capture: CaptureMode, input: Any, *others: Any, **more: Any) -> Meeting | str:  # noqa: A002
        if not capture.is_data(input):
            return "it writes into a tensor made without the rows"
        meeting = rule.forward(capture, input.clone(), *others, **more)
        if isinstance(meeting, str):
            return meeting
        outputs = meeting.outputs

        def finish() -> Any:
            return input.copy_(capture.data(outputs))

        return Meeting(weights=meeting.weights, saved=meeting.saved, places=meeting.places, finish=finish)

    return Rule(name=rule.name, forward=forward, contributions=rule.contributions)


def _rows(capture: CaptureMode, data: Tensor, dims: int) -> Tensor:
    """Return data as (B, *row) with `dims` axes behind that of the rows."""
    x = capture.physical(data)
    return x.reshape(x.shape[0], *(1 for _ in range(dims - data.dim())), *x.shape[1:])


def _operands(capture: CaptureMode, one: Any, other: Any) -> tuple[Tensor, Tensor] | str:
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return "an operand is no tensor"
    data, weight = (one, other) if capture.is_data(one) else (other, one)
    if data.is_complex() or (data.dtype != weight.dtype and not data.dim()):
        return "the operands are of different types"
    return _rows(capture, data, max(data.dim(), weight.dim())), weight


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
subtraction = Rule(name="subtraction", forward=sub_forward, contributions=add_contributions)
reversed_subtraction = Rule(name="subtraction", forward=rsub_forward, contributions=add_contributions)
multiplication = Rule(name="multiplication", forward=mul_forward, contributions=mul_contributions)
division = Rule(name="division", forward=div_forward, contributions=div_contributions)
where = Rule(name="where", forward=where_forward, contributions=where_contributions)
where_method = Rule(name="where", forward=where_method_forward, contributions=where_contributions)
prelu = Rule(name="prelu", forward=prelu_forward, contributions=mul_contributions)
