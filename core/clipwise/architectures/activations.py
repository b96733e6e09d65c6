"""The activations that a model's configuration may name."""

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import nn

Activation = Literal["relu", "gelu", "silu", "tanh"]


def activation_module(name: Activation) -> "nn.Module":
    """Return a new module of the activation called `name`."""
    from torch import nn

    table: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}
    return table[name]()
