"""Clipping of the averaged gradient ("batch clipping")."""

from typing import Annotated, Literal

from annotated_types import Ge, Le

from clipwise.configuration import configuration
from clipwise.optim.frameworks import Array, arrays_for
from clipwise.optim.module import Out, State


@configuration
class L2Clipping:
    """Scale the averaged gradient to a joint L2 norm of at most `max_norm`.

    `u <- u * min(1, max_norm / ||u||)`, over all parameters together. This is not per-sample clipping:
    it bounds the step, and no single sample's part in it.

    Source: Pascanu, Mikolov and Bengio, On the difficulty of training recurrent neural networks (2013).
    """

    kind: Literal["l2_clipping"] = "l2_clipping"
    max_norm: Annotated[float, Ge(1e-30), Le(1e12)]

    def init(self, params: Array) -> State:  # noqa: ARG002
        """Return the state before the first step: nothing is remembered."""
        return {}

    def update(
        self,
        state: State,
        updates: Array,
        params: Array,  # noqa: ARG002
        out: Out | None = None,
    ) -> tuple[Array, State]:
        """Return the clipped updates."""
        arrays = arrays_for(updates)
        factor = arrays.clip_factor(updates, self.max_norm)
        return arrays.multiply(updates, factor, out=out[0] if out else None), state
