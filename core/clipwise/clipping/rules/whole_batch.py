"""Operations without weights that run better on the whole batch than row by row.

Each does for data (B, *row) what `torch.func`'s batching would do, by the fused kernel where that would
fall back to a slow one; or returns NotImplemented.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from clipwise.clipping.dropout import drop_channels, drop_elements

if TYPE_CHECKING:
    from clipwise.clipping.capture import CaptureMode


def view(capture: CaptureMode, input: Tensor, *size: Any, **more: Any) -> Tensor:  # noqa: A002
    """Do `view` where the memory of a row is not contiguous, as it would be for a row alone."""
    if more or not capture.is_data(input) or (size and isinstance(size[0], torch.dtype)):
        return NotImplemented
    return input.reshape(*size)


def attention(
    capture: CaptureMode,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **more: Any,
) -> Tensor:
    """Do `scaled_dot_product_attention` by its fused kernel."""
    tensors = (query, key, value)
    if not all(map(capture.is_data, tensors)) or capture.is_weight(attn_mask):
        return NotImplemented
    if dropout_p > 0.0:
        return _attention_with_dropout(capture, *tensors, attn_mask, dropout_p, is_causal, **more)
    wide = [capture.physical(tensor) for tensor in tensors]
    shape = wide[0].shape
    if any(tensor.dim() != 5 for tensor in wide) or any(tensor.shape[1] != shape[1] for tensor in wide):
        return NotImplemented
    mask = attn_mask
    with capture.whole_batch():
        q, k, v = (tensor.flatten(0, 1) for tensor in wide)
        if mask is not None and capture.is_data(mask):
            mask = capture.physical(mask)
            mask = mask.reshape(mask.shape[0], *(1 for _ in range(5 - mask.dim())), *mask.shape[1:])
            mask = mask.expand(-1, shape[1], -1, -1, -1).flatten(0, 1)
        y = functional.scaled_dot_product_attention(q, k, v, mask, 0.0, is_causal, **more)
    return capture.data(y.unflatten(0, shape[:2]))


def _attention_with_dropout(
    capture: CaptureMode,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    p: float,
    is_causal: bool,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if enable_gqa:
        repeats = query.shape[-3] // key.shape[-3]
        key, value = (tensor.repeat_interleave(repeats, -3) for tensor in (key, value))
    size = query.shape[-1] ** -0.5 if scale is None else scale
    scores = (query * size) @ key.transpose(-2, -1)
    if is_causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    return _dropped(capture, drop_elements, torch.softmax(scores, -1), p) @ value


def cross_entropy(
    capture: CaptureMode,
    input: Tensor,  # noqa: A002
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Do `cross_entropy` without reduction by its fused kernel."""
    plain = size_average is None and reduce is None and reduction == "none"
    if not plain or not capture.is_data(input) or not capture.is_data(target):
        return NotImplemented
    if capture.is_data(weight) or capture.is_weight(weight) or input.dim() < 2:
        return NotImplemented
    logits, wanted = capture.physical(input), capture.physical(target)
    with capture.whole_batch():
        y = functional.cross_entropy(
            logits.flatten(0, 1),
            wanted.flatten(0, 1),
            weight,
            ignore_index=ignore_index,
            reduction="none",
            label_smoothing=label_smoothing,
        )
    return capture.data(y.unflatten(0, logits.shape[:2]))


def _dropout(drop: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def dropped(
        capture: CaptureMode,
        input: Tensor,  # noqa: A002
        p: float = 0.5,
        training: bool = True,
        inplace: bool = False,
    ) -> Tensor:
        if not training or p == 0 or not capture.is_data(input):
            return input if not training or p == 0 else NotImplemented
        return _dropped(capture, drop, input, p, inplace)

    return dropped


def _dropped(
    capture: CaptureMode, drop: Callable[..., Tensor], x: Tensor, p: float, inplace: bool = False
) -> Tensor:
    key = capture.data(capture.key())
    return drop(key, x, p, True, inplace)


elements = _dropout(drop_elements)
channels = _dropout(drop_channels)
