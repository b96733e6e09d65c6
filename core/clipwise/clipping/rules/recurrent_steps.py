"""One recurrent layer in one direction: where it enters autograd's graph, and what its weights meet there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias, final

from torch import Tensor
from torch.nn import functional

from clipwise.clipping.contributions import widened
from clipwise.clipping.rules.recurrences import (
    GruRecurrence,
    LstmRecurrence,
    PlainRecurrence,
    before_and_after,
    last,
)
from clipwise.clipping.rules.rule import as_place

if TYPE_CHECKING:
    from clipwise.clipping.capture import CaptureMode

States: TypeAlias = tuple[Tensor, ...]
"""Hidden state, and the cell's state where there is one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerWeights:
    """Weights of one layer in one direction, in the order of `torch.nn`.

    Attributes:
        input: (gates * H, I).
        hidden: (gates * H, R).
        input_bias: (gates * H,).
        hidden_bias: (gates * H,).
        projection: (R, H), or None.
    """

    input: Tensor
    hidden: Tensor
    input_bias: Tensor | None = None
    hidden_bias: Tensor | None = None
    projection: Tensor | None = None


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """What the layers of one operation leave to the rule.

    Attributes:
        capture: the pass that is under way.
        places: outputs whose gradients are wanted, (T, L, ...).
        weights: what is to be trained.
        uses: for each weight, the number of its place, and what the place's gradient is multiplied with,
            (T, L, ...), or None for a bias.
    """

    capture: CaptureMode
    places: list[Tensor] = field(default_factory=list)
    weights: list[Tensor] = field(default_factory=list)
    uses: list[tuple[int, Tensor | None]] = field(default_factory=list)

    def place(self, tensor: Tensor) -> int:
        """Return the number of a further place."""
        self.places.append(tensor)
        return len(self.places) - 1

    def use(self, weight: Tensor | None, place: int, right: Tensor | None = None) -> None:
        """Note that the gradient of `weight` is made of the gradient of a place."""
        if weight is not None and self.capture.is_weight(weight):
            self.weights.append(weight)
            self.uses.append((place, None if right is None else right.detach()))

    def gates(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the input's part of the gates for inputs (T, L, I), as a place."""
        y = functional.linear(x.flatten(0, 1), widened(self.capture.detached(weight, x)), bias)
        return as_place(y, (*x.shape[:2], weight.shape[0]))

    def unknown(self, like: Tensor, size: int) -> Tensor:
        """Return a place (T, L, size) of no values, which a recurrence gives a gradient."""
        return like.new_zeros(()).requires_grad_().expand(*like.shape[:2], size)


class Step(Protocol):
    """One layer in one direction: outputs (T, L, R) and last states (L, ...) of inputs (T, L, I)."""

    def __call__(
        self, found: Found, x: Tensor, states: States, weights: LayerWeights, reverse: bool
    ) -> tuple[Tensor, States]:
        """Run it, and note places and uses."""
        ...


def lstm(
    found: Found, x: Tensor, states: States, weights: LayerWeights, reverse: bool
) -> tuple[Tensor, States]:
    """Do one of `torch.nn.LSTM`, with a projection where there is a weight for it."""
    gates = found.gates(x, weights.input, _bias(weights))
    projections, projection = None, weights.projection
    if projection is not None:
        projections, projection = found.unknown(gates, projection.shape[0]), _fixed(projection)
    hiddens, cell, wide = LstmRecurrence.apply(  # type: ignore[no-untyped-call]
        gates, projections, *states, _fixed(weights.hidden), projection, reverse
    )
    before, after = before_and_after(hiddens, reverse)
    place = found.place(gates)
    _use(found, weights, x, before, place, place)
    if projections is not None:
        found.use(weights.projection, found.place(projections), wide)
    return after, (last(hiddens, reverse), cell)


def gru(
    found: Found, x: Tensor, states: States, weights: LayerWeights, reverse: bool
) -> tuple[Tensor, States]:
    """Do one of `torch.nn.GRU`, whose hidden state has a part of the candidate that is scaled apart."""
    size = states[0].shape[1]
    bias = inner_bias = None
    if weights.input_bias is not None and weights.hidden_bias is not None:
        outer = _fixed(weights.hidden_bias).clone()
        inner_bias = outer[2 * size :].clone()
        outer[2 * size :] = 0
        bias = outer.add_(_fixed(weights.input_bias))
    gates = found.gates(x, weights.input, bias)
    inner = found.unknown(gates, 3 * size)
    hiddens = GruRecurrence.apply(  # type: ignore[no-untyped-call]
        gates, inner, *states, _fixed(weights.hidden), inner_bias, reverse
    )
    before, after = before_and_after(hiddens, reverse)
    _use(found, weights, x, before, found.place(gates), found.place(inner))
    return after, (last(hiddens, reverse),)


def plain(*, rectified: bool) -> Step:
    """Return what does one of `torch.nn.RNN`, with the rectifier or with tanh."""

    def step(
        found: Found, x: Tensor, states: States, weights: LayerWeights, reverse: bool
    ) -> tuple[Tensor, States]:
        gates = found.gates(x, weights.input, _bias(weights))
        hiddens = PlainRecurrence.apply(  # type: ignore[no-untyped-call]
            gates, *states, _fixed(weights.hidden), rectified, reverse
        )
        before, after = before_and_after(hiddens, reverse)
        place = found.place(gates)
        _use(found, weights, x, before, place, place)
        return after, (last(hiddens, reverse),)

    return step


def _use(found: Found, weights: LayerWeights, x: Tensor, before: Tensor, outer: int, inner: int) -> None:
    found.use(weights.input, outer, x)
    found.use(weights.hidden, inner, before)
    found.use(weights.input_bias, outer)
    found.use(weights.hidden_bias, inner)


def _bias(weights: LayerWeights) -> Tensor | None:
    if weights.input_bias is None or weights.hidden_bias is None:
        return None
    return _fixed(weights.input_bias) + _fixed(weights.hidden_bias)


def _fixed(weight: Tensor) -> Tensor:
    return widened(weight.detach())
