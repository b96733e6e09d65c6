"""LSTM, GRU and plain recurrent layers: outer products of the gates' gradients with inputs and states.

A stack is run layer by layer and direction by direction, with all rows at once: the input's part of all
gates is one product, whose output is the place where a layer enters autograd's graph, and the recurrence
is one node of the graph. With `delta` the gradient of the gates, the per-unit gradient of `weight_ih` is
`sum_t delta_t x_t^T`, that of `weight_hh` is `sum_t delta_t h_(t-1)^T`, and that of a bias `sum_t delta_t`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from clipwise.clipping.contributions import Contribution, Dense, Outer, widened
from clipwise.clipping.dropout import drop_elements
from clipwise.clipping.rules.linear import summed_positions
from clipwise.clipping.rules.recurrent_steps import Found, LayerWeights, States, Step, gru, lstm, plain
from clipwise.clipping.rules.rule import Meeting, Rule

if TYPE_CHECKING:
    from clipwise.clipping.capture import CaptureMode


def contributions(
    weights: Sequence[Tensor],  # noqa: ARG001
    saved: Any,
    gradients: Sequence[Tensor | None],
    units: int,
) -> list[Contribution | None]:
    """Return outer products of a place's gradients with what stands beside them, or their sums."""
    places = [None if g is None else _by_unit(g, units) for g in gradients]
    sums: dict[int, Dense] = {}
    found: list[Contribution | None] = []
    for place, right in saved:
        left = places[place]
        if left is None:
            found.append(None)
        elif right is not None:
            found.append(Outer(left, _by_unit(right, units)))
        else:
            if place not in sums:
                sums[place] = Dense(summed_positions(left))
            found.append(sums[place])
    return found


