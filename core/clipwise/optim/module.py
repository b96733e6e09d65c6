"""The contract of an optimizer module: a frozen configuration with two functions of arrays."""

from collections.abc import Mapping
from typing import Protocol

from clipwise.optim.frameworks.arrays import Array

State = Mapping[str, Array]
"""What a module remembers between steps, by name: flat arrays of shape (N,), or 0-d numbers."""

Out = tuple[Array, State]
"""Arrays that a result may be written into: (updates, state). They may be the arguments themselves."""


class OptimizerModule(Protocol):
    """One link of an optimizer's chain.

    All arrays are flat, of shape (N,): every trainable parameter's elements, in the model's order. What
    a module returns as `updates` goes to the next one; the last one's result is multiplied with the
    negative learning rate and added to the parameters.
    """

    @property
    def kind(self) -> str:
        """Name of the module in JSON."""
        ...

    def init(self, params: Array) -> State:
        """Return the state before the first step."""
        ...

    def update(
        self, state: State, updates: Array, params: Array, out: Out | None = None
    ) -> tuple[Array, State]:
        """Return the new updates and the new state.

        Pure without `out`. With it the arguments are donated: results are written into `out`, which
        saves an optimizer its allocations.
        """
        ...
