"""The one backward pass: from captured losses to the contributions of every weight."""

from itertools import islice

import torch
from torch import Tensor

from clipwise.clipping.capture import Captured
from clipwise.clipping.contributions import Contribution
from clipwise.clipping.parameters import Leaves


def backward(
    captured: Captured, weights: Tensor, leaves: Leaves, units: int
) -> list[tuple[Tensor, Contribution]]:
    """Run one backward pass; return the weights that met the rows, with their contributions.

    Args:
        captured: what a forward pass left.
        weights: of the rows, (B,).
        leaves: the module's trainable parameters.
        units: number of units G, of consecutive rows.

    Raises:
        RuntimeError: if a parameter met the rows where capture does not see it.
    """
    losses = captured.losses
    if not losses.requires_grad:
        return []
    # A padding row's loss may be anything: 0 * inf is NaN, so it is replaced and not scaled.
    with torch.enable_grad():
        total = (torch.where(weights == 0, torch.zeros_like(losses), losses) * weights).sum()
    edges = [edge for record in captured.records for edge in record.edges]
    # Nothing should lead to the parameters themselves, as all of them were detached where they were met.
    gradients = torch.autograd.grad(total, (*edges, *leaves.tensors), allow_unused=True)
    for name, gradient in zip(leaves.names, gradients[len(edges) :], strict=True):
        if gradient is not None:
            raise RuntimeError(f"parameter '{name}' met the rows in an operation that capture does not see")
    remaining = iter(gradients)
    met: list[tuple[Tensor, Contribution]] = []
    for record in captured.records:
        record.require_unchanged()
        found = record.rule.contributions(
            record.weights, record.saved, list(islice(remaining, len(record.edges))), units
        )
        for weight, one in zip(record.weights, found, strict=True):
            if one is not None and one.shape != weight.shape:
                raise RuntimeError(
                    f"the rule '{record.rule.name}' has gradients {tuple(one.shape)} for a weight of shape "
                    f"{tuple(weight.shape)}"
                )
        met += [
            (weight, one)
            for weight, one in zip(record.weights, found, strict=True)
            if one is not None and weight.requires_grad
        ]
    return met
