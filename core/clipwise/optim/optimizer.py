"""The optimizer: a chain of plug-ins, a learning rate and weight decay, on arrays of any framework."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, final

from clipwise.errors import InvalidInput, InvalidState
from clipwise.optim.frameworks import Array, arrays_for
from clipwise.optim.layout import Layout
from clipwise.optim.module import OptimizerModule, State


class Gradients(Protocol):
    """What a model's gradients are to an optimizer."""

    @property
    def values(self) -> Mapping[str, Array]:
        """Averaged gradient by parameter name."""
        ...


G_co = TypeVar("G_co", bound=Gradients, covariant=True)


class Parametrised(Protocol):
    """What has parameters that an optimizer can update."""

    @property
    def parameters(self) -> Mapping[str, Array]:
        """Trainable parameters by name, in a fixed order."""
        ...

    def apply_updates(self, updates: Mapping[str, Array]) -> None:
        """Add `updates` to the parameters."""
        ...


class Trainable(Parametrised, Protocol[G_co]):
    """What can be trained: its parameters, and their gradients on a batch."""

    def compute_batch_gradients(self, batch: Any, max_norm: Any = None) -> G_co:
        """Return the averaged gradient of `batch`, clipped per sample if `max_norm` is given."""
        ...


@dataclass(kw_only=True)
class _Memory:
    """What an optimizer keeps between steps: the state of each link, and buffers that it reuses."""

    layout: Layout
    states: list[State]
    updates: Array
    params: Array


