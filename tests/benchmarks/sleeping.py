"""A model whose forward pass takes a fixed time and no CPU: what remains of a job's time is the service's."""

import math
import time
from typing import TYPE_CHECKING, ClassVar, Literal

from clipwise.configuration import configuration

if TYPE_CHECKING:
    from torch import nn


@configuration
class Sleeping:
    """Logistic regression that sleeps for `seconds` in every forward pass."""

    kind: Literal["sleeping"] = "sleeping"
    seconds: float = 0.1
    tasks: ClassVar[tuple[str, ...]] = ("classification",)

    def parameters(self, input_shape: tuple[int, ...], outputs: int) -> int:
        """Return the number of trainable parameters."""
        return (math.prod(input_shape) + 1) * outputs

    def check(self, input_shape: tuple[int, ...], outputs: int) -> None:
        """Take every shape."""

    def build(self, input_shape: tuple[int, ...], outputs: int) -> "nn.Module":
        """Return the module: (B, *input_shape) to logits (B, outputs)."""
        from torch import Tensor, nn

        class Sleep(nn.Module):
            def __init__(self, seconds: float) -> None:
                super().__init__()
                self.seconds = seconds

            def forward(self, samples: Tensor) -> Tensor:
                time.sleep(self.seconds)
                return samples

        return nn.Sequential(nn.Flatten(), Sleep(self.seconds), nn.Linear(math.prod(input_shape), outputs))
