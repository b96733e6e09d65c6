"""The contract of an architecture: a frozen, torch-free configuration that a runner can build."""

from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from torch import nn


class Architecture(Protocol):
    """A kind of model in the catalogue.

    Attributes:
        tasks: the tasks it can be trained for, "classification" and "regression".
    """

    tasks: ClassVar[tuple[str, ...]]

    @property
    def kind(self) -> str:
        """Name of the architecture in JSON."""
        ...

    def parameters(self, input_shape: tuple[int, ...], outputs: int) -> int:
        """Return the number of trainable parameters."""
        ...

    def check(self, input_shape: tuple[int, ...], outputs: int) -> None:
        """Check that samples of this shape, (W,) or (C, H, W), can be taken.

        Raises:
            InvalidSpec: if not; its problems point at the field, relative to the configuration.
        """
        ...

    def build(self, input_shape: tuple[int, ...], outputs: int) -> "nn.Module":
        """Return the module: (B, *input_shape) to (B, outputs)."""
        ...
