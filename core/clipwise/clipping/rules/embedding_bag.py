"""`y = sum_p s_p W[i_p]` over a bag of indices: a table of which each row may be looked up several times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from clipwise.clipping.contributions import Contribution, Sparse, widened
from clipwise.clipping.rules.rule import Meeting, Rule, as_place

if TYPE_CHECKING:
    from clipwise.clipping.capture import CaptureMode


def forward(
    capture: CaptureMode,
    input: Tensor,  # noqa: A002
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,  # noqa: ARG001
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,  # noqa: ARG001
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,  # noqa: ARG001
    padding_idx: int | None = None,
) -> Meeting | str:
    """Run on bags of indices (B, N, P), as sums or means."""
    if not capture.is_data(input) or capture.is_data(weight):
        return "its table depends on the rows"
    if max_norm is not None or scale_grad_by_freq:
        return "it rescales its table or its gradients"
    if offsets is not None or mode == "max":
        return "it has offsets" if offsets is not None else "its bags choose their largest elements"
    if per_sample_weights is not None and not capture.is_data(per_sample_weights):
        return "its weights of indices are the same for every row"
    index = capture.physical(input)
    scale = None if per_sample_weights is None else capture.physical(per_sample_weights)
    with capture.whole_batch():
        bags = functional.embedding_bag(
            index.flatten(0, 1),
            capture.detached(weight, None),
            mode=mode,
            per_sample_weights=None if scale is None else scale.flatten(0, 1),
            padding_idx=padding_idx,
        )
        y = as_place(bags, (*index.shape[:2], weight.shape[1]))
    if padding_idx is not None:
        padding_idx %= weight.shape[0]
    kept = None if scale is None else scale.detach()
    return Meeting(weights=(weight,), saved=(index, kept, mode, padding_idx), places=(y,), outputs=y)


def contributions(
    weights: Sequence[Tensor], saved: Any, gradients: Sequence[Tensor | None], units: int
) -> list[Contribution | None]:
    """Return the scaled gradients of a bag for each of its indices; those of `padding_idx` are zero."""
    (index, scale, mode, padding), (g,) = saved, gradients
    if g is None:
        return [None]
    values = widened(g)[:, :, None]
    if scale is not None:
        values = values * scale[..., None]
    values = values.expand(*index.shape, g.shape[-1])
    counted = torch.ones_like(index, dtype=torch.bool) if padding is None else index != padding
    if mode == "mean":
        values = values / counted.sum(-1).clamp(min=1)[..., None, None]
    if padding is not None:
        values = torch.where(counted[..., None], values, 0.0)
    table = index.reshape(units, -1).long()
    return [Sparse(table, values.reshape(units, table.shape[1], -1), weights[0].shape[0])]


embedding_bag = Rule(name="embedding bag", forward=forward, contributions=contributions)
