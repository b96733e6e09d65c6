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
    trained = tuple(w for w in (weight, bias) if capture.is_weight(w))
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
    with capture.whole_batch():
        y = functional.group_norm(
            images,
            num_groups,
            None if weight is None else capture.detached(weight, x),
            None if bias is None else capture.detached(bias, x),
            eps,
        )
        y = as_place(y, x.shape)
    trained = tuple(w for w in (weight, bias) if capture.is_weight(w))
    return Meeting(
        weights=trained,
        saved=(images.detach(), num_groups, eps, capture.is_weight(weight)),
        places=(y,),
        outputs=y,
    )


def group_norm_contributions(
    weights: Sequence[Tensor], saved: Any, gradients: Sequence[Tensor | None], units: int
) -> list[Contribution | None]:
    """Return `sum g x^` and `sum g` over the positions of each channel."""
    (x, groups, eps, weighted), (g,) = saved, gradients
    if g is None:
        return [None] * len(weights)
    channels = x.shape[1]
    g = widened(g).reshape(x.shape[0], channels, -1)
    found: list[Contribution | None] = []
    if weighted:
        wide = widened(x).reshape(x.shape[0], channels, -1)
        normalised = functional.group_norm(wide, groups, eps=eps)
        found.append(Dense(_over_units(normalised.mul_(g).sum(2), units)))
    if len(weights) > len(found):
        found.append(Dense(_over_units(g.sum(2), units)))
    return found


def _over_units(x: Tensor, units: int) -> Tensor:
    return x if x.shape[0] == units else x.reshape(units, -1, x.shape[1]).sum(1)


group_norm = Rule(name="group norm", forward=group_norm_forward, contributions=group_norm_contributions)
