"""Which tensors of a module are trained: by canonical name, aliases found by storage."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import final

from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from clipwise.errors import UnsupportedModule


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """A module's parameters and buffers at one moment.

    Attributes:
        trained: canonical name to trainable tensor, in the module's order, each storage once.
        aliases: every name of a trainable tensor to its canonical name.
        fixed: everything else that the module reads: frozen parameters, and copies of its buffers, so
            that what a forward pass writes into them is written into the copy.
    """

    trained: dict[str, Tensor]
    aliases: dict[str, str]
    fixed: dict[str, Tensor]

    def named(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return every name that the module reads, with `values` in place of the trained tensors."""
        return {**self.fixed, **{name: values[canonical] for name, canonical in self.aliases.items()}}


def parameters_of(module: nn.Module) -> Parameters:
    """Return the parameters and buffers of `module`.

    Raises:
        UnsupportedModule: if they cannot be trained with per-sample gradients.
    """
    trained, aliases = trained_tensors(module)
    fixed = {
        name: parameter.detach()
        for name, parameter in module.named_parameters(remove_duplicate=False)
        if name not in aliases
    }
    fixed |= {name: buffer.clone() for name, buffer in module.named_buffers(remove_duplicate=False)}
    return Parameters(trained=trained, aliases=aliases, fixed=fixed)


def trained_tensors(module: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the trainable tensors of `module` by canonical name, and every name's canonical one.

    Raises:
        UnsupportedModule: if they cannot be trained with per-sample gradients.
    """
    found = leaves_of(module)
    return found.trained, found.aliases


def leaves_of(module: nn.Module) -> "Leaves":
    """Return the trainable parameters of `module`.

    Raises:
        UnsupportedModule: if they cannot be trained with per-sample gradients.
    """
    trained: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    canonical: dict[tuple[object, ...], str] = {}
    held: dict[int, nn.Parameter] = {}
    names: dict[int, str] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if not parameter.requires_grad:
            continue
        held[id(parameter)] = parameter
        _require_plain(name, parameter)
        place = (parameter.data_ptr(), parameter.device, parameter.dtype, parameter.shape, parameter.stride())
        # An empty tensor has no address of its own.
        key: tuple[object, ...] = place if parameter.numel() else (name,)
        aliases[name] = canonical.setdefault(key, name)
        names[id(parameter)] = aliases[name]
        if aliases[name] == name:
            trained[name] = parameter.detach()
    if not trained:
        raise UnsupportedModule("", "it has no trainable parameter; set requires_grad on those to train")
    _require_disjoint(trained)
    return Leaves(trained=trained, aliases=aliases, held=held, names=names, marks=_marks(module))


def _marks(module: nn.Module) -> list[object]:
    """Return what changes when a part or a trainable parameter comes, goes or moves; quick to find."""
    marks: list[object] = []
    for part in parts_of(module):
        for name, parameter in part._parameters.items():  # noqa: SLF001 - what named_parameters() reads
            if parameter is not None and parameter.requires_grad:
                plain = not is_traceable_wrapper_subclass(parameter)
                marks += (name, id(parameter), parameter.data_ptr() if plain else None, parameter.shape)
        for name, inner in part._modules.items():  # noqa: SLF001
            if inner is None:
                continue
            marks += (name, id(inner))
    return marks


def parts_of(module: nn.Module) -> list[nn.Module]:
    """Return `module` and all its parts, each once, in a third of the time of `modules()`."""
    parts, seen = [module], {id(module)}
    for part in parts:
        for inner in part._modules.values():  # noqa: SLF001
            if inner is not None and id(inner) not in seen:
                seen.add(id(inner))
                parts.append(inner)
    return parts


def _require_plain(name: str, parameter: nn.Parameter) -> None:
    path = name.rpartition(".")[0]
    if isinstance(parameter, nn.UninitializedParameter):
        raise UnsupportedModule(path, f"parameter '{name}' has no shape yet; run the module once on a batch")
    if is_traceable_wrapper_subclass(parameter):  # its address says nothing about its storage
        raise UnsupportedModule(
            path,
            f"parameter '{name}' is a {type(parameter).__name__}, which is sharded or packed; train on one "
            "device, with plain tensors",
        )
    if not parameter.is_floating_point():
        raise UnsupportedModule(path, f"parameter '{name}' is {parameter.dtype}; use a real floating type")


def _require_disjoint(trained: dict[str, Tensor]) -> None:
    """Refuse tensors that share a part of their storage: an update would reach both."""
    spans = sorted(
        (tensor.data_ptr(), tensor.data_ptr() + _extent(tensor), name)
        for name, tensor in trained.items()
        if tensor.numel()
    )
    for (_, stop, name), (start, _, other) in pairwise(spans):
        if start < stop and trained[name].device == trained[other].device:
            raise UnsupportedModule(
                other.rpartition(".")[0],
                f"parameters '{name}' and '{other}' are different views of one storage; "
                "tie them as one parameter and take the view in forward()",
            )


def _extent(tensor: Tensor) -> int:
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (last + 1) * tensor.element_size()


@final
class Leaves:
    """The trainable parameters of a module themselves, where autograd's graphs end.

    Attributes:
        trained: canonical name to tensor, without its graph, in the module's order, each storage once.
        aliases: every name of a trainable tensor to its canonical name.
        names: canonical name of each parameter.
        tensors: the parameters; several of one name if they share a storage.
    """

    def __init__(
        self,
        *,
        trained: dict[str, Tensor],
        aliases: dict[str, str],
        held: dict[int, nn.Parameter],
        names: dict[int, str],
        marks: Sequence[object],
    ) -> None:
        self._marks = marks
        self.trained, self.aliases = trained, aliases
        self.names = tuple(names[key] for key in held)
        self.tensors = tuple(held.values())
        self._names = names

    def still(self, module: nn.Module) -> bool:
        """Tell whether these are still all trainable parameters of `module`, at their places in memory.

        What is held here cannot have given its identity to another object.
        """
        return self._marks == _marks(module)

    def name(self, tensor: Tensor) -> str | None:
        """Return the canonical name of `tensor` if it is one of the parameters."""
        return self._names.get(id(tensor))