@final
class Optimizer:
    """Turn gradients into updates: regularizers, modules, weight decay and learning rate, in this order.

    With `u` what the chain makes of the averaged gradient and `p` the parameters, a step is
    `p <- p - learning_rate * (u + weight_decay * p)`: the decay is decoupled from the chain (Loshchilov
    and Hutter, Decoupled weight decay regularization, 2019).

    Args:
        learning_rate: positive.
        weight_decay: not negative.
        regularizers: links of the chain that come before the modules.
        modules: plug-ins such as `L2Clipping`, `Momentum`, `Adam`, applied in order.

    Raises:
        InvalidInput: if a number is out of its range, or a link has no `init` and `update`.
    """

    def __init__(
        self,
        learning_rate: float,
        weight_decay: float = 0.0,
        regularizers: Sequence[OptimizerModule] = (),
        modules: Sequence[OptimizerModule] = (),
    ) -> None:
        self.learning_rate = _number("learning_rate", learning_rate, positive=True)
        self.weight_decay = _number("weight_decay", weight_decay, positive=False)
        self.regularizers = tuple(regularizers)
        self.modules = tuple(modules)
        self._links = (
            *((f"regularizers.{i}", link) for i, link in enumerate(self.regularizers)),
            *((f"modules.{i}", link) for i, link in enumerate(self.modules)),
        )
        for place, link in self._links:
            if not (callable(getattr(link, "init", None)) and callable(getattr(link, "update", None))):
                raise InvalidInput(f"{place} is a {type(link).__name__}; give an optimizer module")
        self._memory: _Memory | None = None

    def run_train_step(self, model: Trainable[G_co], batch: Any, sclip: Any = None) -> G_co:
        """Compute the gradients of `batch`, update the model and return the gradients.

        Args:
            model: what is trained.
            batch: `(inputs, targets)` or `(inputs, targets, sample_weights)`.
            sclip: bound, or clip rule, of every sample's gradient; None clips nothing.
        """
        gradients = model.compute_batch_gradients(batch, max_norm=sclip)
        self.apply_gradients(model, gradients)
        return gradients

    def apply_gradients(self, model: Parametrised, gradients: Gradients) -> None:
        """Advance by one step and update the model with `gradients`.

        Raises:
            InvalidInput: if the gradients are not those of the model's trainable parameters.
        """
        layout = self._remember(model.parameters).layout
        model.apply_updates(layout.views(self._advance(model.parameters, gradients.values)))

    def compute_updates_from_gradients(self, model: Parametrised, gradients: Gradients) -> dict[str, Array]:
        """Advance by one step and return what is to be added to the parameters; the model stays as it is.

        Raises:
            InvalidInput: if the gradients are not those of the model's trainable parameters.
        """
        layout = self._remember(model.parameters).layout
        return layout.views(layout.arrays.copy(self._advance(model.parameters, gradients.values)))

    def get_state(self) -> dict[str, Array]:
        """Return copies of what the modules remember, by name; empty before the first step.

        A name is `modules.<place>.<kind>.<entry>`, for an entry per element with `.<parameter>` behind.
        """
        if self._memory is None:
            return {}
        copy = self._memory.layout.arrays.copy
        return {name: copy(value) for name, value in self._named(self._memory).items()}

    def set_state(self, model: Parametrised, state: Mapping[str, Array]) -> None:
        """Go on from `state`, as `get_state` gave it for an optimizer like this and a model like `model`.

        Raises:
            InvalidState: if it belongs to another optimizer or model; nothing was changed.
        """
        memory = self._fresh(model.parameters)
        expected = self._named(memory)
        if not state:  # taken before the first step
            self._memory = memory
            return
        missing, foreign = expected.keys() - state.keys(), state.keys() - expected.keys()
        if missing or foreign:
            raise InvalidState(
                "the state is of another optimizer or model: "
                f"missing {sorted(missing) or 'nothing'}, foreign {sorted(foreign) or 'nothing'}"
            )
        arrays = memory.layout.arrays
        for name, value in expected.items():
            given = state[name]
            if arrays_for(given) is not arrays or tuple(given.shape) != tuple(value.shape):
                raise InvalidState(
                    f"the state's '{name}' is a {type(given).__name__} of shape {tuple(given.shape)}; "
                    f"this optimizer has a {type(value).__name__} of shape {tuple(value.shape)}"
                )
        for name, value in expected.items():
            arrays.write(state[name], value)
        self._memory = memory

    def _advance(self, params: Mapping[str, Array], gradients: Mapping[str, Array]) -> Array:
        """Return the flat updates (N,), in a buffer that the next step writes over."""
        memory = self._remember(params)
        layout, arrays = memory.layout, memory.layout.arrays
        layout.write(gradients, memory.updates, "the gradients")
        layout.write(params, memory.params, "the parameters")
        updates = memory.updates
        for i, (_, link) in enumerate(self._links):
            state = memory.states[i]
            updates, memory.states[i] = link.update(state, updates, memory.params, out=(updates, state))
        if self.weight_decay:
            updates = arrays.add_scaled(updates, memory.params, self.weight_decay, out=updates)
        return arrays.multiply(updates, -self.learning_rate, out=updates)

    def _remember(self, params: Mapping[str, Array]) -> _Memory:
        if self._memory is None:
            self._memory = self._fresh(params)
        return self._memory

    def _fresh(self, params: Mapping[str, Array]) -> _Memory:
        layout = Layout.of(params)
        updates, flat = (layout.arrays.flat(layout.size, tuple(params.values())) for _ in range(2))
        layout.write(params, flat, "the parameters")
        states = [link.init(flat) for _, link in self._links]
        return _Memory(layout=layout, states=states, updates=updates, params=flat)

    def _named(self, memory: _Memory) -> dict[str, Array]:
        """Return views of the modules' states by name, one for each parameter."""
        named: dict[str, Array] = {}
        for (place, link), state in zip(self._links, memory.states, strict=True):
            for entry, value in state.items():
                name = f"{place}.{link.kind}.{entry}"
                if len(value.shape) == 0:
                    named[name] = value
                else:
                    named |= {f"{name}.{key}": view for key, view in memory.layout.views(value).items()}
        return named


def _number(name: str, value: Any, *, positive: bool) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < 0 or (positive and value == 0):
        raise InvalidInput(f"{name} is {value!r}; give a {'positive' if positive else 'non-negative'} number")
    return float(value)
