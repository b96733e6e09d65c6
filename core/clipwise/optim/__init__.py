"""The optimizer: a learning rate and a chain of plug-ins."""

from clipwise.optim.module import OptimizerModule
from clipwise.optim.optimizer import Optimizer

__all__ = ["Optimizer", "OptimizerModule"]
