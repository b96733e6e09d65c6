"""One step of training, by everything that can make one: PyTorch itself, ours, `vmap(grad)` and peers."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from clipwise.models import TorchModel
from clipwise.optim import Optimizer
from clipwise.optim.modules.momentum import Momentum
from clipwise.privacy.mechanism import PoissonGaussian
from clipwise.schedules import FlatClip
from clipwise.training.batches import PhysicalBatches, physical_size
from tests.benchmarks import peers
from tests.benchmarks.task import Prepared, Task
from tests.benchmarks.workloads import mean_loss, row_losses

MOMENTUM = 0.9
BATCHES_OF_DATA = 8
"""Rows of the data set of a whole step, in batches."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A column of the table.

    Attributes:
        title: as the table shows it.
        prepare: makes the step of a task.
        clips: its step adds clipped gradients without noise, and so can be checked.
        peer: the library that it belongs to, or None.
        beside: the engine that its time is compared to.
    """

    title: str
    prepare: Callable[[Task], Prepared]
    clips: bool = True
    peer: str | None = None
    beside: str = "ordinary"


def ordinary(task: Task) -> Prepared:
    """Forward, mean loss, backward, update."""
    module, (inputs, targets) = task.module(), task.batch()
    optimizer = torch.optim.SGD(module.parameters(), lr=task.learning_rate)

    def step() -> None:
        mean_loss(module(inputs), targets).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return Prepared(step=step, module=module)


def compiled(task: Task) -> Prepared:
    """The ordinary step, forward and backward through `torch.compile`."""
    module, (inputs, targets) = task.module(), task.batch()
    optimizer = torch.optim.SGD(module.parameters(), lr=task.learning_rate)

    @torch.compile
    def loss(inputs: Tensor, targets: Tensor) -> Tensor:
        return mean_loss(module(inputs), targets)

    def step() -> None:
        loss(inputs, targets).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return Prepared(step=step, module=module)


def ours(task: Task) -> Prepared:
    """Clipwise: the clipped mean gradient, and the same update."""
    module, batch = task.module(), task.batch()
    model = TorchModel(module, row_losses)
    rule = FlatClip(max_norm=task.max_norm)
    optimizer = torch.optim.SGD(module.parameters(), lr=task.learning_rate)
    parameters = dict(module.named_parameters())

    def step() -> None:
        for name, value in model.compute_batch_gradients(batch, rule).values.items():
            parameters[name].grad = value
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return Prepared(
        step=step,
        module=module,
        held=lambda: model._engine.held_bytes,
        remark=lambda: _fallbacks(model),
    )


def _fallbacks(model: TorchModel) -> str:
    """Return why the model was taken as a whole, or nothing if it was not."""
    reasons = model._engine.whole_model.values()
    return "".join(f"whole model: {reason}" for reason in reasons)[:240]


def per_sample(microbatch: int | None) -> Callable[[Task], Prepared]:
    """Plain `vmap(grad)` over the whole module, in microbatches."""

    def prepare(task: Task) -> Prepared:
        module, (inputs, targets) = task.module(), task.batch()
        trained = dict(module.named_parameters())
        optimizer = torch.optim.SGD(module.parameters(), lr=task.learning_rate)

        def loss(parameters: dict[str, Tensor], row: Tensor, target: Tensor) -> Tensor:
            outputs = functional_call(module, parameters, (row[None],))
            return row_losses(outputs, target[None])[0]

        gradients = vmap(grad(loss), in_dims=(None, 0, 0), randomness="different")

        def step() -> None:
            values = {name: parameter.detach() for name, parameter in trained.items()}
            size = microbatch or len(targets)
            for rows, wanted in zip(inputs.split(size), targets.split(size), strict=True):
                found = gradients(values, rows, wanted)
                norms = torch.stack([one.flatten(1).norm(dim=1) for one in found.values()]).norm(dim=0)
                factors = (task.max_norm / norms).clamp(max=1.0) / len(targets)
                for name, one in found.items():
                    total = torch.einsum("g,g...->...", factors, one)
                    parameter = trained[name]
                    parameter.grad = total if parameter.grad is None else parameter.grad.add_(total)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        return Prepared(step=step, module=module)

    return prepare


def whole_ordinary(task: Task) -> Prepared:
    """A whole ordinary step: a batch of a shuffled epoch, gradient, SGD with momentum."""
    module = task.module()
    inputs, targets = (part.to(task.device) for part in task.data_set(BATCHES_OF_DATA * task.rows))
    optimizer = torch.optim.SGD(module.parameters(), lr=task.learning_rate, momentum=MOMENTUM)
    waiting: list[Tensor] = []

    def step() -> None:
        if not waiting:
            waiting.extend(torch.randperm(len(targets)).to(task.device).split(task.rows))
        drawn = waiting.pop()
        mean_loss(module(inputs[drawn]), targets[drawn]).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return Prepared(step=step, module=module)


@dataclass(frozen=True)
class Encoded:
    """A data set in memory, as the trainer reads one."""

    inputs: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows at `indices`."""
        return self.inputs[indices], self.targets[indices]


