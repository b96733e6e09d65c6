"""Operations that need help where a single row of a batch runs under `vmap`."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, final

import torch
from torch import Tensor
from torch._C import _functorch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from clipwise.clipping.composites import unguarded
from clipwise.clipping.dropout import DROPOUTS, attend, call_key, drop_elements, dropped
from clipwise.clipping.recomputation import kept

_VF: Any = torch._VF  # noqa: SLF001 - torch.nn keeps its recurrent kernels there


@final
class RowMode(TorchFunctionMode):
    """Within it, dropout masks come from the row's key, and recurrent layers can be taken by `vmap`.

    Attention with dropout is opened up; stacked recurrent layers with dropout are run layer by layer.

    Args:
        key: dropout key of the row, 0-d.
    """

    def __init__(self, key: Tensor) -> None:
        super().__init__()
        self._key = key
        self._drops = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        with kept():
            return self._called(func, args, dict(kwargs or {}))

    def _called(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func is _VF._pack_padded_sequence and _functorch.is_functorch_wrapped_tensor(args[0]):  # noqa: SLF001
            raise RuntimeError("a packed sequence has as many steps as its lengths say")
        if func in _STACKS and not _packed(args):
            return self._stacked(func, *_with_state_of_row(args))
        if func in _STACKS or func in _CELLS:
            return func(*_with_state_of_row(args), **kwargs)
        if func in DROPOUTS:
            return dropped(func, self._next_key, *args, **kwargs)
        if func is functional.scaled_dot_product_attention:
            return self._attended(*args, **kwargs)
        if func is functional.multi_head_attention_forward:  # which has dropout inside
            with self:
                return _ATTENTION(*args, **kwargs)
        return func(*args, **kwargs)

    def _attended(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        **more: Any,
    ) -> Tensor:
        if dropout_p > 0.0:
            return attend(self._next_key(), query, key, value, attn_mask, dropout_p, is_causal, **more)
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, **more
        )

    def _next_key(self) -> Tensor:
        self._drops += 1
        return call_key(self._key, self._drops)

    def _stacked(
        self,
        func: Callable[..., Any],
        x: Tensor,
        states: Any,
        weights: Sequence[Tensor],
        biases: bool,
        layers: int,
        dropout: float,
        training: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> Any:
        """Run recurrent layers one by one if there is dropout between them, on (T, N, ...)."""
        if not (training and dropout and layers > 1):
            return func(x, states, weights, biases, layers, dropout, training, bidirectional, batch_first)
        alone = isinstance(states, Tensor)
        parts = (states,) if alone else states
        x = x.transpose(0, 1) if batch_first else x
        directions = 2 if bidirectional else 1
        width = len(weights) // layers
        ends = []
        for layer in range(layers):
            if layer:
                x = drop_elements(self._next_key(), x, dropout)
            begin = tuple(part[layer * directions : (layer + 1) * directions] for part in parts)
            x, *end = func(
                x,
                begin[0] if alone else begin,
                weights[layer * width : (layer + 1) * width],
                biases,
                1,
                0.0,
                True,
                bidirectional,
                False,
            )
            ends.append(end)
        return x.transpose(0, 1) if batch_first else x, *map(torch.cat, zip(*ends, strict=True))


def _packed(args: tuple[Any, ...]) -> bool:
    """Tell whether a recurrent layer is given a packed sequence: its second argument is its batch sizes."""
    return isinstance(args[1], Tensor) and not args[1].is_floating_point()


def _with_state_of_row(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the arguments with an initial state that `vmap` knows to belong to the row.

    The kernels write into the state in place; zeros that torch.nn made itself are shared by all rows.
    """
    if _packed(args):
        return args
    x, state, *rest = args
    zero = torch.zeros_like(x).sum()
    shared = isinstance(state, Tensor)
    return (x, state + zero if shared else tuple(part + zero for part in state), *rest)


_STACKS = frozenset({_VF.gru, _VF.lstm, _VF.rnn_relu, _VF.rnn_tanh})
_CELLS = frozenset({_VF.gru_cell, _VF.lstm_cell, _VF.rnn_relu_cell, _VF.rnn_tanh_cell})
_ATTENTION: Any = unguarded(functional.multi_head_attention_forward)
