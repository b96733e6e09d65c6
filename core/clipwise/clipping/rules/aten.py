"""The operations of exported programs: overloads in `torch.ops.aten` of the functions of torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from clipwise.clipping.capture import CaptureMode

Known = TypeVar("Known")
_OTHERWISE = frozenset({"embedding", "embedding_bag"})
"""Functions whose arguments are in another order in aten."""


def with_overloads(table: Mapping[Callable[..., Any], Known]) -> dict[Callable[..., Any], Known]:
    """Return `table` with the overloads of its functions beside them."""
    found = dict(table)
    for function, known in table.items():
        name = getattr(function, "__name__", "")
        packet = None if name in _OTHERWISE else getattr(torch.ops.aten, name, None)
        if packet is None or not hasattr(packet, "overloads"):
            continue
        for overload in packet.overloads():
            if "out" not in overload:
                found[getattr(packet, overload)] = known
    return found


def size(capture: CaptureMode, input: Tensor, dim: int) -> int:  # noqa: A002, ARG001
    """Do `sym_size`, by which an exported program asks for its number of rows."""
    return input.shape[dim]


def nothing(capture: CaptureMode, *args: Any, **kwargs: Any) -> None:
    """Do one of the checks that exporting writes down, which look at no values."""


def embedding(
    weight: Tensor,
    indices: Tensor,
    padding_idx: int = -1,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Do `aten.embedding` by torch's function; there, -1 is no index of padding."""
    padding = None if padding_idx < 0 else padding_idx
    return functional.embedding(indices, weight, padding, None, 2.0, scale_grad_by_freq, sparse)
