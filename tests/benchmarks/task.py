"""One workload on one device, as every engine gets it."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from tests.benchmarks.workloads import WORKLOADS


@dataclass(frozen=True, kw_only=True)
class Task:
    """What an engine shall make a step of.

    Attributes:
        workload: key of the workload.
        rows: of the batch.
        device: where it runs.
        max_norm: the clip bound.
        learning_rate: of the update.
    """

    workload: str
    rows: int
    device: str = "cpu"
    max_norm: float = 1.0
    learning_rate: float = 1e-3

    def module(self) -> nn.Module:
        """Return a module of the task's own weights, another one each time."""
        return WORKLOADS[self.workload].module().to(self.device)

    def batch(self) -> tuple[Tensor, Tensor]:
        """Return the inputs and targets of the batch, on the device."""
        inputs, targets = self.data_set(self.rows)
        return inputs.to(self.device), targets.to(self.device)

    def data_set(self, rows: int) -> tuple[Tensor, Tensor]:
        """Return so many rows, in memory of the host."""
        return WORKLOADS[self.workload].data(rows)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """An engine's step and the module that it trains.

    Attributes:
        step: one step of training.
        module: its `state_dict` has the names of the workload's own module.
        held: bytes of memory of its own that it keeps between steps.
        remark: after a step, what is worth knowing of how it was made.
    """

    step: Callable[[], None]
    module: nn.Module
    held: Callable[[], int] = lambda: 0
    remark: Callable[[], str] = lambda: ""
