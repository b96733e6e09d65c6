"""Momentum, in Polyak's and in Nesterov's form."""

from typing import Literal

from clipwise.configuration import Fraction, configuration
from clipwise.optim.frameworks import Array, arrays_for
from clipwise.optim.module import Out, State


@configuration
class Momentum:
    """Replace the gradient by a decaying sum of the gradients so far.

    `v <- beta * v + u`, then `u <- v`, or with `nesterov` `u <- u + beta * v`. Equal to
    `torch.optim.SGD(momentum=beta, nesterov=nesterov)`.

    Source: Sutskever et al., On the importance of initialization and momentum in deep learning (2013).
    """

    kind: Literal["momentum"] = "momentum"
    beta: Fraction = 0.9
    nesterov: bool = False

    def init(self, params: Array) -> State:
        """Return the state before the first step: a velocity of zero."""
        return {"velocity": arrays_for(params).zeros_like(params)}

    def update(
        self,
        state: State,
        updates: Array,
        params: Array,  # noqa: ARG002
        out: Out | None = None,
    ) -> tuple[Array, State]:
        """Return the velocity, or the look-ahead of it, and the new state."""
        arrays = arrays_for(updates)
        velocity = arrays.multiply(state["velocity"], self.beta, out=out[1]["velocity"] if out else None)
        velocity = arrays.add_scaled(velocity, updates, 1.0, out=velocity)
        if self.nesterov:
            result = arrays.add_scaled(updates, velocity, self.beta, out=out[0] if out else None)
        else:
            # Never the state itself: the next module of the chain may write into its updates.
            result = arrays.multiply(velocity, 1.0, out=out[0] if out else None)
        return result, {"velocity": velocity}
