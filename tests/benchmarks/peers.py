"""A clipped step by other libraries, as their own documentation has it, with noise of zero.

They are imported when a step is prepared: the groups `dev` and `bench` of pyproject.toml install them.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.benchmarks.task import Prepared, Task
from tests.benchmarks.workloads import mean_loss, row_losses


def opacus(mode: str) -> Callable[[Task], Prepared]:
    """Opacus with per-sample gradients on every parameter, made by `mode`."""

    def prepare(task: Task) -> Prepared:
        from opacus.grad_sample.utils import prepare_module
        from opacus.optimizers import DPOptimizer

        module, (inputs, targets) = _with_opacus_layers(task.module()).to(task.device), task.batch()
        sampled: Any = prepare_module(module, mode, batch_first=True, loss_reduction="mean")
        optimizer = DPOptimizer(
            torch.optim.SGD(module.parameters(), lr=task.learning_rate),
            noise_multiplier=0.0,
            max_grad_norm=task.max_norm,
            expected_batch_size=task.rows,
        )

        def step() -> None:
            mean_loss(sampled(inputs), targets).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        return Prepared(step=step, module=module)

    return prepare


def opacus_ghost(task: Task) -> Prepared:
    """Opacus with ghost norms: two backward passes and no per-sample gradient."""
    from opacus.grad_sample.utils import prepare_module
    from opacus.optimizers.optimizer_fast_gradient_clipping import DPOptimizerFastGradientClipping
    from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

    module, (inputs, targets) = _with_opacus_layers(task.module()).to(task.device), task.batch()
    sampled: Any = prepare_module(
        module,
        "ghost",
        batch_first=True,
        loss_reduction="mean",
        max_grad_norm=task.max_norm,
        use_ghost_clipping=True,
    )
    optimizer = DPOptimizerFastGradientClipping(
        torch.optim.SGD(module.parameters(), lr=task.learning_rate),
        noise_multiplier=0.0,
        max_grad_norm=task.max_norm,
        expected_batch_size=task.rows,
    )
    criterion: Any = DPLossFastGradientClipping(sampled, optimizer, nn.CrossEntropyLoss(), "mean")

    def step() -> None:
        outputs = sampled(inputs)
        shape = outputs.shape if targets.ndim == 2 else None
        criterion(outputs.flatten(0, -2), targets.flatten(), shape=shape).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return Prepared(step=step, module=module)


def opake(microbatch: int | None) -> Callable[[Task], Prepared]:
    """Opake's `clipped_grad`, over the whole batch or in microbatches."""

    def prepare(task: Task) -> Prepared:
        from opake.dpsgd.clipping import clipped_grad
        from torch.func import functional_call

        module, (inputs, targets) = task.module(), task.batch()
        trained = dict(module.named_parameters())
        optimizer = torch.optim.SGD(module.parameters(), lr=task.learning_rate)

        def loss(parameters: dict[str, Tensor], row: Tensor, target: Tensor) -> Tensor:
            return row_losses(functional_call(module, parameters, (row[None],)), target[None])[0]

        gradient, state = clipped_grad(
            loss,
            clipping_norm=task.max_norm,
            normalize_by=task.rows,
            batch_argnums=(1, 2),
            microbatch_size=microbatch,
        )

        def step() -> None:
            values = {name: parameter.detach() for name, parameter in trained.items()}
            clipped, _ = gradient(values, inputs, targets, state=state)
            for name, value in clipped.pytree.items():
                trained[name].grad = value
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        return Prepared(step=step, module=module)

    return prepare


def _with_opacus_layers(module: nn.Module) -> nn.Module:
    """Put Opacus's own recurrent layers in place of PyTorch's, with the same weights."""
    from opacus.layers import DPGRU, DPLSTM

    replacements = {nn.LSTM: DPLSTM, nn.GRU: DPGRU}
    for name, part in list(module.named_modules()):
        if type(part) not in replacements:
            continue
        made = replacements[type(part)](part.input_size, part.hidden_size, batch_first=part.batch_first)
        made.load_state_dict(copy.deepcopy(part.state_dict()))
        parent, _, attribute = name.rpartition(".")
        setattr(module.get_submodule(parent), attribute, made)
    return module
