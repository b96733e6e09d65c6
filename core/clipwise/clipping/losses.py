"""Losses by name: one number for each row, the mean over the row's own positions."""

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor
from torch.nn import functional

from clipwise.errors import InvalidInput

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""`(outputs, targets) -> (B,)`. Nothing in it may look across rows."""

IGNORED = -100
"""A class target that counts for nothing, as in `torch.nn.functional.cross_entropy`."""


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the cross entropy (B,) of logits (B, C) or (B, C, T) and classes (B,) or (B, T).

    The mean is over a row's own positions, without those whose target is -100.
    """
    losses = functional.cross_entropy(outputs, targets, reduction="none", ignore_index=IGNORED)
    if losses.ndim == 1:
        return losses
    counted = (targets != IGNORED).flatten(1).sum(1).clamp(min=1)
    return losses.flatten(1).sum(1) / counted


def mse(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean squared error (B,)."""
    made, wanted = _alike(outputs, targets)
    return (made - wanted).square().mean(1)


def mae(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean absolute error (B,)."""
    made, wanted = _alike(outputs, targets)
    return (made - wanted).abs().mean(1)


def huber(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the Huber loss (B,) with its corner at 1."""
    made, wanted = _alike(outputs, targets)
    return functional.huber_loss(made, wanted, reduction="none").mean(1)


def binary_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the cross entropy (B,) of logits and targets between 0 and 1."""
    made, wanted = _alike(outputs, targets)
    return functional.binary_cross_entropy_with_logits(made, wanted, reduction="none").mean(1)


def _alike(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return both as (B, N). Targets (B,) for outputs (B, 1) would broadcast to (B, B), silently."""
    rows = outputs.shape[0]
    if outputs.numel() != targets.numel() or targets.shape[:1] != (rows,):
        raise InvalidInput(
            f"outputs have shape {tuple(outputs.shape)} and targets {tuple(targets.shape)}; "
            "this loss needs one target for each output"
        )
    size = outputs.shape[1:].numel()
    return outputs.reshape(rows, size), targets.reshape(rows, size).to(outputs.dtype)


LOSSES: dict[str, Loss] = {
    "binary_cross_entropy": binary_cross_entropy,
    "cross_entropy": cross_entropy,
    "huber": huber,
    "mae": mae,
    "mse": mse,
}


def as_loss(loss: str | Loss) -> Loss:
    """Return the loss called `loss`, or `loss` itself if it is callable.

    Raises:
        InvalidInput: if there is no such loss.
    """
    if callable(loss):
        return loss
    if loss not in LOSSES:
        raise InvalidInput(
            f"unknown loss {loss!r}; known: {', '.join(sorted(LOSSES))}, or give a function "
            "(outputs, targets) -> (B,)"
        )
    return LOSSES[loss]
