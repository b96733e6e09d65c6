"""The one backward pass: from captured losses to the contributions of every weight."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor

from clipwise.clipping.attribution import place_of
from clipwise.clipping.capture import Captured, Record
from clipwise.clipping.contributions import Contribution
from clipwise.clipping.parameters import Leaves
from clipwise.clipping.process_settings import full_precision


def backward(
    captured: Captured, weights: Tensor | None, leaves: Leaves, units: int
) -> list[tuple[Tensor, Contribution]]:
    """Run one backward pass; return the weights that met the rows, with their contributions.

    A record is turned into contributions as soon as the pass reaches it, while its gradients are in the
    cache, and is let go: what was instantiated takes the place of what it was made from.

    Args:
        captured: what a forward pass left; its records are used up.
        weights: of the rows, (B,); None for ones.
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
        if weights is not None:
            losses = torch.where(weights == 0, torch.zeros_like(losses), losses) * weights
        total = losses.sum()
    uses = Counter(_identity(weight, leaves) for record in captured.records for weight in record.weights)
    often = frozenset(key for key, number in uses.items() if number > 1)
    waiting = [_Waiting(record, units, leaves, often) for record in captured.records]
    captured.records.clear()
    asked = [(one, place) for one in waiting for place in one.asked()]
    # Nothing should lead to the parameters themselves, as all of them were detached where they were met.
    inputs: list[Any] = [one.record.edges[place] for one, place in asked]
    inputs += leaves.tensors
    gradients: Sequence[Tensor | None] = torch.autograd.grad(total, inputs, allow_unused=True)
    for name, gradient in zip(leaves.names, gradients[len(asked) :], strict=True):
        if gradient is not None:
            raise RuntimeError(f"parameter '{name}' met the rows in an operation that capture does not see")
    for (one, place), gradient in zip(asked, gradients, strict=False):
        one.receive(place, gradient)
    del gradients
    return [pair for one in waiting for pair in one.finished()]


@final
class _Waiting:
    """A record that waits for the gradients of its outputs.

    A single one that the pass goes through is seen on its way. Others are asked for: they may be ends of
    the pass, and what is asked for is kept until it is over.
    """

    def __init__(self, record: Record, units: int, leaves: Leaves, often: frozenset[object]) -> None:
        self.record = record
        self._units = units
        self._leaves = leaves
        self._often = often
        self._gradients: list[Tensor | None] = [None] * len(record.edges)
        self._missing = len(record.edges)
        self._met: list[tuple[Tensor, Contribution]] | None = None
        asks = record.ends or len(record.edges) > 1
        self._watched = None if asks else self._watch(0)

    def asked(self) -> range:
        """Return the outputs whose gradients have to be asked for."""
        return range(len(self.record.edges) if self._watched is None else 0)

    def receive(self, place: int, gradient: Tensor | None) -> None:
        """Take the gradient of an output."""
        self._gradients[place] = gradient
        self._missing -= 1
        if not self._missing:
            self._met = self._contributions()

    def finished(self) -> list[tuple[Tensor, Contribution]]:
        """Return the weights and their contributions; where nothing arrived, there is none."""
        if self._watched is not None:
            self._watched.remove()
        if self._met is None:
            self._met = self._contributions()
        return self._met

    def _watch(self, place: int) -> torch.utils.hooks.RemovableHandle:
        edge = self.record.edges[place]

        def hook(gradients: Sequence[Tensor | None]) -> None:
            self.receive(place, gradients[edge.output_nr])

        return edge.node.register_prehook(hook)

    def _contributions(self) -> list[tuple[Tensor, Contribution]]:
        record = self.record
        record.require_unchanged()
        with full_precision(record.weights[0].device.type):
            return self._met_by(record)

    def _met_by(self, record: Record) -> list[tuple[Tensor, Contribution]]:
        found = record.rule.contributions(record.weights, record.saved, self._gradients, self._units)
        self._gradients.clear()
        record.forget()
        met = []
        for weight, one in zip(record.weights, found, strict=True):
            if one is None or not weight.requires_grad:
                continue
            if one.shape != weight.shape:
                raise RuntimeError(
                    f"the rule '{record.rule.name}' has gradients {tuple(one.shape)} for a weight of shape "
                    f"{tuple(weight.shape)}"
                )
            once = _identity(weight, self._leaves) not in self._often
            if once and place_of(weight, self._leaves) is not None:  # else the norms are of no use
                one.prepare()
            met.append((weight, one))
        return met


def _identity(weight: Tensor, leaves: Leaves) -> object:
    return leaves.name(weight) or id(weight)
