"""Where each parameter lies in one flat array."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clipwise.errors import InvalidInput
from clipwise.optim.frameworks import Array, Arrays, arrays_for


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Names and shapes of parameters, in the order in which a flat array (N,) holds them.

    Attributes:
        shapes: name to shape.
        arrays: arithmetic of the parameters' framework.
    """

    shapes: dict[str, tuple[int, ...]]
    arrays: Arrays

    @staticmethod
    def of(params: Mapping[str, Array]) -> "Layout":
        """Return the layout of `params`.

        Raises:
            InvalidInput: if there are none, or their framework is unknown.
        """
        if not params:
            raise InvalidInput("the model has no trainable parameters; there is nothing to optimize")
        shapes = {name: tuple(value.shape) for name, value in params.items()}
        return Layout(shapes=shapes, arrays=arrays_for(next(iter(params.values()))))

    @property
    def size(self) -> int:
        """Number of elements of all parameters, N."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def views(self, flat: Array) -> dict[str, Any]:
        """Return views of `flat` (N,), by name, in the parameters' shapes."""
        views, start = {}, 0
        for name, shape in self.shapes.items():
            stop = start + math.prod(shape)
            views[name] = flat[start:stop].reshape(shape)
            start = stop
        return views

    def write(self, values: Mapping[str, Array], flat: Array, what: str) -> None:
        """Write `values` into `flat` (N,).

        Raises:
            InvalidInput: if their names or shapes are not the parameters'; `what` says what they are.
        """
        if values.keys() != self.shapes.keys():
            missing = sorted(self.shapes.keys() - values.keys())
            foreign = sorted(values.keys() - self.shapes.keys())
            raise InvalidInput(
                f"{what} are not those of the model's trainable parameters: "
                f"missing {missing or 'none'}, foreign {foreign or 'none'}"
            )
        for name, view in self.views(flat).items():
            if tuple(values[name].shape) != self.shapes[name]:
                raise InvalidInput(
                    f"{what} of '{name}' have shape {tuple(values[name].shape)}, "
                    f"the parameter has {self.shapes[name]}"
                )
            self.arrays.write(values[name], view)
