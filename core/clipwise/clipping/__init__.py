"""The per-sample clipping engine."""

from clipwise.clipping.batch import Batch
from clipwise.clipping.engine import ClippedSum, ClippingEngine, clipped_gradients
from clipwise.clipping.explain import Explanation, explain
from clipwise.clipping.losses import LOSSES, Loss, as_loss
from clipwise.clipping.own_loop import fill_gradients, private_gradients
from clipwise.schedules import (
    AnyClipRule,
    AutomaticClip,
    ClipGroup,
    ClipRule,
    FlatClip,
    PartedClipRule,
    PerGroupClip,
    PerParameterClip,
)

__all__ = [
    "LOSSES",
    "AnyClipRule",
    "AutomaticClip",
    "Batch",
    "ClipGroup",
    "ClipRule",
    "ClippedSum",
    "ClippingEngine",
    "Explanation",
    "FlatClip",
    "Loss",
    "PartedClipRule",
    "PerGroupClip",
    "PerParameterClip",
    "as_loss",
    "clipped_gradients",
    "explain",
    "fill_gradients",
    "private_gradients",
]
