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

from clipwise.clipping.dropout import attend, dropped

if TYPE_CHECKING:
    from clipwise.clipping.capture import CaptureMode


def view(capture: CaptureMode, input: Tensor, *size: Any, **more: Any) -> Any:  # noqa: A002
    """Do `view` where the memory of a row is not contiguous, as it would be for a row alone."""
    if more or not capture.is_data(input) or (size and isinstance(size[0], torch.dtype)):
        return NotImplemented
    return input.reshape(*size)


def setitem(capture: CaptureMode, input: Tensor, index: Any, value: Any) -> Any:  # noqa: A002
    """Do `x[mask] = number`, whose number of elements differs between rows."""
    plain = not isinstance(value, Tensor) or (value.dim() == 0 and not value.requires_grad)
    if not plain or not isinstance(index, Tensor) or index.dtype != torch.bool:
        return NotImplemented
    if not capture.is_data(index) or not capture.is_data(input) or index.dim() > input.dim():
        return NotImplemented
    mask = index.reshape(*index.shape, *(1 for _ in range(input.dim() - index.dim())))
    if isinstance(value, Tensor):
        input.copy_(torch.where(mask, value, input))
    else:
        input.masked_fill_(mask, value)
    return None


def requires_grad(capture: CaptureMode, input: Tensor, requires_grad: bool = True) -> Any:  # noqa: A002
    """Do `requires_grad_`, which checkpointing asks for, on what is behind data."""
    if not requires_grad or not capture.is_data(input):
        return NotImplemented
    whole = capture.unwrapped(input)
    if not whole.requires_grad:
        with capture.whole_batch():
            whole.requires_grad_()
    return input


def attention(
    capture: CaptureMode,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **more: Any,
) -> Any:
    """Do `scaled_dot_product_attention` by its fused kernel."""
    tensors = (query, key, value)
    wide = [capture.physical(tensor) for tensor in tensors if capture.is_data(tensor)]
    axes = {tensor.dim() for tensor in wide}
    fused = len(wide) == 3 and axes in ({4}, {5}) and len({tensor.shape[1] for tensor in wide}) == 1
    if dropout_p > 0.0 or not fused or capture.is_weight(attn_mask):
        # Opened up, its products and sums are met one by one.
        with capture:
            drop = capture.data(capture.key()) if dropout_p > 0.0 else None
            return attend(drop, query, key, value, attn_mask, dropout_p, is_causal, **more)
    shape = wide[0].shape
    mask = attn_mask
    with capture.whole_batch():
        # Rows (B, T, E) are one head each; rows (B, N, H, T, E) become (B * N, H, T, E).
        q, k, v = (tensor.flatten(0, 1) if axes == {5} else tensor for tensor in wide)
        if mask is not None and capture.is_data(mask):
            mask = capture.physical(mask)
            mask = mask.reshape(mask.shape[0], *(1 for _ in range(len(shape) - mask.dim())), *mask.shape[1:])
            if axes == {5}:
                mask = mask.expand(-1, shape[1], -1, -1, -1).flatten(0, 1)
        elif mask is not None and axes == {5} and mask.dim() == 4:
            mask = mask.expand(shape[0], *(-1 for _ in range(4))).flatten(0, 1)
        y = functional.scaled_dot_product_attention(q, k, v, mask, 0.0, is_causal, **more)
    return capture.data(y.view(*shape[:2], *y.shape[1:]) if axes == {5} else y)


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
) -> Any:
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
    return capture.data(y.view(*logits.shape[:2], *y.shape[1:]))


def dropout(func: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return `func`, a form of dropout, with masks of the rows' keys."""

    def forward(capture: CaptureMode, *args: Any, **kwargs: Any) -> Tensor:
        # What is dropped may be a weight, which then meets the rows' keys.
        with capture:
            return dropped(func, lambda: capture.data(capture.key()), *args, **kwargs)

    return forward
