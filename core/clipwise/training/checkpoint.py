"""Checkpoints: everything that a training run needs to go on, in one safetensors file.

Weights, buffers, the optimizer's state and the step. Without privacy also the states of the random
generators, the sampler's position, the size of physical batches and the number of threads, so that a run
that goes on ends bit for bit where it would have ended (on the same device and versions). Under privacy
nothing of sampling or noise is kept: what is repeated draws afresh, and pays again.

Nothing is unpickled: the file holds tensors, and a header of JSON.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from clipwise.errors import InvalidData, InvalidState
from clipwise.models import TorchModel
from clipwise.optim import Optimizer
from clipwise.training.shuffled_mean import ShuffledMean

FORMAT = "clipwise.checkpoint/1"
_MODEL, _OPTIMIZER = "model.", "optimizer."
_CPU, _CUDA, _WAITING = "random.cpu", "random.cuda", "sampler.waiting"


@final
@dataclass(frozen=True, kw_only=True)
class Written:
    """A complete file: its size in bytes and SHA-256 in hexadecimal."""

    path: Path
    size: int
    sha256: str


@final
@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint that was read.

    Attributes:
        step: steps that the weights have behind them.
        physical_size: rows of a physical batch, as they were cut.
        threads: of torch, when it was written.
        best_loss: the lowest loss on held-out rows so far, if one was measured.
        unevaluated: whether an evaluation was due after `step`, and broken off.
    """

    step: int
    physical_size: int
    threads: int
    best_loss: float | None
    unevaluated: bool
    _tensors: Mapping[str, Tensor]
    _sampler: Mapping[str, Any] | None

    def restore(self, model: TorchModel, optimizer: Optimizer, mechanism: object) -> None:
        """Put model, optimizer and sampler where they were.

        Raises:
            InvalidState: if the checkpoint is of another model, optimizer or kind of sampling.
        """
        own = model.module.state_dict()
        weights = self._part(_MODEL)
        if {name: value.shape for name, value in own.items()} != {n: v.shape for n, v in weights.items()}:
            raise InvalidState("the checkpoint is of another model: names or shapes of its weights differ")
        sampled = isinstance(mechanism, ShuffledMean)
        if sampled != (self._sampler is not None):
            raise InvalidState("the checkpoint is of a run with another kind of sampling")
        model.module.load_state_dict(weights)
        state = {
            name: value.to(next(iter(own.values())).device) for name, value in self._part(_OPTIMIZER).items()
        }
        optimizer.set_state(model, state)
        if isinstance(mechanism, ShuffledMean) and self._sampler is not None:
            mechanism.set_state(self._sampler, self._tensors[_WAITING].numpy())
            torch.set_rng_state(self._tensors[_CPU])
            if _CUDA in self._tensors and torch.cuda.is_available():
                torch.cuda.set_rng_state(self._tensors[_CUDA])

    def _part(self, prefix: str) -> dict[str, Tensor]:
        return {n.removeprefix(prefix): value for n, value in self._tensors.items() if n.startswith(prefix)}


def write(
    path: Path,
    *,
    step: int,
    model: TorchModel,
    optimizer: Optimizer,
    mechanism: object,
    physical_size: int,
    best_loss: float | None = None,
    unevaluated: bool = False,
) -> Written:
    """Write a checkpoint: aside, to the disk, hashed, and renamed to `path` when it is complete.

    Raises:
        OSError: if it cannot be written; nothing is left behind.
    """
    tensors = {_MODEL + name: value for name, value in _unshared(model.module.state_dict()).items()}
    tensors |= {_OPTIMIZER + name: value.contiguous() for name, value in optimizer.get_state().items()}
    header: dict[str, Any] = {
        "format": FORMAT,
        "step": step,
        "physical_size": physical_size,
        "threads": torch.get_num_threads(),
        "best_loss": best_loss,
        "unevaluated": unevaluated,
        "sampler": None,
    }
    if isinstance(mechanism, ShuffledMean):
        header["sampler"], waiting = mechanism.get_state()
        tensors |= {_WAITING: torch.from_numpy(waiting), _CPU: torch.get_rng_state()}
        if next(model.module.parameters()).is_cuda:
            tensors[_CUDA] = torch.cuda.get_rng_state()
    aside = path.with_name(f".{path.name}")
    try:
        save_file(tensors, str(aside), {"clipwise": json.dumps(header)})
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
        aside.rename(path)
    except SafetensorError as error:  # how it tells of a full disk
        raise OSError(f"the checkpoint cannot be written: {error}") from error
    finally:
        aside.unlink(missing_ok=True)
    return Written(path=path, size=size, sha256=digest)


def read(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        InvalidData: if it is none, or of a format that this version does not know.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            header = json.loads((file.metadata() or {})["clipwise"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise InvalidData(f"'{path.name}' is no readable checkpoint: {error}") from error
    if header.get("format") != FORMAT:
        raise InvalidData(
            f"'{path.name}' is a checkpoint of the format '{header.get('format')}', not '{FORMAT}'"
        )
    return Checkpoint(
        step=header["step"],
        physical_size=header["physical_size"],
        threads=header["threads"],
        best_loss=header["best_loss"],
        unevaluated=header["unevaluated"],
        _tensors=tensors,
        _sampler=header["sampler"],
    )


def _unshared(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous tensors of which no two share memory: the format has no word for a tied weight."""
    seen: set[int] = set()
    own: dict[str, Tensor] = {}
    for name, value in state.items():
        copied = value.detach().contiguous()
        if copied.untyped_storage().data_ptr() in seen:
            copied = copied.clone()
        seen.add(copied.untyped_storage().data_ptr())
        own[name] = copied
    return own
