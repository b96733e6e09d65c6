"""Operations that need help where a single row of a batch runs under `vmap`."""

from collections.abc import Callable, Iterable
from typing import Any, final

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from clipwise.clipping.dropout import call_key, drop_channels, drop_elements

_VF: Any = torch._VF  # noqa: SLF001 - torch.nn keeps its recurrent kernels there


@final
class RowMode(TorchFunctionMode):
    """Within it, dropout masks come from the row's key, and recurrent layers can be taken by `vmap`.

    Dropout inside of composite operations (attention, stacked recurrent layers) is drawn by torch:
    different for every row, and dependent on the microbatch.

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
        kwargs = dict(kwargs or {})
        if func in _RECURRENT:
            return func(*_with_state_of_row(args), **kwargs)
        drop = _DROPOUTS.get(func)
        if drop is None:
            return func(*args, **kwargs)
        if "input" in kwargs:
            args = (kwargs.pop("input"), *args)
        self._drops += 1
        return drop(call_key(self._key, self._drops), *args, **kwargs)


def _with_state_of_row(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the arguments with an initial state that `vmap` knows to belong to the row.

    The kernels write into the state in place; zeros that torch.nn made itself are shared by all rows.
    """
    x, state, *rest = args
    if isinstance(state, Tensor) and not state.is_floating_point():
        return args  # a packed sequence, whose second argument is its batch sizes
    zero = torch.zeros_like(x).sum()
    shared = isinstance(state, Tensor)
    return (x, state + zero if shared else tuple(part + zero for part in state), *rest)


_RECURRENT = frozenset(
    {
        _VF.gru,
        _VF.gru_cell,
        _VF.lstm,
        _VF.lstm_cell,
        _VF.rnn_relu,
        _VF.rnn_relu_cell,
        _VF.rnn_tanh,
        _VF.rnn_tanh_cell,
    }
)
_DROPOUTS: dict[Any, Callable[..., Tensor]] = {
    functional.dropout: drop_elements,
    torch.dropout: drop_elements,
    functional.dropout1d: drop_channels,
    functional.dropout2d: drop_channels,
    functional.dropout3d: drop_channels,
}
