"""What has no per-sample gradients: found before training, or translated from the error of torch."""

from collections.abc import Iterator
from functools import cache
from types import FrameType, TracebackType

import torch
import torch.utils.checkpoint
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from clipwise.clipping.parameters import parts_of
from clipwise.errors import UnsupportedModule


def require_supported(module: nn.Module) -> None:
    """Check `module` and its parts for what mixes samples or changes itself in a forward pass.

    Raises:
        UnsupportedModule: naming the path and the way out.
    """
    # Without their paths the parts are found in a third of the time, and this is done in every step.
    if all(_reason(part) is None for part in parts_of(module)):
        return
    for path, part in module.named_modules():
        reason = _reason(part)
        if reason is not None:
            raise UnsupportedModule(path, f"{type(part).__name__} {reason}")


def _reason(part: nn.Module) -> str | None:
    known = _reason_of_type(type(part))  # type: ignore[arg-type]  # a class is hashable
    if known is not None:
        return known
    if part._compiled_call_impl is not None:  # noqa: SLF001 - torch has no other account of it
        return (
            "was compiled in place, and hides its operations; call compile() after training, or train "
            "copy.deepcopy() of it, which is not compiled"
        )
    if isinstance(part, _BatchNorm) and (part.training or not part.track_running_stats):
        return (
            "normalises over the batch, so a sample's gradient depends on the others; use GroupNorm "
            "(clipwise.models.repair replaces it) or LayerNorm, or put it in eval() mode with running "
            "statistics that are public"
        )
    if isinstance(part, _InstanceNorm) and part.training and part.track_running_stats:
        return (
            "keeps running statistics of the samples that it sees; build it with track_running_stats=False "
            "(clipwise.models.repair does)"
        )
    if isinstance(part, nn.Embedding | nn.EmbeddingBag):
        if part.sparse:
            return "gives sparse gradients; build it with sparse=False (clipwise.models.repair does)"
        if part.max_norm is not None:
            return "rescales its weights in every forward pass; build it with max_norm=None"
    if isinstance(part, fx.GraphModule) and (rows := _fixed_rows(part)) is not None:
        return (
            f"was exported for batches of exactly {rows} rows; export it with "
            'dynamic_shapes=({0: torch.export.Dim("rows")},)'
        )
    return None


@cache
def _reason_of_type(kind: type[nn.Module]) -> str | None:
    if issubclass(kind, nn.parallel.DistributedDataParallel | nn.DataParallel):
        return "is wrapped for several devices; give its '.module'"
    if issubclass(kind, torch.jit.ScriptModule):
        return "is a jit module, whose parameters cannot be substituted; give the original nn.Module"
    # By name: importing these packages takes longer than everything else here.
    homes = [cls.__module__ for cls in kind.__mro__]
    if any(home.startswith("torch._dynamo") for home in homes):
        return "is compiled, and hides its operations; give the module that was compiled, its '._orig_mod'"
    if any(home.startswith("torch.distributed.fsdp") for home in homes):
        return "has parameters that are sharded over devices; train on one device, with the module unsharded"
    if any(home.startswith("torch.ao.quantization") for home in homes):
        return (
            "follows the range of the samples that it sees; train without quantization, and quantize "
            "afterwards with public calibration data"
        )
    if any(home.startswith(("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")) for home in homes):
        return "is quantized, and passes no gradient on; train the floating-point module and quantize it then"
    return None


def _fixed_rows(part: fx.GraphModule) -> int | None:
    """Return how many rows the first input of an exported program must have, if that is fixed."""
    for node in part.graph.nodes:
        value = node.meta.get("val") if node.op == "placeholder" else None
        if isinstance(value, torch.Tensor) and value.ndim:
            return value.shape[0] if type(value.shape[0]) is int else None
    return None


_CAUSES = {
    ("packed sequence",): (
        "packs sequences, so that the size of a tensor depends on the rows' lengths; give the padded "
        "sequences to the recurrent layer, and gather each row's state at its own last step, or mask "
        "the outputs"
    ),
    ("data-dependent control flow", ".item()"): (
        "branches on, or reads out, the value of a tensor; use torch.where in place of if, and keep "
        "numbers as tensors"
    ),
    ("dynamic shape",): (
        "makes a tensor whose size depends on its values (a boolean mask, nonzero, unique); multiply with "
        "the mask or use torch.where"
    ),
    ("mutate a captured Tensor",): (
        "changes a buffer or an attribute in place during forward(); such a statistic of the samples "
        "is outside of any clipping: remove it, or put the module in eval() mode"
    ),
    ("inplace arithmetic", "in-place", "doesn't match the broadcast shape"): (
        "writes a sample's values into a tensor made without it, in place; use the out-of-place form"
    ),
    ("saved tensor hooks",): (
        "uses activation checkpointing, which per-sample gradients do not take; remove it and give a "
        "smaller microbatch_size"
    ),
    ("offsets[0] has to be 0",): (
        "is given bags by offsets, so that the first axis is no axis of rows; give indices (B, P), padded to "
        "one length, and padding_idx"
    ),
    ("staticmethod", "setup_context", "autograd.Function"): (
        "uses an autograd.Function without vmap support; give it setup_context and generate_vmap_rule=True"
    ),
}


def refusal_of(error: Exception, module: nn.Module) -> UnsupportedModule:
    """Return what to tell about an `error` of torch.func in a forward pass that works on its own."""
    path = path_of(error, module)
    part = module.get_submodule(path)
    message = str(error)
    if "use_reentrant" in message or ("setup_context" in message and _is_checkpointing(error)):
        return UnsupportedModule(
            path, f"{type(part).__name__} uses reentrant activation checkpointing; give use_reentrant=False"
        )
    for marks, cause in _CAUSES.items():
        if any(mark in message for mark in marks):
            return UnsupportedModule(path, f"{type(part).__name__} {cause}")
    first = message.strip().partition("\n")[0][:300]
    return UnsupportedModule(
        path, f"{type(part).__name__} has an operation that torch.func cannot take ({first})"
    )


def path_of(error: BaseException, module: nn.Module) -> str:
    """Return the path of the innermost submodule whose forward pass raised `error`."""
    paths = {id(part): path for path, part in module.named_modules()}
    found = ""
    for frame in _frames(error.__traceback__):
        found = paths.get(id(frame.f_locals.get("self")), found)
    return found


def _is_checkpointing(error: BaseException) -> bool:
    home = torch.utils.checkpoint.__file__
    return any(frame.f_code.co_filename == home for frame in _frames(error.__traceback__))


def _frames(traceback: TracebackType | None) -> Iterator[FrameType]:
    while traceback is not None:
        yield traceback.tb_frame
        traceback = traceback.tb_next
