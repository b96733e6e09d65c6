"""A convolutional network for images."""

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from clipwise.architectures.activations import Activation, activation_module
from clipwise.architectures.limits import refuse, require_at_most
from clipwise.configuration import Sequence, configuration

if TYPE_CHECKING:
    from torch import nn

Channels = Annotated[int, Field(ge=1, le=4096)]
MAX_GROUPS = 8


def _not_empty(channels: tuple[int, ...]) -> tuple[int, ...]:
    # As a constraint of its own it would also be reported where an item is wrong.
    if not channels:
        raise ValueError("a cnn has at least one stage: give the channels of each, such as [16, 32]")
    return channels


@configuration
class CNN:
    """Convolutional network: stages of convolution, group normalisation, activation and 2x2 pooling.

    Group and not batch normalisation: what normalises over a batch has no per-sample gradients.
    """

    kind: Literal["cnn"] = "cnn"
    channels: Annotated[
        tuple[Channels, ...],
        Sequence,
        AfterValidator(_not_empty),
        Field(max_length=8, json_schema_extra={"minItems": 1}),
    ] = (
        16,
        32,
    )
    kernel_size: Literal[1, 3, 5, 7] = 3
    hidden_size: Annotated[int, Field(ge=1, le=16_384)] | None = None
    activation: Activation = "relu"
    tasks: ClassVar[tuple[str, ...]] = ("classification", "regression")

    def parameters(self, input_shape: tuple[int, ...], outputs: int) -> int:
        """Return the number of trainable parameters."""
        # Each stage: the kernel and its bias, scale and shift of the normalisation.
        stages = pairwise((input_shape[0], *self.channels))
        convolutions = sum(after * (before * self.kernel_size**2 + 3) for before, after in stages)
        head = sum((before + 1) * after for before, after in pairwise(self._head(input_shape, outputs)))
        return convolutions + head

    def check(self, input_shape: tuple[int, ...], outputs: int) -> None:
        """Check that samples are images (C, H, W), large enough for the pooling of every stage.

        Raises:
            InvalidSpec: if not.
        """
        if len(input_shape) != 3:
            raise refuse(
                self.kind,
                "kind",
                f"a cnn needs one image feature, and this data set has samples of shape {list(input_shape)}; "
                "use 'mlp', or declare the columns as one feature of type image",
            )
        stages, (_, height, width) = len(self.channels), input_shape
        if min(height, width) < 2**stages:
            raise refuse(
                self.kind,
                "channels",
                f"{stages} stages halve the image {stages} times, which {height} x {width} pixels do not "
                f"allow; give at most {int(math.log2(min(height, width)))} channels",
            )
        require_at_most(self.kind, "channels", self.parameters(input_shape, outputs))

    def build(self, input_shape: tuple[int, ...], outputs: int) -> "nn.Module":
        """Return the module: images (B, C, H, W) to (B, outputs)."""
        from torch import nn

        layers: list[nn.Module] = []
        for before, after in pairwise((input_shape[0], *self.channels)):
            layers += [
                nn.Conv2d(before, after, self.kernel_size, padding=self.kernel_size // 2),
                nn.GroupNorm(math.gcd(after, MAX_GROUPS), after),
                activation_module(self.activation),
                nn.MaxPool2d(2),
            ]
        *hidden, last = pairwise(self._head(input_shape, outputs))
        layers.append(nn.Flatten())
        for widths in hidden:
            layers += [nn.Linear(*widths), activation_module(self.activation)]
        return nn.Sequential(*layers, nn.Linear(*last))

    def _head(self, input_shape: tuple[int, ...], outputs: int) -> tuple[int, ...]:
        halved = 2 ** len(self.channels)
        features = self.channels[-1] * math.prod(side // halved for side in input_shape[1:])
        hidden = () if self.hidden_size is None else (self.hidden_size,)
        return (features, *hidden, outputs)
