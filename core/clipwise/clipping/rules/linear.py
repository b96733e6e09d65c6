"""`y = x W^T + b`: the gradient of W is the outer product of output gradient and input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.nn import functional

from clipwise.clipping.contributions import Contribution, Dense, Outer
from clipwise.clipping.rules.rule import Meeting, Rule, as_place

if TYPE_CHECKING:
    from clipwise.clipping.capture import CaptureMode


def forward(capture: CaptureMode, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Meeting | str:  # noqa: A002
    """Run on rows (B, ..., I)."""
    if not capture.is_data(input) or capture.is_data(weight) or capture.is_data(bias):
        return "its weight depends on the rows"
    if weight.dim() != 2:
        return "its weight is a vector"
    x = capture.physical(input)
    with capture.whole_batch():
        kept = capture.detached(weight, x), None if bias is None else capture.detached(bias, x)
        y = as_place(functional.linear(x, *kept))
    return Meeting(
        weights=(weight,) if bias is None else (weight, bias), saved=(x.detach(),), places=(y,), outputs=y
    )


def contributions(
    weights: Sequence[Tensor], saved: Any, gradients: Sequence[Tensor | None], units: int
) -> list[Contribution | None]:
    """Return `sum_p g_p x_p^T`, and `sum_p g_p` for the bias."""
    (x,), (g,) = saved, gradients
    if g is None:
        return [None] * len(weights)
    return outer_and_bias(weights, g.reshape(units, -1, g.shape[-1]), x.reshape(units, -1, x.shape[-1]))


def outer_and_bias(weights: Sequence[Tensor], g: Tensor, x: Tensor) -> list[Contribution | None]:
    """Return the contributions of a weight (O, I), and of a bias (O,) if there is one, from (G, P, ...)."""
    outer = Outer(g, x)
    found: list[Contribution | None] = [outer]
    if len(weights) > 1:
        found.append(Dense(g[:, 0], known=lambda: outer.left_norms) if g.shape[1] == 1 else Dense(g.sum(1)))
    return found


def summed_positions(g: Tensor) -> Tensor:
    """Return the sums (G, O) of (G, P, O) over positions."""
    return g[:, 0] if g.shape[1] == 1 else g.sum(1)


linear = Rule(name="linear", forward=forward, contributions=contributions)
