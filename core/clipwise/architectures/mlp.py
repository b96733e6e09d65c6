"""The multilayer perceptron."""

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from clipwise.architectures.activations import Activation, activation_module
from clipwise.architectures.limits import require_at_most
from clipwise.configuration import Sequence, configuration

if TYPE_CHECKING:
    from torch import nn

HiddenSize = Annotated[int, Field(ge=1, le=16_384)]


@configuration
class MLP:
    """Multilayer perceptron: fully connected hidden layers, for tables and small images."""

    kind: Literal["mlp"] = "mlp"
    hidden_sizes: Annotated[tuple[HiddenSize, ...], Sequence, Field(max_length=32)] = (128,)
    activation: Activation = "relu"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    tasks: ClassVar[tuple[str, ...]] = ("classification", "regression")

    def parameters(self, input_shape: tuple[int, ...], outputs: int) -> int:
        """Return the number of trainable parameters."""
        return sum((before + 1) * after for before, after in pairwise(self._widths(input_shape, outputs)))

    def check(self, input_shape: tuple[int, ...], outputs: int) -> None:
        """Check that the model has an acceptable size; every shape is flattened."""
        require_at_most(self.kind, "hidden_sizes", self.parameters(input_shape, outputs))

    def build(self, input_shape: tuple[int, ...], outputs: int) -> "nn.Module":
        """Return the module: (B, *input_shape) to (B, outputs)."""
        from torch import nn

        *hidden, last = pairwise(self._widths(input_shape, outputs))
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in hidden:
            layers += [nn.Linear(before, after), activation_module(self.activation)]
            layers += [nn.Dropout(self.dropout)] if self.dropout else []
        return nn.Sequential(*layers, nn.Linear(*last))

    def _widths(self, input_shape: tuple[int, ...], outputs: int) -> tuple[int, ...]:
        return (math.prod(input_shape), *self.hidden_sizes, outputs)
