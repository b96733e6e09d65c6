"""The per-sample clipping engine."""

from clipwise.clipping.batch import Batch
from clipwise.clipping.engine import ClippedSum, ClippingEngine, clipped_gradients
from clipwise.clipping.losses import LOSSES, Loss, as_loss
from clipwise.schedules import ClipRule, FlatClip

__all__ = [
    "LOSSES",
    "Batch",
    "ClipRule",
    "ClippedSum",
    "ClippingEngine",
    "FlatClip",
    "Loss",
    "as_loss",
    "clipped_gradients",
]
