"""Capture: one forward pass of a batch in which every meeting of a weight with rows is recorded.

The pass runs under one level of `torch.func`'s batching, so that each row reaches the module as a batch of
one, and torch itself knows at every moment which axis of which tensor belongs to the rows. A tensor at this
level is *data*. Any other tensor that asks for a gradient is a *weight*: a parameter, or one derived from
parameters alone. Where the two meet, the operation runs with the weight detached, on the whole batch at
once where a rule knows how, and the place where its output enters autograd's graph is kept.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch._C import _functorch
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch._functorch.vmap import vmap_increment_nesting
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.func import functional_call
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from clipwise.clipping.batch import Rows
from clipwise.clipping.composites import unguarded
from clipwise.clipping.dropout import RowKeys, call_key
from clipwise.clipping.losses import Loss
from clipwise.clipping.own_copies import NeedsOwnCopy, OwnCopies
from clipwise.clipping.parameters import parts_of
from clipwise.clipping.process_settings import no_fast_path
from clipwise.clipping.recomputation import kept
from clipwise.clipping.rules import RULES, WHOLE_BATCH
from clipwise.clipping.rules.any_operation import any_operation, writes
from clipwise.clipping.rules.any_operation import forward as run_any_operation
from clipwise.clipping.rules.rule import Meeting, Rule, as_place
from clipwise.clipping.whole_model import require_row_losses


@dataclass(kw_only=True, eq=False)
class Record:
    """One meeting of weights with rows.

    Attributes:
        rule: what knows the per-unit gradients of this operation.
        operation: its name.
        why: why this rule.
        weights: what met the data: parameters, or tensors derived from them.
        saved: what the rule asked to keep, rows first.
        kept: the saved tensors and the weights.
        versions: of these, to notice if they are changed in place afterwards.
        edges: where the outputs enter autograd's graph.
        ends: whether the backward pass has no further to go from one of them.
    """

    rule: Rule
    operation: str
    why: str
    weights: tuple[Tensor, ...]
    saved: Any
    kept: tuple[Tensor, ...]
    versions: list[int]
    edges: tuple[GradientEdge, ...]
    ends: bool

    def forget(self) -> None:
        """Let go of what was kept."""
        self.saved = self.kept = ()

    def require_unchanged(self) -> None:
        """Check that nothing that was kept has been written to since.

        Raises:
            RuntimeError: as autograd itself would for a tensor that it kept.
        """
        if self.versions != [tensor._version for tensor in self.kept]:  # noqa: SLF001
            raise RuntimeError(
                f"a tensor needed for the gradient of '{self.operation}' has been modified by an inplace "
                "operation after it was used; use the out-of-place form"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Captured:
    """What a forward pass left.

    Attributes:
        losses: of the rows, (B,), unweighted, with their graph.
        records: in the order of the forward pass.
    """

    losses: Tensor
    records: list[Record]


def capture(
    module: nn.Module, loss: Loss, rows: Rows, keys: Tensor | RowKeys, copies: OwnCopies | None = None
) -> Captured:
    """Run `module` and `loss` on `rows`, and record where weights meet them.

    Args:
        module: called with its own parameters and with copies of its buffers.
        loss: `(outputs, targets) -> (B,)`; it sees one row at a time.
        rows: at least one.
        keys: dropout keys, (B,).
        copies: what is known from passes before about tensors that rows are written into.

    Raises:
        RuntimeError: if `torch.func` cannot take an operation of the module.
        RowsDisagree: if the rows take different branches.
    """
    copies = OwnCopies() if copies is None else copies
    while True:
        copies.begin()
        try:
            return _captured(module, loss, rows, keys, copies)
        except NeedsOwnCopy:
            continue
        finally:
            copies.begin()


def _captured(
    module: nn.Module, loss: Loss, rows: Rows, keys: Tensor | RowKeys, copies: OwnCopies
) -> Captured:
    buffers: dict[str, Tensor] = {}
    if any(part._buffers for part in parts_of(module)):  # noqa: SLF001 - in a fifth of the time of buffers()
        buffers = {name: buffer.clone() for name, buffer in module.named_buffers(remove_duplicate=False)}
    with _batched(rows.size) as level, torch.enable_grad():

        def row(tensor: Tensor) -> Tensor:
            return _functorch._add_batch_dim(tensor.unsqueeze(1), 0, level)  # noqa: SLF001

        rows = rows.cloned() if copies.inputs else rows
        versions = [tensor._version for tensor in rows.tensors()]  # noqa: SLF001
        args = tuple(map(row, rows.args))
        kwargs = {name: row(tensor) for name, tensor in rows.kwargs.items()}
        targets = tuple(map(row, rows.targets))
        mode = CaptureMode(level, rows, keys, copies)
        with mode:
            if buffers:
                outputs = functional_call(module, buffers, args, kwargs, tie_weights=False)
            else:
                outputs = module(*args, **kwargs)
            value = require_row_losses(loss(outputs, *targets), 1)
        losses = mode.physical(value).reshape(rows.size)
    copies.inputs = versions != [tensor._version for tensor in rows.tensors()]  # noqa: SLF001
    copies.end()
    return Captured(losses=losses, records=mode.records)


@contextmanager
def _batched(rows: int) -> Iterator[int]:
    """Enter a level of batching; leave attention's inference kernels aside, which hide their weights."""
    with no_fast_path, vmap_increment_nesting(rows, "different") as level:
        yield level


