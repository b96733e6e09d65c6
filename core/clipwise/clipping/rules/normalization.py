"""Layer, group and root-mean-square normalisation: an affine map of what was normalised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from clipwise.clipping.contributions import Contribution, Dense, widened
from clipwise.clipping.rules.rule import Meeting, Rule, as_place

if TYPE_CHECKING:
    from clipwise.clipping.capture import CaptureMode


def layer_norm_forward(
    capture: CaptureMode,
    input: Tensor,  # noqa: A002
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,  # noqa: ARG001
) -> Meeting | str:
    """Run on rows (B, ..., *normalized_shape)."""
    if not capture.is_data(input) or capture.is_data(weight) or capture.is_data(bias):
        return "its weight depends on the rows"
    x = capture.physical(input)
    shape = tuple(normalized_shape)
    with capture.whole_batch():
        y, mean, scale = torch.native_layer_norm(
            x,
            shape,
            None if weight is None else capture.detached(weight, x),
            None if bias is None else capture.detached(bias, x),
            eps,
        )
    trained = tuple(w for w in (weight, bias) if w is not None and capture.is_weight(w))
    return Meeting(
        weights=trained,
        saved=(x.detach(), mean.detach(), scale.detach(), capture.is_weight(weight)),
        places=(y,),
        outputs=y,
    )


def layer_norm_contributions(
    weights: Sequence[Tensor], saved: Any, gradients: Sequence[Tensor | None], units: int
) -> list[Contribution | None]:
    """Return `sum_p g_p x^_p` and `sum_p g_p`."""
    (x, mean, scale, weighted), (g,) = saved, gradients
    if g is None:
        return [None] * len(weights)
    shape = weights[0].shape
    found: list[Contribution | None] = []
    g = widened(g)
    if weighted:
        normalised = (widened(x) - mean).mul_(scale)
        found.append(Dense(_over_positions(normalised.mul_(g), units, shape)))
    if len(weights) > len(found):
        found.append(Dense(_over_positions(g, units, shape)))
    return found


def _over_positions(x: Tensor, units: int, shape: torch.Size) -> Tensor:
    positions = x.reshape(units, -1, *shape)
    return positions[:, 0] if positions.shape[1] == 1 else positions.sum(1)


layer_norm = Rule(name="layer norm", forward=layer_norm_forward, contributions=layer_norm_contributions)


def rms_norm_forward(
    capture: CaptureMode,
    input: Tensor,  # noqa: A002
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Meeting | str:
    """Run on rows (B, ..., *normalized_shape)."""
    if weight is None or not capture.is_data(input) or capture.is_data(weight):
        return "its weight depends on the rows"
    x = capture.physical(input)
    with capture.whole_batch():
        normalised = functional.rms_norm(x, tuple(normalized_shape), None, eps)
        y = normalised * capture.detached(weight, x)
    return Meeting(weights=(weight,), saved=(normalised.detach(),), places=(y,), outputs=y)


def rms_norm_contributions(
    weights: Sequence[Tensor], saved: Any, gradients: Sequence[Tensor | None], units: int
) -> list[Contribution | None]:
    """Return `sum_p g_p x^_p`."""
    (normalised,), (g,) = saved, gradients
    if g is None:
        return [None]
    return [Dense(_over_positions(widened(g) * normalised, units, weights[0].shape))]


rms_norm = Rule(name="rms norm", forward=rms_norm_forward, contributions=rms_norm_contributions)


def group_norm_forward(
    capture: CaptureMode,
    input: Tensor,  # noqa: A002
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,  # noqa: ARG001
) -> Meeting | str:
    """Run on rows (B, N, C, ...)."""
    if not capture.is_data(input) or capture.is_data(weight) or capture.is_data(bias):
        return "its weight depends on the rows"
    x = capture.physical(input)
    images = x.flatten(0, 1)
    mean = scale = None
    with capture.whole_batch():
        scales = None if weight is None else capture.detached(weight, x)
        shifts = None if bias is None else capture.detached(bias, x)
        if torch.is_autocast_enabled(x.device.type):  # which knows this operation by its public name only
            y = functional.group_norm(images, num_groups, scales, shifts, eps)
        else:
            size = images.shape[2:].numel()
            y, mean, scale = torch.native_group_norm(
                images.contiguous(), scales, shifts, images.shape[0], images.shape[1], size, num_groups, eps
            )
            mean, scale = mean.detach(), scale.detach()
        y = as_place(y, x.shape)
    return _grouped_meeting(capture, (weight, bias), (images, num_groups, eps, mean, scale), y)


def instance_norm_forward(
    capture: CaptureMode,
    input: Tensor,  # noqa: A002
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Meeting | str:
    """Run on rows (B, N, C, ...): every channel is a group of its own."""
    if not capture.is_data(input) or capture.is_data(weight) or capture.is_data(bias):
        return "its weight depends on the rows"
    if running_mean is not None or running_var is not None or not use_input_stats:
        return "it has running statistics"
    x = capture.physical(input)
    images = x.flatten(0, 1)
    with capture.whole_batch():
        scales = None if weight is None else capture.detached(weight, x)
        shifts = None if bias is None else capture.detached(bias, x)
        y = functional.instance_norm(images, None, None, scales, shifts, True, momentum, eps)
        y = as_place(y, x.shape)
    return _grouped_meeting(capture, (weight, bias), (images, images.shape[1], eps, None, None), y)


def _grouped_meeting(
    capture: CaptureMode,
    affine: tuple[Tensor | None, Tensor | None],
    saved: tuple[Tensor, int, float, Tensor | None, Tensor | None],
    y: Tensor,
) -> Meeting:
    images, *rest = saved
    return Meeting(
        weights=tuple(one for one in affine if one is not None and capture.is_weight(one)),
        saved=(images.detach(), *rest, capture.is_weight(affine[0])),
        places=(y,),
        outputs=y,
    )


def group_norm_contributions(
    weights: Sequence[Tensor], saved: Any, gradients: Sequence[Tensor | None], units: int
) -> list[Contribution | None]:
    """Return `sum g x^` and `sum g` over the positions of each channel.

    Both come from one pass over g and x: of the ordinary backward kernel, where all images are one image
    with groups of their own, so that there is no batch to sum over.
    """
    (x, groups, eps, mean, scale, weighted), (g,) = saved, gradients
    if g is None:
        return [None] * len(weights)
    images, channels = x.shape[:2]
    size = x.shape[2:].numel()
    # The kernels read memory as if it were contiguous; a reshape of a single image may be a view that is not.
    x, g = (widened(one).reshape(1, -1, size).contiguous() for one in (x, g))
    if mean is None:
        wide = x.view(images, channels, size)
        _, mean, scale = torch.native_group_norm(wide, None, None, images, channels, size, groups, eps)
    _, scales, shifts = torch.ops.aten.native_group_norm_backward(
        g,
        x,
        widened(mean).reshape(1, -1),
        widened(scale).reshape(1, -1),
        x.new_empty(images * channels),  # in place of the weight: it decides on the shape of its gradient
        1,
        images * channels,
        size,
        images * groups,
        (False, weighted, len(weights) > weighted),
    )
    return [
        Dense(one.view(units, -1, channels).sum(1) if images != units else one.view(units, channels))
        for one in (scales, shifts)
        if one is not None
    ]


group_norm = Rule(name="group norm", forward=group_norm_forward, contributions=group_norm_contributions)
instance_norm = Rule(
    name="instance norm", forward=instance_norm_forward, contributions=group_norm_contributions
)
