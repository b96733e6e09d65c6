"""Evaluation on held-out rows: exact numbers, outside of any privacy guarantee."""

from collections.abc import Callable
from typing import final

import numpy as np
import torch
from torch import Tensor

from clipwise.clipping.losses import Loss, as_loss
from clipwise.models.model import Model
from clipwise.training.batches import PhysicalBatches


@final
class Evaluation:
    """Measures a model on rows that it is not trained on.

    Args:
        batches: the held-out rows; none gives no numbers.
        loss: as the model's.
        target_scale: None for a classification; for a regression what one unit of the scaled target is
            in the data set's own unit, in which errors are given.
        every_steps: how often; None measures after the last step only.
    """

    def __init__(
        self,
        batches: PhysicalBatches,
        *,
        loss: str | Loss,
        target_scale: float | None,
        every_steps: int | None,
    ) -> None:
        self._batches = batches
        self._loss = as_loss(loss)
        self._target_scale = target_scale
        self._every_steps = every_steps

    def due(self, step: int, steps: int) -> bool:
        """Return whether the model is to be measured after `step` of `steps`."""
        if not len(self._batches):
            return False
        return step == steps or (self._every_steps is not None and step % self._every_steps == 0)

    def measure(self, model: Model, stopping: Callable[[], bool]) -> dict[str, float]:
        """Return the metrics of `model`; nothing if it is told to stop on the way.

        `eval/loss` is the mean loss. Classification: `eval/accuracy`. Regression: `eval/mae` and
        `eval/rmse`, in the unit of the target.
        """
        totals: dict[str, float] = {}
        for inputs, targets, weights in self._batches.cut(np.arange(len(self._batches))):
            if stopping():
                return {}
            for name, total in self._totals(model.predict(inputs), targets, weights > 0).items():
                totals[name] = totals.get(name, 0.0) + total
        means = {name: total / len(self._batches) for name, total in totals.items()}
        if "eval/rmse" in means:
            means["eval/rmse"] **= 0.5
        return means

    def _totals(self, outputs: Tensor, targets: Tensor, counted: Tensor) -> dict[str, float]:
        with torch.no_grad():
            losses = self._loss(outputs, targets)[counted].double().sum().item()
        if self._target_scale is None:
            right = (outputs.argmax(1) == targets)[counted].sum().item()
            return {"eval/loss": losses, "eval/accuracy": float(right)}
        errors = (outputs.reshape(len(targets)) - targets)[counted].double() * self._target_scale
        return {
            "eval/loss": losses,
            "eval/mae": errors.abs().sum().item(),
            "eval/rmse": errors.square().sum().item(),
        }
