"""Models: what the engine differentiates and the optimizer updates."""

from clipwise.models.gradients import Gradients
from clipwise.models.model import Model
from clipwise.models.torch_model import TorchModel

__all__ = ["Gradients", "Model", "TorchModel"]
