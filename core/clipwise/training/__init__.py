"""The training loop: batches, steps, evaluation, and what is told of them."""

from clipwise.training import checkpoint
from clipwise.training.batches import PhysicalBatches, Rows, physical_size
from clipwise.training.evaluation import Evaluation
from clipwise.training.events import Event, Measured, Progressed
from clipwise.training.shuffled_mean import ShuffledMean
from clipwise.training.split import split
from clipwise.training.trainer import Mechanism, NonFiniteLoss, Trainer

__all__ = [
    "Evaluation",
    "Event",
    "Measured",
    "Mechanism",
    "NonFiniteLoss",
    "PhysicalBatches",
    "Progressed",
    "Rows",
    "ShuffledMean",
    "Trainer",
    "checkpoint",
    "physical_size",
    "split",
]
