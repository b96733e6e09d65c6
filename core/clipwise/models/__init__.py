"""Models: what the engine differentiates and the optimizer updates."""

from clipwise.models.gradients import Gradients
from clipwise.models.model import Model
from clipwise.models.repair import Change, Repaired, repair
from clipwise.models.torch_model import TorchModel

__all__ = ["Change", "Gradients", "Model", "Repaired", "TorchModel", "repair"]
