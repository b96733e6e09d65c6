"""`w[i]` and `index_select`: rows of a weight that data chooses, as in an embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clipwise.clipping.contributions import Arranged, Contribution, Sparse
from clipwise.clipping.rules.rule import Meeting, Rule

if TYPE_CHECKING:
    from clipwise.clipping.capture import CaptureMode

_INTEGERS = frozenset({torch.int64, torch.int32, torch.int16, torch.int8})


def getitem_forward(capture: CaptureMode, input: Tensor, index: Any) -> Meeting | str:  # noqa: A002
    """Run `w[i]` with one tensor of integers (B, ...), which may count from the end."""
    if isinstance(index, tuple) and len(index) == 1:
        index = index[0]
    if not capture.is_data(index) or index.dtype not in _INTEGERS or capture.is_data(input):
        return "it is indexed by more than one tensor of integers"
    return _selected(capture, input, capture.physical(index))


def index_select_forward(
    capture: CaptureMode,
    input: Tensor,  # noqa: A002
    dim: int,
    index: Tensor,
) -> Meeting | str:
    """Run `index_select` along the first axis."""
    if capture.is_data(input) or dim not in (0, -input.dim()):
        return "it selects along another axis than the first"
    return _selected(capture, input, capture.physical(index))


def _selected(capture: CaptureMode, weight: Tensor, index: Tensor) -> Meeting:
    with capture.whole_batch():
        y = capture.detached(weight, None)[index]
    return Meeting(weights=(weight,), saved=(index,), places=(y,), outputs=y)


def contributions(
    weights: Sequence[Tensor], saved: Any, gradients: Sequence[Tensor | None], units: int
) -> list[Contribution | None]:
    """Return the gradients of the rows that were chosen."""
    (index,), (g,) = saved, gradients
    if g is None:
        return [None]
    shape = weights[0].shape
    rows = index.reshape(units, -1).long() % shape[0]
    found = Sparse(rows, g.reshape(units, rows.shape[1], -1), shape[0])
    return [found if len(shape) == 2 else Arranged(found, shape, range(len(shape)))]


getitem = Rule(name="rows of a table", forward=getitem_forward, contributions=contributions)
index_select = Rule(name="rows of a table", forward=index_select_forward, contributions=contributions)
