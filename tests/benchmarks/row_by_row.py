"""What every clipped step is checked against: a loop over single rows."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tests.benchmarks.task import Task
from tests.benchmarks.workloads import mean_loss, row_losses

ROWS_FOR_BOUND = 16


def row_by_row(task: Task) -> tuple[float, dict[str, Tensor], float]:
    """Clip the gradient of each row of a task to the median norm of the first ones.

    Returns:
        The bound, the mean of the clipped gradients, and the relative difference between the ordinary
        gradient of the batch and the mean of the rows' own.
    """
    module, (inputs, targets) = task.module(), task.batch()
    trained = dict(module.named_parameters())

    def gradient(row: int) -> Sequence[Tensor]:
        loss = row_losses(module(inputs[row : row + 1]), targets[row : row + 1])[0]
        return torch.autograd.grad(loss, list(trained.values()))

    def norm(found: Sequence[Tensor]) -> Tensor:
        return torch.stack([one.norm() for one in found]).norm()

    bound = float(
        torch.stack([norm(gradient(row)) for row in range(min(ROWS_FOR_BOUND, task.rows))]).median()
    )
    plain, clipped = (
        {name: torch.zeros_like(parameter) for name, parameter in trained.items()} for _ in range(2)
    )
    for row in range(task.rows):
        found = gradient(row)
        factor = min(1.0, bound / float(norm(found)))
        for name, one in zip(trained, found, strict=True):
            plain[name].add_(one, alpha=1 / task.rows)
            clipped[name].add_(one, alpha=factor / task.rows)
    batch = torch.autograd.grad(mean_loss(module(inputs), targets), list(trained.values()))
    return bound, clipped, relative_error(dict(zip(trained, batch, strict=True)), plain)


def relative_error(made: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    """Return the norm of the difference over the norm of `expected`, of all tensors together."""
    difference = sum(float((made[name] - value).double().square().sum()) for name, value in expected.items())
    size = sum(float(value.double().square().sum()) for value in expected.values())
    return (difference / size) ** 0.5
