"""Rows made up for the tests of training."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from clipwise.models import TorchModel
from clipwise.optim import Optimizer
from clipwise.privacy import EpsilonCurve, PoissonGaussian
from clipwise.training import Evaluation, Mechanism, PhysicalBatches, Trainer, physical_size

FEATURES, CLASSES = 5, 3


@dataclass
class MadeUp:
    """Rows whose class is the sign pattern of two features; remembers how it was asked."""

    inputs: npt.NDArray[Any]
    targets: npt.NDArray[Any]
    asked: list[npt.NDArray[np.int64]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, indices: npt.NDArray[np.int64]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        self.asked.append(indices)
        return self.inputs[indices], self.targets[indices]


def made_up(rows: int = 200, seed: int = 0) -> MadeUp:
    generator = np.random.default_rng(seed)
    inputs = generator.uniform(-1, 1, (rows, FEATURES)).astype(np.float32)
    targets = (inputs[:, 0] > 0).astype(np.int64) + (inputs[:, 1] > 0)
    return MadeUp(inputs, targets)


def model(seed: int = 0, dtype: torch.dtype = torch.float32) -> TorchModel:
    torch.manual_seed(seed)
    return TorchModel(nn.Linear(FEATURES, CLASSES).to(dtype), "cross_entropy")


def mechanism(**changes: float) -> PoissonGaussian:
    numbers = {"sampling_rate": 0.1, "noise_multiplier": 1.0, "sensitivity": 1.0, "expected_batch_size": 20.0}
    return PoissonGaussian(**{**numbers, **changes})


def curve(steps: int) -> EpsilonCurve:
    return EpsilonCurve(steps=[steps], epsilons=[1.0])


def trainer(
    how: Mechanism,
    *,
    trained: TorchModel | None = None,
    rows: MadeUp | None = None,
    steps: int = 3,
    physical: int | None = None,
    private: bool = True,
    rule: float | None = 1.0,
    dtype: torch.dtype = torch.float32,
    **more: Any,
) -> Trainer:
    rows = made_up() if rows is None else rows
    train, held = np.arange(0, len(rows) * 3 // 4), np.arange(len(rows) * 3 // 4, len(rows))
    expected = 20.0
    return Trainer(
        model=trained or model(dtype=dtype),
        optimizer=Optimizer(0.5),
        mechanism=how,
        batches=PhysicalBatches(
            rows, train, size=physical or physical_size(expected, varies=True), dtype=dtype
        ),
        steps=steps,
        rule=rule,
        expected_batch_size=expected,
        evaluation=Evaluation(
            PhysicalBatches(rows, held, size=16, dtype=dtype),
            loss="cross_entropy",
            target_scale=None,
            every_steps=2,
        ),
        spent=curve(steps) if private else None,
        **more,
    )