def whole_private(task: Task) -> Prepared:
    """A whole private step, as the trainer makes it: Poisson sampling, gradient, noise, momentum."""
    module = task.module()
    model = TorchModel(module, row_losses)
    inputs, targets = task.data_set(BATCHES_OF_DATA * task.rows)
    batches = PhysicalBatches(
        Encoded(inputs.numpy(), targets.numpy()),
        np.arange(len(targets)),
        size=physical_size(task.rows, varies=True),
        dtype=torch.float32,
        device=task.device,
    )
    mechanism = PoissonGaussian(
        sampling_rate=1 / BATCHES_OF_DATA,
        noise_multiplier=1.0,
        sensitivity=task.max_norm,
        expected_batch_size=task.rows,
    )
    optimizer = Optimizer(task.learning_rate, modules=[Momentum(beta=MOMENTUM)])
    rule = FlatClip(max_norm=task.max_norm)

    def step() -> None:
        drawn = mechanism.draw(len(batches))
        total = None
        for piece in batches.cut(drawn):
            part = model.compute_batch_gradients(piece, rule, divisor=1.0)
            if total is None:
                total = part
            else:
                for name, value in part.values.items():
                    total.values[name] += value
        assert total is not None
        averaged = mechanism.average(
            {name: value.cpu().numpy() for name, value in total.values.items()}, len(drawn)
        )
        values = {name: torch.from_numpy(averaged[name]).to(v) for name, v in total.values.items()}
        optimizer.apply_gradients(model, total.with_values(values))

    return Prepared(step=step, module=module, remark=lambda: _fallbacks(model))


ENGINES: dict[str, Engine] = {
    "ordinary": Engine(title="ordinary", prepare=ordinary, clips=False),
    "ours": Engine(title="ours", prepare=ours),
    "vmap": Engine(title="vmap(grad)", prepare=per_sample(None), peer="vmap"),
    "vmap-4": Engine(title="vmap(grad), 4 rows", prepare=per_sample(4), peer="vmap"),
    "vmap-16": Engine(title="vmap(grad), 16 rows", prepare=per_sample(16), peer="vmap"),
    "opacus-hooks": Engine(title="Opacus hooks", prepare=peers.opacus("hooks"), peer="opacus"),
    "opacus-functorch": Engine(title="Opacus functorch", prepare=peers.opacus("functorch"), peer="opacus"),
    "opacus-ew": Engine(title="Opacus ew", prepare=peers.opacus("ew"), peer="opacus"),
    "opacus-ghost": Engine(title="Opacus ghost", prepare=peers.opacus_ghost, peer="opacus"),
    "opake": Engine(title="Opake", prepare=peers.opake(None), peer="opake"),
    "opake-16": Engine(title="Opake, 16 rows", prepare=peers.opake(16), peer="opake"),
    "compiled": Engine(title="ordinary, compiled", prepare=compiled, clips=False),
    "whole-ordinary": Engine(
        title="whole ordinary step", prepare=whole_ordinary, clips=False, beside="whole-ordinary"
    ),
    "whole-private": Engine(
        title="whole DP step", prepare=whole_private, clips=False, beside="whole-ordinary"
    ),
}
