"""Convolutions: the outer product of output gradients and patches, over positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from clipwise.clipping.contributions import Contribution, Dense
from clipwise.clipping.rules.rule import Meeting, Rule

if TYPE_CHECKING:
    from clipwise.clipping.capture import CaptureMode


def _forward(operation: Callable[..., Tensor], axes: int) -> Callable[..., Meeting | str]:
    def forward(
        capture: CaptureMode,
        input: Tensor,  # noqa: A002
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Meeting | str:
        if not capture.is_data(input) or capture.is_data(weight) or capture.is_data(bias):
            return "its weight depends on the rows"
        if not capture.is_weight(weight):
            return "only its bias is trained"
        stride, dilation = _each(stride, axes), _each(dilation, axes)
        if isinstance(padding, str):
            if padding == "valid":
                padding = (0,) * axes
            else:
                spread = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
                if any(s % 2 for s in spread):
                    return "its padding is not symmetric"
                padding = tuple(s // 2 for s in spread)
        padding = _each(padding, axes)
        x = capture.physical(input)
        images = x.flatten(0, 1) if input.dim() == axes + 2 else x
        with capture.whole_batch():
            y = operation(
                images,
                capture.detached(weight, x),
                None if bias is None else capture.detached(bias, x),
                stride,
                padding,
                dilation,
                groups,
            )
        outputs = y.unflatten(0, x.shape[:2]) if input.dim() == axes + 2 else y
        return Meeting(
            weights=(weight,) if not capture.is_weight(bias) else (weight, bias),
            saved=(images.detach(), stride, padding, dilation, groups),
            places=(y,),
            outputs=outputs,
        )

    return forward


def _each(value: Any, axes: int) -> tuple[int, ...]:
    values = (value,) * axes if isinstance(value, int) else tuple(value)
    return values * axes if len(values) == 1 else values


def contributions(
    weights: Sequence[Tensor], saved: Any, gradients: Sequence[Tensor | None], units: int
) -> list[Contribution | None]:
    """Return one convolution of gradients with inputs for every row."""
    (x, stride, padding, dilation, groups), (g,) = saved, gradients
    if g is None:
        return [None] * len(weights)
    axes = x.dim() - 2
    rows = torch.stack(
        [
            torch.ops.aten.convolution_backward(
                g[i : i + 1],
                x[i : i + 1],
                weights[0],
                None,
                stride,
                padding,
                dilation,
                False,
                [0] * axes,
                groups,
                (False, True, False),
            )[1]
            for i in range(x.shape[0])
        ]
    )
    found: list[Contribution | None] = [Dense(_over_units(rows, units))]
    if len(weights) > 1:
        found.append(Dense(_over_units(g.flatten(2).sum(2), units)))
    return found


def _over_units(x: Tensor, units: int) -> Tensor:
    return x if x.shape[0] == units else x.reshape(units, -1, *x.shape[1:]).sum(1)


conv1d = Rule(name="conv1d", forward=_forward(functional.conv1d, 1), contributions=contributions)
conv2d = Rule(name="conv2d", forward=_forward(functional.conv2d, 2), contributions=contributions)
conv3d = Rule(name="conv3d", forward=_forward(functional.conv3d, 3), contributions=contributions)
