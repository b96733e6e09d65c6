"""`cat` and `stack` of data and weights, such as a class token: a part of the output's gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clipwise.clipping.contributions import Contribution, Dense
from clipwise.clipping.rules.arithmetic import reduced
from clipwise.clipping.rules.rule import Meeting, Rule

if TYPE_CHECKING:
    from clipwise.clipping.capture import CaptureMode


def cat_forward(
    capture: CaptureMode,
    tensors: Sequence[Tensor],
    dim: int = 0,
    *,
    axis: int | None = None,
) -> Meeting | str:
    """Run `torch.cat` of tensors of rows (B, *row)."""
    dims = tensors[0].dim()
    if any(tensor.dim() != dims for tensor in tensors):
        return "one of its tensors is an empty vector"
    along = 1 + (dim if axis is None else axis) % dims
    kept, parts = _parts(capture, tensors)
    stops = torch.tensor([part.shape[along] for part in parts]).cumsum(0).tolist()
    with capture.whole_batch():
        y = torch.cat(parts, along)
    places = tuple((along, stops[i] - parts[i].shape[along], parts[i].shape[along]) for i in kept)
    weights = tuple(tensors[i] for i in kept)
    return Meeting(weights=weights, saved=places, places=(y,), outputs=y)


def stack_forward(
    capture: CaptureMode,
    tensors: Sequence[Tensor],
    dim: int = 0,
) -> Meeting | str:
    """Run `torch.stack` of tensors of rows (B, *row)."""
    along = 1 + dim % (tensors[0].dim() + 1)
    kept, parts = _parts(capture, tensors)
    with capture.whole_batch():
        y = torch.stack(parts, along)
    weights = tuple(tensors[i] for i in kept)
    return Meeting(weights=weights, saved=tuple((along, i, 1) for i in kept), places=(y,), outputs=y)


def _parts(capture: CaptureMode, tensors: Sequence[Tensor]) -> tuple[list[int], list[Tensor]]:
    """Return which tensors are weights, and all of them as (B, *row), weights detached."""
    kept = [i for i, tensor in enumerate(tensors) if capture.is_weight(tensor)]
    data = [capture.physical(tensor) for tensor in tensors if capture.is_data(tensor)]
    beside = next((x for x in data if x.requires_grad), None)
    with capture.whole_batch():
        fixed = [capture.detached(one, beside) if i in kept else one for i, one in enumerate(tensors)]
    parts = [capture.physical(tensor) for tensor in fixed]
    return kept, parts


def contributions(
    weights: Sequence[Tensor], saved: Any, gradients: Sequence[Tensor | None], units: int
) -> list[Contribution | None]:
    """Return the parts of the output's gradients that belong to the weights."""
    (g,) = gradients
    if g is None:
        return [None] * len(weights)
    return [
        Dense(reduced(g.narrow(along, start, length).reshape(g.shape[0], *weight.shape), units, weight.shape))
        for weight, (along, start, length) in zip(weights, saved, strict=True)
    ]


cat = Rule(name="concatenation", forward=cat_forward, contributions=contributions)
stack = Rule(name="concatenation", forward=stack_forward, contributions=contributions)