@final
class CaptureMode(TorchFunctionMode):
    """Sees every operation of a forward pass; see `capture`.

    Args:
        level: of the batching that the pass runs under.
        rows: that pass through it.
        keys: dropout keys, (B,).
        copies: where tensors are made that rows are written into.

    Attributes:
        rows: number of rows B.
    """

    def __init__(self, level: int, rows: Rows, keys: Tensor | RowKeys, copies: OwnCopies) -> None:
        super().__init__()
        self.records: list[Record] = []
        self.rows = rows.size
        self._weights = rows.weights
        self._copies = copies
        self._level = level
        self._keys = keys
        self._drops = 0
        self._ends = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        with kept():
            try:
                found = self._called(func, args, kwargs)
            except NeedsOwnCopy:
                raise
            except RuntimeError as error:
                if self._wrote_into_constant(func, args) and self._copies.learn(args[0]):
                    raise NeedsOwnCopy from error
                raise
            if not self._copies.watching or not isinstance(found, Tensor) or self.is_data(found):
                return found
            wanted = self._copies.wanted(found, args, sys._getframe(1))  # noqa: SLF001
            return self._own(found) if wanted else found

    def _called(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        whole = WHOLE_BATCH.get(func)
        if whole is not None:
            found = whole(self, *args, **kwargs)
            if found is not NotImplemented:
                return found
        # Attention is opened up in any case: it has dropout inside.
        if not self._meets(args, kwargs) and func is not functional.multi_head_attention_forward:
            return func(*args, **kwargs)
        rule = RULES.get(func)
        why = "no rule for this operation"
        if rule is not None:
            try:
                meeting = rule.forward(self, *args, **kwargs)
            except TypeError:  # arguments that a rule does not know, or an error of the module's own
                meeting = "it is called in another form"
            if not isinstance(meeting, str):
                return self._record(rule, func, meeting, "closed form")
            why = meeting
        plain = unguarded(func)
        if plain is not None:
            with self:
                return plain(*args, **kwargs)
        return self._record(any_operation, func, run_any_operation(self, func, args, kwargs), why)

    def _wrote_into_constant(self, func: Callable[..., Any], args: tuple[Any, ...]) -> bool:
        return writes(func) and bool(args) and isinstance(args[0], Tensor) and not self.is_data(args[0])

    def _own(self, made: Tensor) -> Tensor:
        """Return a copy of `made` for each row."""
        if not self.is_weight(made):
            return self.data(self.physical(made).clone())
        with self.whole_batch():
            zeros = made.new_zeros(self.rows, *made.shape)
        with self:
            return torch.add(self.data(zeros), made)

    @property
    def counted(self) -> Tensor:
        """Which rows are no padding, (B,)."""
        return self._weights != 0

    def is_data(self, value: Any) -> bool:
        """Tell whether `value` is a tensor that differs between rows."""
        return isinstance(value, Tensor) and _functorch.is_batchedtensor(value)

    def is_weight(self, value: Any) -> bool:
        """Tell whether `value` is made of parameters alone and is to be trained."""
        return isinstance(value, Tensor) and value.requires_grad and not _functorch.is_batchedtensor(value)

    def physical(self, tensor: Tensor) -> Tensor:
        """Return the tensor (B, *row) of all rows behind `tensor`; one that is no data is repeated."""
        if not _functorch.is_batchedtensor(tensor):
            return tensor.expand(self.rows, *tensor.shape)
        if _functorch.maybe_get_level(tensor) != self._level:
            raise RuntimeError("a nested vmap meets a trainable parameter")
        axis = _functorch.maybe_get_bdim(tensor)
        whole = _functorch.get_unwrapped(tensor)
        return whole if axis == 0 else whole.movedim(axis, 0)

    def data(self, physical: Tensor) -> Tensor:
        """Return the data behind which `physical` (B, *row) is."""
        return _functorch._add_batch_dim(physical, 0, self._level)  # noqa: SLF001

    def unwrapped(self, tensor: Tensor) -> Tensor:
        """Return what is behind data, its rows on whichever axis they are."""
        return _functorch.get_unwrapped(tensor)

    def axis(self, tensor: Tensor) -> int:
        """Return the axis of the rows in what is behind data."""
        return _functorch.maybe_get_bdim(tensor)

    def placed(self, tensor: Tensor) -> Tensor:
        """Return data as something that is no view for autograd; see `as_place`."""
        whole = _functorch.get_unwrapped(tensor)
        with self.whole_batch():
            place = as_place(whole)
        return _functorch._add_batch_dim(place, self.axis(tensor), self._level)  # noqa: SLF001

    def detached(self, weight: Tensor, beside: Tensor | None) -> Tensor:
        """Return `weight` cut from its parameters, for an operation with the physical data `beside`.

        It asks for a gradient if the data does not, so that the output has a place in autograd's graph
        and, not being a leaf, may be written to. That gradient is never computed.
        """
        ends = beside is None or not beside.requires_grad
        self._ends = self._ends or ends
        return weight.detach().requires_grad_(ends)

    def key(self) -> Tensor:
        """Return the keys (B,) of the next dropout."""
        self._drops += 1
        keys = self._keys if isinstance(self._keys, Tensor) else self._keys.tensor
        return call_key(keys, self._drops)

    def whole_batch(self) -> AbstractContextManager[Any]:
        """Within it operations see the whole batch: batching is off."""
        return temporarily_clear_interpreter_stack()

    def _meets(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        data = weight = False
        for value in _tensors((args, kwargs)) if kwargs else _tensors(args):
            if _functorch.is_batchedtensor(value):
                data = True
            elif value.requires_grad:
                weight = True
            if data and weight:
                return torch.is_grad_enabled()
        return False

    def _record(self, rule: Rule, func: Callable[..., Any], meeting: Meeting, why: str) -> Any:
        places = meeting.places
        if places:  # an operation without any has numbers without gradients for its outputs, or weights
            held = (*_tensors(meeting.saved), *meeting.weights)
            self.records.append(
                Record(
                    rule=rule,
                    operation=getattr(func, "__name__", str(func)),
                    why=why,
                    weights=meeting.weights,
                    saved=meeting.saved,
                    kept=held,
                    versions=[tensor._version for tensor in held],  # noqa: SLF001
                    edges=tuple(map(get_gradient_edge, places)),
                    ends=self._ends,
                )
            )
        self._ends = False
        if meeting.finish is not None:
            return meeting.finish()
        if isinstance(meeting.outputs, Tensor):
            return self.data(meeting.outputs)
        return tree_map_only(Tensor, self.data, meeting.outputs)


def _tensors(values: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested tuples, lists and dictionaries."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, tuple | list):
        for value in values:
            if isinstance(value, Tensor):
                yield value
            elif isinstance(value, tuple | list | dict):
                yield from _tensors(value)
    elif isinstance(values, dict):
        yield from _tensors(tuple(values.values()))
