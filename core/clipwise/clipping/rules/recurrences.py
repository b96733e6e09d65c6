"""Recurrences over time of a whole batch: LSTM, GRU and plain ones, given the input's part of every gate.

The input's part of all gates at all times is one product, made before. What is left is a loop: forward it
gives every state; backward it gives the gradient of every gate at every time, which is all that per-unit
gradients of the weights need. Both write into buffers with time first, so that a step is one block of memory.

Letters: T times, L sequences, H hidden size, R size of the output (H, or that of the projection).
Sources: Hochreiter and Schmidhuber 1997; Sak et al. 2014 (projection); Cho et al. 2014; Elman 1990.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, final

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_sigmoid_backward = torch.ops.aten.sigmoid_backward
_tanh_backward = torch.ops.aten.tanh_backward


def before_and_after(states: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    """Return views (T, ...) of states (T + 1, ...): those before the steps, and those after them."""
    return (states[1:], states[:-1]) if reverse else (states[:-1], states[1:])


def last(states: Tensor, reverse: bool) -> Tensor:
    """Return the state after all steps, of states (T + 1, ...)."""
    return states[0] if reverse else states[-1]


def _begun(initial: Tensor, times: int, reverse: bool) -> Tensor:
    """Return memory (T + 1, L, ...) for states, of which the initial one is written."""
    states = initial.new_empty(times + 1, *initial.shape)
    states[times if reverse else 0] = initial
    return states


def _times(times: int, reverse: bool) -> Iterable[int]:
    return range(times - 1, -1, -1) if reverse else range(times)


@final
class LstmRecurrence(torch.autograd.Function):
    """`i, f, g, o = gates + h W^T`; `c' = s(f) c + s(i) tanh(g)`; `h' = s(o) tanh(c')`, projected if asked.

    Args:
        gates: the input's part with biases, (T, L, 4H); overwritten.
        projections: (T, L, R), of any values: its gradient is that of the projected outputs. None without.
        hidden: initial, (L, R).
        cell: initial, (L, H).
        weight: of the hidden state, (4H, R).
        projection: (R, H), or None.
        reverse: whether time runs backwards.

    Returns:
        hidden states (T + 1, L, R), the cell's last state (L, H), and the outputs before their projection,
        (T, L, H), or None.
    """

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any,
        gates: Tensor,
        projections: Tensor | None,  # noqa: ARG004
        hidden: Tensor,
        cell: Tensor,
        weight: Tensor,
        projection: Tensor | None,
        reverse: bool,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        times, size = gates.shape[0], cell.shape[1]
        gates = gates.detach()
        hiddens, cells = _begun(hidden, times, reverse), _begun(cell, times, reverse)
        wide = None if projection is None else cells.new_empty(times, *cell.shape)
        h_before, h_after = (part.unbind() for part in before_and_after(hiddens, reverse))
        c_before, c_after = (part.unbind() for part in before_and_after(cells, reverse))
        outs = h_after if wide is None else wide.unbind()
        whole, in_forget = gates.unbind(), gates[..., : 2 * size].unbind()
        i_s, f_s, g_s, o_s = (part.unbind() for part in gates.chunk(4, -1))
        turned, product = weight.t(), torch.empty_like(cell)
        for t in _times(times, reverse):
            whole[t].addmm_(h_before[t], turned)
            in_forget[t].sigmoid_()
            g_s[t].tanh_()
            o_s[t].sigmoid_()
            torch.mul(i_s[t], g_s[t], out=product)
            torch.addcmul(product, f_s[t], c_before[t], out=c_after[t])
            torch.tanh(c_after[t], out=product)
            torch.mul(o_s[t], product, out=outs[t])
            if projection is not None:
                torch.mm(outs[t], projection.t(), out=h_after[t])
        ctx.save_for_backward(gates, cells, weight, projection)
        ctx.reverse = reverse
        if wide is not None:
            ctx.mark_non_differentiable(wide)
        return hiddens, last(cells, reverse).clone(), wide

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        """Return the gradients; that of the gates takes the place of the gates in memory."""
        outer, d_cell, _ = gradients
        gates, cells, weight, projection = ctx.saved_tensors
        reverse = ctx.reverse
        times, size = gates.shape[0], cells.shape[2]
        above = before_and_after(outer, reverse)[1].unbind()
        c_before, c_after = (part.unbind() for part in before_and_after(cells, reverse))
        whole, in_forget = gates.unbind(), gates[..., : 2 * size].unbind()
        i_s, f_s, g_s, o_s = (part.unbind() for part in gates.chunk(4, -1))
        d_outs = None if projection is None else torch.empty_like(above[0]).expand(times, -1, -1).clone()
        dc = d_cell.contiguous().clone()
        dh, product, squashed = (torch.empty_like(dc) for _ in range(3))
        pair = dc.new_empty(dc.shape[0], 2 * size)
        to_in, to_forget = pair.chunk(2, 1)
        later: Tensor | None = None
        for t in _times(times, not reverse):
            d_out = dh if d_outs is None else d_outs[t]
            if later is None:
                d_out.copy_(above[t])
            else:
                torch.addmm(above[t], later, weight, out=d_out)
            if d_outs is not None:
                torch.mm(d_out, projection, out=dh)
            torch.tanh(c_after[t], out=squashed)
            torch.mul(dh, o_s[t], out=product)
            dc.add_(_tanh_backward.grad_input(product, squashed, grad_input=product))
            _sigmoid_backward.grad_input(dh.mul_(squashed), o_s[t], grad_input=o_s[t])
            torch.mul(dc, g_s[t], out=to_in)
            torch.mul(dc, c_before[t], out=to_forget)
            torch.mul(dc, i_s[t], out=product)
            dc.mul_(f_s[t])
            _sigmoid_backward.grad_input(pair, in_forget[t], grad_input=in_forget[t])
            _tanh_backward.grad_input(product, g_s[t], grad_input=g_s[t])
            later = whole[t]
        first = torch.empty_like(above[0]) if later is None else later @ weight
        return gates, d_outs, first, dc, None, None, None


@final
class GruRecurrence(torch.autograd.Function):
    """`r, z = s(gates + h W^T)`; `n = tanh(gate + r (h W_n^T + b_n))`; `h' = (1 - z) n + z h`.

    Args:
        gates: the input's part, with all biases but b_n, (T, L, 3H); overwritten.
        inner: (T, L, 3H), of any values: its gradient is that of the hidden state's part of the gates.
        hidden: initial, (L, H).
        weight: of the hidden state, (3H, H).
        bias: b_n (H,), or None.
        reverse: whether time runs backwards.

    Returns:
        hidden states, (T + 1, L, H).
    """

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any,
        gates: Tensor,
        inner: Tensor,  # noqa: ARG004
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        reverse: bool,
    ) -> Tensor:
        times, size = gates.shape[0], hidden.shape[1]
        gates = gates.detach()
        hiddens = _begun(hidden, times, reverse)
        candidates = hidden.new_empty(times, *hidden.shape)  # the hidden state's part of them
        h_before, h_after = (part.unbind() for part in before_and_after(hiddens, reverse))
        r_s, z_s, n_s = (part.unbind() for part in gates.chunk(3, -1))
        reset_update, inner_n = gates[..., : 2 * size].unbind(), candidates.unbind()
        turned, turned_n = weight[: 2 * size].t(), weight[2 * size :].t()
        for t in _times(times, reverse):
            reset_update[t].addmm_(h_before[t], turned).sigmoid_()
            if bias is None:
                torch.mm(h_before[t], turned_n, out=inner_n[t])
            else:
                torch.addmm(bias, h_before[t], turned_n, out=inner_n[t])
            n_s[t].addcmul_(r_s[t], inner_n[t]).tanh_()
            torch.lerp(n_s[t], h_before[t], z_s[t], out=h_after[t])
        ctx.save_for_backward(gates, candidates, hiddens, weight)
        ctx.reverse = reverse
        return hiddens

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        """Return the gradients; that of the gates takes the place of the gates in memory."""
        (outer,) = gradients
        gates, candidates, hiddens, weight = ctx.saved_tensors
        reverse = ctx.reverse
        times, size = gates.shape[0], hiddens.shape[2]
        above = before_and_after(outer, reverse)[1].unbind()
        h_before = before_and_after(hiddens, reverse)[0].unbind()
        r_s, z_s, n_s = (part.unbind() for part in gates.chunk(3, -1))
        reset_update, inner_n = gates[..., : 2 * size].unbind(), candidates.unbind()
        d_inner = torch.empty_like(gates)
        d_whole, d_reset_update = d_inner.unbind(), d_inner[..., : 2 * size].unbind()
        d_candidates = d_inner[..., 2 * size :].unbind()
        dh, product = torch.zeros_like(hiddens[0]), torch.empty_like(hiddens[0])
        pair = dh.new_empty(dh.shape[0], 2 * size)
        to_reset, to_update = pair.chunk(2, 1)
        for t in _times(times, not reverse):
            dh.add_(above[t])
            r, z, n = r_s[t], z_s[t], n_s[t]
            torch.sub(h_before[t], n, out=to_update).mul_(dh)
            torch.addcmul(dh, dh, z, value=-1, out=product)
            dh.mul_(z)
            _tanh_backward.grad_input(product, n, grad_input=n)
            torch.mul(n, r, out=d_candidates[t])
            torch.mul(n, inner_n[t], out=to_reset)
            _sigmoid_backward.grad_input(pair, reset_update[t], grad_input=reset_update[t])
            d_reset_update[t].copy_(reset_update[t])
            dh.addmm_(d_whole[t], weight)
        return gates, d_inner, dh, None, None, None


@final
class PlainRecurrence(torch.autograd.Function):
    """`h' = tanh(gates + h W^T)`, or with the rectifier in place of tanh.

    Args:
        gates: the input's part with biases, (T, L, H).
        hidden: initial, (L, H).
        weight: of the hidden state, (H, H).
        rectified: whether the rectifier is meant.
        reverse: whether time runs backwards.

    Returns:
        hidden states, (T + 1, L, H).
    """

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any, gates: Tensor, hidden: Tensor, weight: Tensor, rectified: bool, reverse: bool
    ) -> Tensor:
        hiddens = _begun(hidden, gates.shape[0], reverse)
        h_before, h_after = (part.unbind() for part in before_and_after(hiddens, reverse))
        parts, turned = gates.detach().unbind(), weight.t()
        for t in _times(len(parts), reverse):
            state = torch.addmm(parts[t], h_before[t], turned, out=h_after[t])
            state.relu_() if rectified else state.tanh_()
        ctx.save_for_backward(hiddens, weight)
        ctx.rectified, ctx.reverse = rectified, reverse
        return hiddens

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        """Return the gradients."""
        (outer,) = gradients
        hiddens, weight = ctx.saved_tensors
        reverse = ctx.reverse
        above = before_and_after(outer, reverse)[1].unbind()
        h_after = before_and_after(hiddens, reverse)[1].unbind()
        delta = hiddens.new_empty(len(above), *hiddens.shape[1:])
        deltas, dh = delta.unbind(), torch.zeros_like(hiddens[0])
        for t in _times(len(above), not reverse):
            dh.add_(above[t])
            if ctx.rectified:
                torch.ops.aten.threshold_backward.grad_input(dh, h_after[t], 0, grad_input=deltas[t])
            else:
                _tanh_backward.grad_input(dh, h_after[t], grad_input=deltas[t])
            torch.mm(deltas[t], weight, out=dh)
        return delta, dh, None, None, None
