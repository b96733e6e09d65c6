"""What a rule is: the closed form of one operation's per-unit gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clipwise.clipping.contributions import Contribution


@dataclass(frozen=True, kw_only=True, eq=False)
class Meeting:
    """How an operation ran on the whole batch.

    Attributes:
        weights: what met the data, as it was given.
        saved: tensors (B, ...) and constants that the gradients need.
        places: physical outputs (B, ...) whose gradients the rule will be given.
        outputs: tensor, or nested tensors, (B, *row), that the model goes on with.
        finish: makes the model's outputs, where they are not simply `outputs`.
    """

    weights: tuple[Tensor, ...]
    saved: Any
    places: tuple[Tensor, ...]
    outputs: Any = None
    finish: Callable[[], Any] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Rule:
    """One operation's closed form.

    Attributes:
        name: what `explain` calls it.
        forward: `(capture, *args, **kwargs)` as the operation was called; it runs the operation on the
            whole batch with detached weights, or says in a sentence why it does not fit.
        contributions: `(weights, saved, gradients, units)` with the gradients (B, ...) of the places, or
            None where nothing reached them; a pure function of tensors. One contribution for each weight,
            None where it has none.
    """

    name: str
    forward: Callable[..., Meeting | str]
    contributions: Callable[
        [Sequence[Tensor], Any, Sequence[Tensor | None], int], Sequence[Contribution | None]
    ]


def as_place(tensor: Tensor, shape: Sequence[int] | None = None) -> Tensor:
    """Return `tensor`, or its elements as `shape`, as something that is no view for autograd.

    Were an output a view, an operation in place on it would enter the graph at what it is a view of.
    """
    if shape is None and not tensor._is_view():  # noqa: SLF001
        return tensor
    place: Tensor = torch.ops.aten._unsafe_view(tensor, tensor.shape if shape is None else shape)  # noqa: SLF001
    return place
