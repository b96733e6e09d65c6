"""How many units one chunk holds: by what they need, and by what there is."""

from dataclasses import dataclass
from typing import Any, TypeAlias, final

import torch
from torch import Tensor, nn
from torch.func import functional_call

from clipwise.clipping.attribution import shares
from clipwise.clipping.backward import backward
from clipwise.clipping.batch import Rows
from clipwise.clipping.capture import capture
from clipwise.clipping.dropout import RowKeys
from clipwise.clipping.losses import Loss
from clipwise.clipping.parameters import Leaves
from clipwise.clipping.process_settings import without_autocast

Signature: TypeAlias = tuple[Any, ...]
"""What decides how much memory a row needs: shapes, types, the module's mode."""

ORDINARY_SHARE = 1.3
"""A chunk may take this much of what an ordinary step over the whole batch keeps for its backward pass."""
LEAST_BYTES = 64 * 2**20
"""A chunk of this size is not made smaller: what it costs to begin one outweighs what it saves."""
WHOLE_MODEL_BYTES = 256 * 2**20
"""Memory of one chunk of the whole-model path, where each row has a gradient of every parameter."""


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What one unit needs, in bytes.

    Attributes:
        activations: what an ordinary forward pass keeps for its backward pass.
        contributions: what is kept of it, or made of it, until the factors are known.
    """

    activations: int
    contributions: int

    @property
    def clipped(self) -> int:
        """What a unit needs at the most.

        Contributions take the place of activations as the backward pass goes on; measured on the models
        of the benchmark, about a quarter of the smaller of the two is there beside the larger.
        """
        return max(self.activations, self.contributions) + min(self.activations, self.contributions) // 4


@final
class ChunkSizes:
    """Remembers what units need, and how many of them fit.

    Args:
        microbatch_size: most rows of a chunk, or None.
        memory_limit: most bytes of a chunk, roughly, or None.
    """

    def __init__(self, *, microbatch_size: int | None, memory_limit: int | None) -> None:
        self._microbatch_size = microbatch_size
        self._memory_limit = memory_limit
        self._footprints: dict[Signature, Footprint] = {}
        self._most: dict[Signature, int] = {}

    def knows(self, signature: Signature) -> bool:
        """Tell whether a footprint is known."""
        return signature in self._footprints

    def learn(self, signature: Signature, footprint: Footprint) -> None:
        """Remember what a unit needs."""
        self._footprints[signature] = footprint

    def units(self, signature: Signature, units: int, group: int) -> int:
        """Return how many of `units` units of `group` rows one chunk holds: chunks of nearly equal size."""
        found = self._footprints[signature]
        limit = self._memory_limit
        if limit is None:
            limit = max(LEAST_BYTES, int(ORDINARY_SHARE * found.activations * units))
        most = max(1, limit // max(1, found.clipped))
        if self._microbatch_size is not None:
            most = min(most, max(1, self._microbatch_size // group))
        most = min(most, self._most.get(signature, most))
        chunks = -(-units // most)
        return -(-units // chunks)

    def limit(self, _signature: Signature) -> int:
        """Return the bytes that a chunk of the whole-model path may take."""
        return WHOLE_MODEL_BYTES if self._memory_limit is None else self._memory_limit

    def halve(self, signature: Signature, units: int) -> bool:
        """Remember that `units` units were too many; tell whether fewer can be tried."""
        self._most[signature] = max(1, units // 2)
        return units > 1


def signature_of(module: nn.Module, rows: Rows, trained: dict[str, Tensor], group: int) -> Signature:
    """Return what decides how much memory a unit of `group` rows needs."""
    shapes = tuple((tensor.shape[1:], tensor.dtype) for tensor in rows.tensors())
    return shapes, module.training, len(trained), group


def is_out_of_memory(error: RuntimeError) -> bool:
    """Tell whether torch could not get memory, on a device or from the host."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def whole_model_units(trained: dict[str, Tensor], limit: int, group: int) -> int:
    """Return how many units fit into a chunk of the whole-model path, where a gradient exists twice."""
    gradient = sum(tensor.numel() * tensor.element_size() for tensor in trained.values())
    return max(1, limit // max(1, 2 * gradient * group))


def footprint(
    module: nn.Module, loss: Loss, rows: Rows, leaves: Leaves, trained: dict[str, Tensor], group: int
) -> Footprint:
    """Return what a unit of `group` rows needs, by running the first one."""
    unit = rows.slice(0, group)
    activations = kept_bytes(module, loss, rows.slice(0, 1).cloned(), trained) * group
    kept = 0
    try:
        with torch.random.fork_rng(devices=()):
            captured = capture(
                module, loss, unit, RowKeys(key=0, start=0, stop=group, device=rows.weights.device)
            )
        with without_autocast(rows.weights.device.type):
            met = backward(captured, None, leaves, 1)
            for share in shares(met, leaves, trained).values():
                share.norms()
                kept += sum(contribution.kept_bytes() for _, contribution in share.parts)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        # The whole-model path takes over, which has a gradient of every parameter for each row.
        kept = sum(tensor.numel() * tensor.element_size() for tensor in trained.values())
    return Footprint(activations=activations, contributions=kept)


def kept_bytes(module: nn.Module, loss: Loss, row: Rows, trained: dict[str, Tensor]) -> int:
    """Return what an ordinary pass over one row keeps for its backward pass, in bytes, by running it."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def unpack(tensor: Tensor) -> Tensor:
        return tensor

    buffers = {name: buffer.clone() for name, buffer in module.named_buffers(remove_duplicate=False)}
    with (
        torch.random.fork_rng(devices=()),
        torch.enable_grad(),
        torch.autograd.graph.saved_tensors_hooks(pack, unpack),
    ):
        outputs: Any = functional_call(module, buffers, row.args, row.kwargs, tie_weights=False)
        value = loss(outputs, *row.targets)
    own = {
        tensor.untyped_storage().data_ptr()
        for tensor in (*trained.values(), *buffers.values(), *row.tensors())
    }
    inputs = sum(tensor.numel() * tensor.element_size() for tensor in row.tensors())
    del value
    return inputs + sum(size for place, size in kept.items() if place not in own)
