"""Replacement of what has no per-sample gradients by what has, when asked.

>>> from torch import nn
>>> repaired = repair(nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64)))
>>> print(repaired.changes[0])
1: BatchNorm2d(64) -> GroupNorm(32, 64)
"""

import copy
from typing import NamedTuple

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from clipwise.errors import UnsupportedModule

MOST_GROUPS = 32
CHANNELS_PER_GROUP = {nn.BatchNorm1d: 16, nn.BatchNorm2d: 2, nn.BatchNorm3d: 2, nn.SyncBatchNorm: 2}
"""Fewest channels of a group. One channel alone would lose its mean and, at one position, everything. A
`BatchNorm1d` may see rows (B, C) of one position, so that its groups must be wide enough to normalise."""


class Change(NamedTuple):
    """One part that was replaced.

    Attributes:
        path: dotted path of the part, `""` for the root; the first one if it is shared.
        before: what it was.
        after: what it is now.
    """

    path: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.path or '(root)'}: {self.before} -> {self.after}"


class Repaired(NamedTuple):
    """What `repair` gives.

    Attributes:
        module: a repaired copy.
        changes: what is different in it, in the module's order; empty if nothing had to be.
    """

    module: nn.Module
    changes: tuple[Change, ...]


def repair(module: nn.Module) -> Repaired:
    """Return a copy of `module` without the parts that have no per-sample gradients, and what was changed.

    | before | after |
    |---|---|
    | `BatchNorm1d/2d/3d`, `SyncBatchNorm` | `GroupNorm` over the same channels, with the same weights |
    | `InstanceNorm1d/2d/3d` that tracks statistics | the same without |
    | `Embedding`, `EmbeddingBag` with sparse gradients | the same with dense ones |

    The number of groups is the largest divisor of the channels up to 32 that leaves at least 2 channels in
    each, and 16 after a `BatchNorm1d`, whose rows may have one position only.

    `module` itself stays as it is: give the optimizer the copy's parameters. Weights, `requires_grad`,
    device, dtype and mode are kept, and a part that is used in several places is replaced by one. Running
    statistics are dropped: a trained model computes something else afterwards, and needs training. A
    `BatchNorm` in evaluation mode inside of a module in training mode is frozen on purpose, and stays.

    Source: Wu and He, Group normalization (2018).

    Raises:
        UnsupportedModule: naming a part that mixes samples and for which there is no replacement, or that has
            no shape yet.
    """
    for path, part in module.named_modules():
        tensors = (*part.parameters(recurse=False), *part.buffers(recurse=False))
        if any(map(is_lazy, tensors)):
            raise UnsupportedModule(
                path, f"{type(part).__name__} has no shape yet; run the module once on a batch"
            )
    copied = copy.deepcopy(module)
    replaced: dict[int, nn.Module] = {}
    changes: list[Change] = []
    for path, part in copied.named_modules():
        frozen = copied.training and not part.training
        before = _described(part)
        replacement = _replacement(path, part, frozen=frozen)
        if replacement is not None:
            replaced[id(part)] = replacement
            changes.append(Change(path, before, _described(replacement)))
    for part in list(copied.modules()):
        # A part may be there under several names, which `named_children` would leave out.
        for name, child in part._modules.items():  # noqa: SLF001
            if id(child) in replaced:
                part._modules[name] = replaced[id(child)]  # noqa: SLF001
    return Repaired(replaced.get(id(copied), copied), tuple(changes))


def _replacement(path: str, part: nn.Module, *, frozen: bool) -> nn.Module | None:
    """Return what stands in for `part`, or None if it may stay."""
    if isinstance(part, nn.Embedding | nn.EmbeddingBag):
        return _dense(part) if part.sparse else None
    if not isinstance(part, _BatchNorm | _InstanceNorm) or (frozen and part.track_running_stats):
        return None
    if isinstance(part, _InstanceNorm):
        return _untracked(path, part) if part.track_running_stats else None
    return _group_norm(path, part)


def _dense(part: nn.Embedding | nn.EmbeddingBag) -> nn.Module:
    part.sparse = False
    return part


def _group_norm(path: str, part: _BatchNorm) -> nn.GroupNorm:
    _require_plain(path, part, tuple(CHANNELS_PER_GROUP))
    channels = part.num_features
    groups = groups_of(channels, fewest=CHANNELS_PER_GROUP[type(part)])
    norm = nn.GroupNorm(groups, channels, eps=part.eps, affine=False)
    norm.affine = part.affine
    _move_weights(part, norm)
    return norm


def groups_of(channels: int, *, fewest: int) -> int:
    """Return the largest divisor of `channels`, up to 32, that leaves `fewest` channels in each group.

    One group, if none does.

    Example:
        >>> [groups_of(channels, fewest=2) for channels in (64, 16, 24, 7, 1)]
        [32, 8, 12, 1, 1]
    """
    fitting = range(1, min(MOST_GROUPS, channels // fewest) + 1)
    return max((groups for groups in fitting if channels % groups == 0), default=1)


def _untracked(path: str, part: _InstanceNorm) -> nn.Module:
    _require_plain(path, part, (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d))
    norm = type(part)(part.num_features, eps=part.eps, affine=False, track_running_stats=False)
    norm.affine = part.affine
    _move_weights(part, norm)
    return norm


def _move_weights(part: _BatchNorm | _InstanceNorm, norm: nn.Module) -> None:
    # The same parameters: so device, dtype, `requires_grad` and ties to other parts stay what they are.
    norm.weight, norm.bias = part.weight, part.bias
    norm.train(part.training)


def _require_plain(path: str, part: nn.Module, kinds: tuple[type[nn.Module], ...]) -> None:
    """Refuse what is more than its class says: a replacement would leave something out.

    Raises:
        UnsupportedModule: if it is a subclass of its own, or has hooks or parametrizations.
    """
    name = type(part).__name__
    if type(part) not in kinds:
        raise UnsupportedModule(
            path, f"{name} may do more than the norm that it is derived from; replace it by hand"
        )
    hooks = (part._forward_hooks, part._forward_pre_hooks, part._backward_hooks)  # noqa: SLF001
    if any(hooks) or parametrize.is_parametrized(part):
        raise UnsupportedModule(path, f"{name} has hooks or parametrizations; replace it by hand")


def _described(part: nn.Module) -> str:
    """Return the part in a few words."""
    match part:
        case nn.GroupNorm():
            return f"GroupNorm({part.num_groups}, {part.num_channels})"
        case nn.Embedding() | nn.EmbeddingBag():
            return f"{type(part).__name__}(sparse={part.sparse})"
        case _InstanceNorm():
            return (
                f"{type(part).__name__}({part.num_features}, track_running_stats={part.track_running_stats})"
            )
        case _BatchNorm():
            return f"{type(part).__name__}({part.num_features})"
    return type(part).__name__
