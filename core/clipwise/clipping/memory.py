"""How many units fit into one chunk."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from clipwise.clipping.batch import Rows
from clipwise.clipping.losses import Loss
from clipwise.clipping.parameters import Parameters

DEFAULT_CHUNK_BYTES = 256 * 2**20
"""Memory that the per-unit gradients and activations of one chunk may take, roughly."""

# Measured on the models of the tests: vmap keeps copies of activations that plain autograd shares, and
# a gradient exists twice while it is scaled.
ACTIVATION_FACTOR = 2
GRADIENT_FACTOR = 2


def bytes_per_row(module: nn.Module, loss: Loss, parameters: Parameters, rows: Rows) -> int:
    """Return what one row of `rows` keeps for its backward pass, in bytes, by running it once."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def unpack(tensor: Tensor) -> Tensor:
        return tensor

    row = rows.slice(0, 1)
    trained = {name: tensor.detach().requires_grad_() for name, tensor in parameters.trained.items()}
    with (
        torch.random.fork_rng(devices=()),
        torch.enable_grad(),
        torch.autograd.graph.saved_tensors_hooks(pack, unpack),
    ):
        outputs: Any = functional_call(
            module, parameters.named(trained), row.args, row.kwargs, tie_weights=False
        )
        value = loss(outputs, *row.targets)
    own = {tensor.untyped_storage().data_ptr() for tensor in (*trained.values(), *parameters.fixed.values())}
    saved = sum(size for place, size in kept.items() if place not in own)
    inputs = sum(tensor.numel() * tensor.element_size() for tensor in row.tensors())
    del value
    return saved + inputs


def units_per_chunk(
    row_bytes: int, parameters: Parameters, *, group: int, memory: int, microbatch: int | None
) -> int:
    """Return how many units of `group` rows one chunk may hold, at least one.

    Args:
        row_bytes: as `bytes_per_row` gives it.
        parameters: whose gradients exist once for each row.
        group: rows per unit.
        memory: bytes that a chunk may take.
        microbatch: most rows of a chunk, or None.
    """
    gradient = sum(tensor.numel() * tensor.element_size() for tensor in parameters.trained.values())
    unit = group * (GRADIENT_FACTOR * gradient + ACTIVATION_FACTOR * row_bytes)
    fitting = max(1, memory // max(1, unit))
    return fitting if microbatch is None else max(1, min(fitting, math.floor(microbatch / group)))
