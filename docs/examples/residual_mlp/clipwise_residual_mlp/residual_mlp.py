"""A perceptron with residual blocks, as a kind of model for Clipwise."""

import math
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from clipwise.architectures.limits import require_at_most
from clipwise.configuration import configuration

if TYPE_CHECKING:
    from torch import nn


@configuration
class ResidualMLP:
    """Perceptron of residual blocks: each adds what two normalised layers make of its input."""

    kind: Literal["residual_mlp"] = "residual_mlp"
    width: Annotated[int, Field(ge=1, le=4096)] = 64
    blocks: Annotated[int, Field(ge=1, le=32)] = 2
    tasks: ClassVar[tuple[str, ...]] = ("classification", "regression")

    def parameters(self, input_shape: tuple[int, ...], outputs: int) -> int:
        """Return the number of trainable parameters."""
        entrance = (math.prod(input_shape) + 1) * self.width
        block = 2 * self.width + 2 * (self.width + 1) * self.width
        return entrance + self.blocks * block + (self.width + 1) * outputs

    def check(self, input_shape: tuple[int, ...], outputs: int) -> None:
        """Check that the model has an acceptable size; every shape is flattened."""
        require_at_most(self.kind, "width", self.parameters(input_shape, outputs))

    def build(self, input_shape: tuple[int, ...], outputs: int) -> "nn.Module":
        """Return the module: (B, *input_shape) to (B, outputs)."""
        from torch import nn

        from clipwise_residual_mlp.block import ResidualBlock

        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(math.prod(input_shape), self.width),
            *(ResidualBlock(self.width) for _ in range(self.blocks)),
            nn.Linear(self.width, outputs),
        )
