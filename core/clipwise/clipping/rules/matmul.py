"""Products of data with a weight: `x @ W` by its fastest kernel, all others as `product` has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clipwise.clipping.contributions import Contribution, Outer
from clipwise.clipping.rules import product
from clipwise.clipping.rules.equation import matmul_equation
from clipwise.clipping.rules.rule import Meeting, Rule, as_place

if TYPE_CHECKING:
    from clipwise.clipping.capture import CaptureMode


def matmul_forward(capture: CaptureMode, input: Tensor, other: Tensor) -> Meeting | str:  # noqa: A002
    """Run `x @ W`, of any numbers of axes, either of which is the weight."""
    if capture.is_data(input) and not capture.is_data(other) and other.dim() == 2:
        x = capture.physical(input)
        with capture.whole_batch():
            y = as_place(torch.matmul(x, capture.detached(other, x)))
        return Meeting(weights=(other,), saved=(x.detach(),), places=(y,), outputs=y)
    terms, output = matmul_equation(input.dim(), other.dim())
    return product.product_forward(capture, terms, output, (input, other))


def matmul_contributions(
    weights: Sequence[Tensor], saved: Any, gradients: Sequence[Tensor | None], units: int
) -> list[Contribution | None]:
    """Return `sum_p x_p g_p^T`."""
    if len(saved) > 1:
        return product.contributions(weights, saved, gradients, units)
    (x,), (g,) = saved, gradients
    if g is None:
        return [None]
    return [Outer(x.reshape(units, -1, x.shape[-1]), g.reshape(units, -1, g.shape[-1]))]


def outer_forward(capture: CaptureMode, input: Tensor, vec2: Tensor) -> Meeting | str:  # noqa: A002
    """Run `torch.outer`."""
    return product.product_forward(capture, ("i", "j"), "ij", (input, vec2))


def tensordot_forward(
    capture: CaptureMode,
    a: Tensor,
    b: Tensor,
    dims: Any = 2,
    out: Tensor | None = None,
) -> Meeting | str:
    """Run `torch.tensordot`."""
    if out is not None or isinstance(dims, Tensor):
        return "it is called with out, or with dims as a tensor"
    letters = [chr(ord("a") + i) for i in range(a.dim())]
    others = [chr(ord("A") + i) for i in range(b.dim())]
    pairs = (range(-dims, 0), range(dims)) if isinstance(dims, int) else dims
    for i, j in zip(*pairs, strict=True):
        others[j] = letters[i]
    once = [letter for letter in (*letters, *others) if (letter in letters) != (letter in others)]
    return product.product_forward(capture, ("".join(letters), "".join(others)), "".join(once), (a, b))


matmul = Rule(name="matmul", forward=matmul_forward, contributions=matmul_contributions)
tensordot = Rule(name="tensordot", forward=tensordot_forward, contributions=product.contributions)
outer = Rule(name="outer", forward=outer_forward, contributions=product.contributions)