def _by_unit(x: Tensor, units: int) -> Tensor:
    """Return (G, P, C) of (T, L, C), where the sequences of a unit are consecutive."""
    times, sequences, size = x.shape
    return (
        x.reshape(times, units, sequences // units, size)
        .transpose(0, 1)
        .reshape(units, -1, size)
        .contiguous()
    )


def _layers(step: Step) -> Callable[..., Meeting | str]:
    """Return the forward of a whole stack, as `torch.nn.LSTM` and its kin call it."""

    def forward(
        capture: CaptureMode,
        input: Tensor,  # noqa: A002
        hx: Tensor | States,
        params: Sequence[Tensor],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> Meeting | str:
        if any(map(capture.is_data, params)):
            return "its weights depend on the rows"
        initial = hx if isinstance(hx, tuple | list) else (hx,)
        if not initial[0].is_floating_point():
            return "it is given a packed sequence"
        found = Found(capture=capture)
        whole = _rows_of(capture, input)
        time_first = (2, 0, 1, 3) if batch_first else (1, 0, 2, 3)
        sequences = whole.permute(time_first).shape[1:3]
        x = whole.permute(time_first).flatten(1, 2)
        begins = [_rows_of(capture, state).transpose(0, 1).flatten(1, 2) for state in initial]
        directions = 2 if bidirectional else 1
        each = len(params) // (num_layers * directions)
        ends: list[States] = []
        for layer in range(num_layers):
            if layer and dropout and train:
                x = _dropped(capture, x, sequences, dropout)
            with capture.whole_batch(), torch.autocast(x.device.type, enabled=False):
                wide, outs = widened(x), []
                for reverse in (False, True)[:directions]:
                    number = len(ends)
                    weights = _weights(params[number * each : (number + 1) * each], has_biases)
                    states = tuple(widened(state[number]) for state in begins)
                    out, end = step(found, wide, states, weights, reverse)
                    outs.append(out)
                    ends.append(end)
                x = (torch.cat(outs, -1) if bidirectional else outs[0]).to(whole.dtype)
        with capture.whole_batch():
            outputs = _apart(x, sequences).permute((1, 2, 0, 3) if batch_first else (1, 0, 2, 3))
            finals = [
                _apart(torch.stack(parts).to(whole.dtype), sequences).transpose(0, 1)
                for parts in zip(*ends, strict=True)
            ]
        return _meeting(found, (outputs, *finals))

    return forward


def _cell(step: Step) -> Callable[..., Meeting | str]:
    """Return the forward of a single step, as `torch.nn.LSTMCell` and its kin call it."""

    def forward(
        capture: CaptureMode,
        input: Tensor,  # noqa: A002
        hx: Tensor | States,
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor | None = None,
        b_hh: Tensor | None = None,
    ) -> Meeting | str:
        if any(map(capture.is_data, (w_ih, w_hh, b_ih, b_hh))):
            return "its weights depend on the rows"
        initial = hx if isinstance(hx, tuple | list) else (hx,)
        found = Found(capture=capture)
        whole = _rows_of(capture, input)
        states = tuple(widened(_rows_of(capture, state).flatten(0, 1)) for state in initial)
        with capture.whole_batch(), torch.autocast(whole.device.type, enabled=False):
            weights = LayerWeights(input=w_ih, hidden=w_hh, input_bias=b_ih, hidden_bias=b_hh)
            _, ends = step(found, widened(whole.flatten(0, 1))[None], states, weights, False)
            outputs = tuple(end.to(whole.dtype).reshape(*whole.shape[:2], -1) for end in ends)
        return _meeting(found, outputs if len(outputs) > 1 else outputs[0])

    return forward


def _rows_of(capture: CaptureMode, value: Tensor) -> Tensor:
    """Return the physical tensor of all rows; a learned initial state meets the rows here."""
    if capture.is_weight(value):
        with capture:
            value = capture.data(value.new_zeros(1).expand(capture.rows, *value.shape)) + value
    return capture.physical(value)


def _weights(params: Sequence[Tensor], biases: bool) -> LayerWeights:
    w_ih, w_hh, *more = params
    b_ih, b_hh = more[:2] if biases else (None, None)
    projection = more[2 if biases else 0 :]
    return LayerWeights(
        input=w_ih,
        hidden=w_hh,
        input_bias=b_ih,
        hidden_bias=b_hh,
        projection=projection[0] if projection else None,
    )


def _dropped(capture: CaptureMode, x: Tensor, sequences: Sequence[int], p: float) -> Tensor:
    """Do dropout with a mask of every row's own key, of the row's shape with time first."""
    with capture.whole_batch():
        rows = _apart(x, sequences).transpose(0, 1)
    dropped = drop_elements(capture.data(capture.key()), capture.data(rows), p)
    with capture.whole_batch():
        return capture.physical(dropped).transpose(0, 1).flatten(1, 2)


def _apart(x: Tensor, sequences: Sequence[int]) -> Tensor:
    """Return (T, B, N, C) of (T, B * N, C)."""
    return x.reshape(x.shape[0], *sequences, x.shape[2])


def _meeting(found: Found, outputs: Any) -> Meeting:
    return Meeting(
        weights=tuple(found.weights), saved=tuple(found.uses), places=tuple(found.places), outputs=outputs
    )


def frozen(rule: Rule) -> Callable[..., Any]:
    """Return how an operation runs on the whole batch where none of its weights is trained."""

    def run(capture: CaptureMode, *args: Any) -> Any:
        tensors = [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor)]
        if not any(map(capture.is_data, tensors)):
            return NotImplemented
        if torch.is_grad_enabled() and any(map(capture.is_weight, tensors)):
            return NotImplemented
        meeting = rule.forward(capture, *args)
        if isinstance(meeting, str):
            return NotImplemented
        return tree_map_only(Tensor, capture.data, meeting.outputs)

    return run


_relu, _tanh = plain(rectified=True), plain(rectified=False)

_VF: Any = torch._VF  # noqa: SLF001 - torch.nn keeps its recurrent kernels there

RECURRENT: dict[Callable[..., Any], Rule] = {
    _VF.lstm: Rule(name="lstm", forward=_layers(lstm), contributions=contributions),
    _VF.gru: Rule(name="gru", forward=_layers(gru), contributions=contributions),
    _VF.rnn_tanh: Rule(name="rnn", forward=_layers(_tanh), contributions=contributions),
    _VF.rnn_relu: Rule(name="rnn", forward=_layers(_relu), contributions=contributions),
    _VF.lstm_cell: Rule(name="lstm cell", forward=_cell(lstm), contributions=contributions),
    _VF.gru_cell: Rule(name="gru cell", forward=_cell(gru), contributions=contributions),
    _VF.rnn_tanh_cell: Rule(name="rnn cell", forward=_cell(_tanh), contributions=contributions),
    _VF.rnn_relu_cell: Rule(name="rnn cell", forward=_cell(_relu), contributions=contributions),
}
"""Recurrent layers and their single steps."""
