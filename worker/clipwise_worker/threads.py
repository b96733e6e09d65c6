"""How many threads a model is worth."""

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

SMALL_STEP = 1e9
"""Multiplications of a step's forward pass, below which one thread does it."""


def choose_threads(module: nn.Module, samples: Tensor, batch_size: float) -> None:
    """Give a small model one thread; `OMP_NUM_THREADS`, where it is set, has the word.

    Threads that wait for each other at every small operation are slow as soon as one of them is not
    scheduled: on four cores busy with other work the digits example took 40 to 160 s with four threads.
    """
    if wanted(os.environ, multiplications(module, samples) / len(samples) * batch_size):
        torch.set_num_threads(1)


def wanted(environment: Mapping[str, str], work: float) -> bool:
    """Return whether one thread is to do `work` multiplications a step."""
    return "OMP_NUM_THREADS" not in environment and work < SMALL_STEP


def multiplications(module: nn.Module, samples: Tensor) -> int:
    """Count those of `module` on `samples` (B, ...), roughly: parameters times the positions they meet."""
    total = 0

    def count(part: nn.Module, _: Any, output: Any) -> None:
        nonlocal total
        own = list(part.parameters(recurse=False))
        if own and isinstance(output, Tensor) and own[0].ndim:
            total += output.numel() // own[0].shape[0] * sum(parameter.numel() for parameter in own)

    hooks = [part.register_forward_hook(count) for part in module.modules()]
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=()):
            module(samples)
    finally:
        for hook in hooks:
            hook.remove()
    return total
