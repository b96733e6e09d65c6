"""`y[p] = W[i_p]`: the gradient of a table has rows only where it was looked up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from clipwise.clipping.contributions import Contribution, Sparse
from clipwise.clipping.rules.rule import Meeting, Rule

if TYPE_CHECKING:
    from clipwise.clipping.capture import CaptureMode


def forward(
    capture: CaptureMode,
    input: Tensor,  # noqa: A002
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,  # noqa: ARG001
    scale_grad_by_freq: bool = False,
    sparse: bool = False,  # noqa: ARG001
) -> Meeting | str:
    """Run on rows of indices (B, ...)."""
    if not capture.is_data(input) or capture.is_data(weight):
        return "its table depends on the rows"
    if max_norm is not None or scale_grad_by_freq:
        return "it rescales its table or its gradients"
    index = capture.physical(input)
    with capture.whole_batch():
        y = functional.embedding(index, capture.detached(weight, None))
    if padding_idx is not None and padding_idx < 0:
        padding_idx += weight.shape[0]
    return Meeting(weights=(weight,), saved=(index, padding_idx), places=(y,), outputs=y)


def contributions(
    weights: Sequence[Tensor], saved: Any, gradients: Sequence[Tensor | None], units: int
) -> list[Contribution | None]:
    """Return the gradients of the rows that were looked up; those of `padding_idx` are zero."""
    (index, padding), (g,) = saved, gradients
    if g is None:
        return [None]
    values = g.reshape(units, -1, g.shape[-1])
    index = index.reshape(units, -1).long()
    if padding is not None:
        values = torch.where((index == padding)[:, :, None], 0.0, values)
    return [Sparse(index, values, weights[0].shape[0])]


embedding = Rule(name="embedding", forward=forward, contributions=contributions)
