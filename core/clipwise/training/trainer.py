"""The training loop."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clipwise.errors import ClipwiseError
from clipwise.models.gradients import Gradients
from clipwise.models.model import Model
from clipwise.optim.optimizer import Optimizer
from clipwise.privacy.accountant import EpsilonCurve
from clipwise.schedules import AnyClipRule
from clipwise.training.batches import PhysicalBatches
from clipwise.training.evaluation import Evaluation
from clipwise.training.events import Event, Measured, Pace, Progressed
from clipwise.training.observations import Observations

METRICS_SECONDS, PROGRESS_SECONDS = 0.05, 0.25
MOST_FAST_POINTS = 2000
"""Points of a metric that a run of any length keeps, however fast its steps are; slow steps are all kept."""


class Mechanism(Protocol):
    """How batches are drawn and how their gradients are averaged; privately or not."""

    def draw(self, rows: int) -> npt.NDArray[np.int64]:
        """Return the positions, among `rows` rows, of a step's batch."""
        ...

    def average(self, sums: Mapping[str, npt.NDArray[Any]], realised: int) -> Mapping[str, npt.NDArray[Any]]:
        """Return what the optimizer sees of the sums over the `realised` rows that were drawn."""
        ...


class NonFiniteLoss(ClipwiseError):
    """The loss of a training without privacy is not a finite number; under privacy this is never raised."""


@final
@dataclass(frozen=True, kw_only=True)
class Trainer:
    """Everything that a training run is made of.

    Attributes:
        model: what is trained.
        optimizer: turns averaged gradients into updates.
        mechanism: draws batches and averages gradients: `PoissonGaussian`, or `ShuffledMean`.
        batches: the rows to train on.
        steps: the last step; fixed beforehand, whatever the rows hold.
        rule: clip rule or bound of every row's gradient; None clips nothing.
        expected_batch_size: public number of rows of a step, for the speed that is shown.
        evaluation: of held-out rows.
        start: steps that model and optimizer have behind them, where a run goes on.
        unevaluated: whether an evaluation was due after `start`, and broken off.
        discarded: noisy steps that were run beyond `start` and lost: they are spent all the same.
        spent: epsilon after each noisy step; None without privacy.
        before_step: asked before each step whether it may run; the run ends early when not. May wait.
        stopping: asked between the batches of an evaluation; it is broken off when it says so.
    """

    model: Model
    optimizer: Optimizer
    mechanism: Mechanism
    batches: PhysicalBatches
    steps: int
    rule: AnyClipRule | float | None
    expected_batch_size: float
    evaluation: Evaluation
    start: int = 0
    unevaluated: bool = False
    discarded: int = 0
    spent: EpsilonCurve | None = None
    before_step: Callable[[int], bool] = lambda _step: True
    stopping: Callable[[], bool] = lambda: False
    _seen: Observations = field(default_factory=Observations, init=False, repr=False)

    def run(self) -> Iterator[Event]:
        """Train, yielding what happens; `Progressed` comes first, about every 250 ms, and last.

        Raises:
            NonFiniteLoss: without privacy, when a row's loss is not finite.
        """
        metrics, progress = Pace(METRICS_SECONDS), Pace(PROGRESS_SECONDS)
        begun, counted = time.monotonic(), self.start
        stride = math.ceil(self.steps / MOST_FAST_POINTS)
        told, speed = self.start, 0.0
        yield self._progressed(self.start, speed)
        if self.unevaluated or self.start >= self.steps:  # after the last step it is the result, told anew
            yield from self._evaluated(self.start)
        for step in range(self.start + 1, self.steps + 1):
            if not self.before_step(step):
                if told < step - 1:
                    yield self._progressed(step - 1, speed)
                break
            self._step(step)
            now = time.monotonic()
            speed = (step - counted) / max(now - begun, 1e-9)
            if step == self.start + 1:
                begun, counted = (
                    now,
                    step,
                )  # the first step prepares the others and says nothing of their speed
            evaluated = self.evaluation.due(step, self.steps)
            if metrics.due(now) or step % stride == 0 or step == self.steps or evaluated:
                yield from self._measured(step, speed)
            if evaluated:
                yield from self._evaluated(step)
            if progress.due(now) or step == self.steps or self.stopping():
                told = step
                yield self._progressed(step, speed)

    def _evaluated(self, step: int) -> Iterator[Measured]:
        if self.evaluation.due(step, self.steps) and (
            values := self.evaluation.measure(self.model, self.stopping)
        ):
            yield Measured(step=step, values=values, released=False)

    def _step(self, step: int) -> None:
        drawn = self.mechanism.draw(len(self.batches))
        gradients = self._sum(step, drawn)
        # Noise and divisor come once for each logical batch, before any other part sees a gradient.
        averaged = self.mechanism.average(
            {name: value.cpu().numpy() for name, value in gradients.values.items()}, len(drawn)
        )
        values = {name: torch.from_numpy(averaged[name]).to(v) for name, v in gradients.values.items()}
        self.optimizer.apply_gradients(self.model, gradients.with_values(values))

    def _sum(self, step: int, drawn: npt.NDArray[np.int64]) -> Gradients:
        """Return the sum of the drawn rows' gradients, each of them clipped by the rule."""
        total: Gradients | None = None
        for inputs, targets, weights in self.batches.cut(drawn):
            part = self.model.compute_batch_gradients((inputs, targets, weights), self.rule, divisor=1.0)
            self._seen.add(part, weights)
            if self.spent is None and not self._seen.finite:
                raise NonFiniteLoss(
                    f"the loss is not a finite number at step {step}; lower learning_rate, or clip gradients"
                )
            total = part if total is None else _added(total, part)
        assert total is not None  # noqa: S101 - an empty batch is one physical batch of padding
        return total

    def _measured(self, step: int, speed: float) -> Iterator[Measured]:
        exact = self._seen.report()
        exact["train/samples_per_second"] = speed * self.expected_batch_size
        yield Measured(step=step, values=exact, released=False)
        if self.spent is not None:
            epsilon = {"privacy/epsilon": self.spent.after(step + self.discarded)}
            yield Measured(step=step, values=epsilon, released=True)

    def _progressed(self, step: int, speed: float) -> Progressed:
        """Return how far the run is; `speed` in steps per second."""
        return Progressed(
            step=step,
            steps=self.steps,
            samples_per_second=speed * self.expected_batch_size,
            eta_seconds=(self.steps - step) / speed if speed else 0.0,
            epsilon=None if self.spent is None else self.spent.after(step + self.discarded),
        )


def _added(total: Gradients, part: Gradients) -> Gradients:
    values: dict[str, Tensor] = total.values
    for name, value in part.values.items():
        values[name] += value
    return total
