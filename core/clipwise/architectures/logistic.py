"""Logistic regression."""

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from clipwise.architectures.limits import require_at_most
from clipwise.configuration import configuration

if TYPE_CHECKING:
    from torch import nn


@configuration
class Logistic:
    """Multinomial logistic regression: one linear layer from all features to the classes."""

    kind: Literal["logistic"] = "logistic"
    bias: bool = True
    tasks: ClassVar[tuple[str, ...]] = ("classification",)

    def parameters(self, input_shape: tuple[int, ...], outputs: int) -> int:
        """Return the number of trainable parameters."""
        return (math.prod(input_shape) + self.bias) * outputs

    def check(self, input_shape: tuple[int, ...], outputs: int) -> None:
        """Check that the model has an acceptable size; every shape is flattened."""
        require_at_most(self.kind, "", self.parameters(input_shape, outputs))

    def build(self, input_shape: tuple[int, ...], outputs: int) -> "nn.Module":
        """Return the module: (B, *input_shape) to logits (B, outputs)."""
        from torch import nn

        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), outputs, bias=self.bias))
