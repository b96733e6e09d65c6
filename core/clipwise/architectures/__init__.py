"""The catalogue of models: one torch-free, frozen configuration per kind."""

from collections.abc import Mapping
from typing import Any

from clipwise import plugins
from clipwise.architectures.architecture import Architecture
from clipwise.architectures.cnn import CNN
from clipwise.architectures.linear import Linear
from clipwise.architectures.logistic import Logistic
from clipwise.architectures.mlp import MLP

ARCHITECTURES: Mapping[str, type[Any]] = {"cnn": CNN, "linear": Linear, "logistic": Logistic, "mlp": MLP}

__all__ = ["ARCHITECTURES", "Architecture", "kinds"]


def kinds() -> Mapping[str, type[Any]]:
    """Return every kind that is installed here: ours, and those of other packages."""
    return {**plugins.installed(plugins.ARCHITECTURES_GROUP), **ARCHITECTURES}
