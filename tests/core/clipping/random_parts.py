"""What random modules are composed of: operations on (N, T, E) in which parameters may meet the data.

A part is a module that maps (N, T, E) to (N, T', E). Parts of `POINTWISE` look at the last axis alone, so
that they can be used in any layout; those of `SEQUENCE` know all three axes.
"""

# ruff: noqa: ARG005 - every part is made for T and E, few of them need both

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

TABLE = 5
"""Rows of small tables."""


class Operation(nn.Module):
    """A function of data and of parameters of its own.

    Args:
        function: of the data and the parameters.
        shapes: of the parameters.
    """

    def __init__(self, function: Callable[..., Tensor], shapes: list[tuple[int, ...]]) -> None:
        super().__init__()
        self.function = function
        self.weights = nn.ParameterList([nn.Parameter(torch.zeros(shape)) for shape in shapes])

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.weights)


class Around(nn.Module):
    """A function of data and of a module."""

    def __init__(self, module: nn.Module, function: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.module, self.function = module, function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.module, x)


Part = Callable[[int, int], nn.Module]
"""Gives a module for T and E."""


def op(shapes: str, function: Callable[..., Tensor]) -> Part:
    """Return a part. Parameters' shapes in letters: t, e, d for 2e, h for e/2, k for `TABLE`, s for ()."""

    def made(t: int, e: int) -> nn.Module:
        sizes = {"t": t, "e": e, "d": 2 * e, "h": e // 2, "k": TABLE, "1": 1, "2": 2, "3": 3}
        parsed = [tuple(sizes[letter] for letter in shape if letter != "s") for shape in shapes.split()]
        return Operation(function, parsed)

    return made


def around(module: Part, function: Callable[[Any, Tensor], Tensor]) -> Part:
    return lambda t, e: Around(module(t, e), function)


def rows_of(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])


def code(x: Tensor) -> Tensor:
    """Return indices (...,) of a table, from data (..., E)."""
    return (x.detach().sum(-1) * 3).long().abs() % TABLE


# --- in place -----------------------------------------------------------------------------------------


def add_in_place(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return functional.linear(x, w).add_(b)


def augmented(x: Tensor, w: Tensor, b: Tensor, c: Tensor) -> Tensor:
    y = x @ w
    y += b
    y -= c * 0.5
    return y


def element_assigned(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    y = functional.linear(x, w)
    y[..., 0] = b[0]
    y[..., 1:] *= 0.5
    return y


def written_halves(x: Tensor, w: Tensor, v: Tensor) -> Tensor:
    y, h = torch.empty_like(x), w.shape[1]
    y[..., :h] = x @ w
    y[..., h:] = x @ v
    return y


def accumulated(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y += x * w
    y.add_(b, alpha=0.3)
    return y


def view_written(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    y = functional.linear(x, w)
    y[..., : b.shape[0]].add_(b)
    return y


def view_of_view_written(x: Tensor, b: Tensor, c: Tensor) -> Tensor:
    y = x + c
    part = y[..., 1:]
    part[..., : b.shape[0]].mul_(0.7).add_(b)
    return y.relu_()


def copied_over(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    y = functional.linear(x, w)
    y[..., :1].copy_(b[:1] * x[..., :1])
    return y


def derived_changed_between(x: Tensor, w: Tensor) -> Tensor:
    u = w * 1.0
    y = x + u
    u.mul_(3.0)
    y = y + u
    u[0] = 0.0
    return y + u


def viewed_then_changed(x: Tensor, w: Tensor) -> Tensor:
    u = w * 2.0
    part = u[1:]
    y = x + functional.pad(part, (1, 0))
    u.add_(w)
    return y + u


# --- derived weights ----------------------------------------------------------------------------------


def query_key_value(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    q, k, v = (
        functional.linear(x, part, bias) for part, bias in zip(w.chunk(3), b.split(x.shape[-1]), strict=True)
    )
    return torch.sigmoid(q * k) * v


def overlapping(x: Tensor, w: Tensor) -> Tensor:
    return functional.linear(x, w[: x.shape[-1]]) + functional.linear(x, w[1 : x.shape[-1] + 1])


def strided(x: Tensor, w: Tensor) -> Tensor:
    return functional.linear(x, w[::2]) - torch.tanh(functional.linear(x, w[1::2]))


def columns(x: Tensor, w: Tensor) -> Tensor:
    h = x.shape[-1] // 2
    return torch.cat([x @ w[:, :h], x @ w[:, h:]], -1)


def spectral(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    seen = torch.fft.rfft(x, dim=-1)
    n = seen.shape[-1]
    return torch.fft.irfft(seen * torch.complex(a[:n], b[:n]), n=x.shape[-1], dim=-1)


def tied_table(x: Tensor, table: Tensor) -> Tensor:
    h = x * 0.3 + functional.embedding(code(x), table)
    return x + torch.softmax(h @ table.t(), -1) @ table


def adapter(x: Tensor, w: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return functional.linear(x, w.detach()) + functional.linear(functional.linear(x, a.t()), b)


def without_gradient(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    with torch.no_grad():
        y = functional.linear(x, w) * b
    return x * b + y


def straight_through(x: Tensor, w: Tensor) -> Tensor:
    return functional.linear(x, w + (w.round() - w).detach())


def factorised(t: int, e: int) -> nn.Module:
    return nn.Sequential(nn.Linear(e, 2, bias=False), nn.Linear(2, e))


def expert(x: Tensor, gate: Tensor, w: Tensor, v: Tensor) -> Tensor:
    share = torch.softmax(x @ gate, -1)
    made = torch.stack([x @ w, torch.tanh(x @ v)], -1)
    return (made * share.unsqueeze(-2)).sum(-1)


def unfolded(x: Tensor, w: Tensor) -> Tensor:
    return functional.linear(x, w.unfold(0, x.shape[-1], 1)[: x.shape[-1]])


def with_leading(f: Callable[[Any, Tensor], Tensor]) -> Callable[[Any, Tensor], Tensor]:
    return lambda m, x: f(m, rows_of(x)).reshape(x.shape)


POINTWISE: dict[str, Part] = {
    "linear": lambda t, e: nn.Linear(e, e),
    "linear without bias": lambda t, e: nn.Linear(e, e, bias=False),
    "glu": lambda t, e: nn.Sequential(nn.Linear(e, 2 * e), nn.GLU()),
    "mlp": lambda t, e: nn.Sequential(nn.Linear(e, 2 * e), nn.ReLU(inplace=True), nn.Linear(2 * e, e)),
    "factorised": factorised,
    "transposed weight": op("ee e", lambda x, w, b: functional.linear(x, w.t(), b)),
    "matmul": op("ee", lambda x, w: x @ w),
    "matmul by name": op("ee", lambda x, w: torch.matmul(input=x, other=w)),
    "matmul of transposed": op("ee", lambda x, w: x @ w.mT),
    "matmul from the left": op("ee", lambda x, w: (w @ x.unsqueeze(-1)).squeeze(-1)),
    "matmul with a vector": op("e", lambda x, v: x + (x @ v).unsqueeze(-1)),
    "reflected matmul": op("ee e", lambda x, w, v: functional.linear(x, torch.matmul(w, w)) * (v @ w)),
    "einsum": op("ee", lambda x, w: torch.einsum("...i,io->...o", x, w)),
    "einsum of three": op("ee e", lambda x, w, v: torch.einsum("...i,io,o->...o", x, w, v)),
    "einsum diagonal": op("e", lambda x, v: torch.einsum("...i,i->...i", x, v)),
    "tensordot": op("ee", lambda x, w: torch.tensordot(x, w, dims=1)),
    "addmm": op("e ee", lambda x, b, w: torch.addmm(b, rows_of(x), w).reshape(x.shape)),
    "addmm scaled": op("e ee", lambda x, b, w: torch.addmm(b, rows_of(x), w, beta=0.5, alpha=2).view_as(x)),
    "addmv": op("e", lambda x, v: x + rows_of(x).mv(v).reshape(x.shape[:-1]).unsqueeze(-1)),
    "bilinear": around(lambda t, e: nn.Bilinear(e, e, e), lambda m, x: m(x.contiguous(), torch.tanh(x))),
    "outer of data": op("eee", lambda x, w: torch.einsum("...i,...j,ijk->...k", x, torch.tanh(x), w)),
    # arithmetic
    "shift": op("e", lambda x, b: x + b),
    "shift scaled": op("e", lambda x, b: torch.add(x, b, alpha=-0.7)),
    "shift from the left": op("e", lambda x, b: b + x),
    "difference": op("e", lambda x, b: x - b),
    "difference from the left": op("e", lambda x, b: b - x),
    "rsub": op("e", lambda x, b: torch.rsub(x, b)),
    "scale": op("e", lambda x, s: x * s),
    "scale from the left": op("e", lambda x, s: s * x),
    "scalar": op("s", lambda x, s: x * s),
    "scalar shift": op("s", lambda x, s: torch.add(s, x)),
    "one number": op("1", lambda x, s: torch.multiply(x, s)),
    "affine twice": op("e", lambda x, s: (x * s + s) * s),
    "quotient": op("e", lambda x, s: x / (s.square() + 1)),
    "quotient from the left": op("e", lambda x, s: s / (x.square() + 1)),
    "addcmul": op("e e", lambda x, s, b: torch.addcmul(x, s, b)),
    "addcmul with data": op("e", lambda x, s: torch.addcmul(x, torch.tanh(x), s, value=0.5)),
    "lerp": op("e", lambda x, s: torch.lerp(x, torch.tanh(x), s)),
    "where": op("e e", lambda x, a, b: torch.where(x > 0, a * x, b)),
    "maximum": op("e", lambda x, s: torch.maximum(x, s)),
    "clamp": op("e", lambda x, s: x.clamp(min=s)),
    "prelu": lambda t, e: nn.PReLU(),
    "power": op("e", lambda x, s: (x.square() + 1) ** (0.3 * s)),
    "power of weight": op("e", lambda x, s: (s.square() + 1) ** (0.1 * torch.tanh(x))),
    "hypot": op("e", lambda x, s: torch.hypot(x, s)),
    "distance": op("ke", lambda x, w: x + torch.cdist(rows_of(x), w).mean(-1).reshape(*x.shape[:-1], 1)),
    "cosine": op("e", lambda x, w: x * functional.cosine_similarity(x, w, dim=-1).unsqueeze(-1)),
    "masked": op("e", lambda x, s: (x * s).masked_fill(x < 0, 0.1)),
    "gated": op("ee e", lambda x, w, s: x * torch.sigmoid(functional.linear(x, w) + s)),
    "experts": op("e2 ee ee", expert),
    # derived
    "outer product": op("e e", lambda x, u, v: functional.linear(x, torch.outer(u, v))),
    "softplus": op("ee", lambda x, w: functional.linear(x, functional.softplus(w))),
    "sum of weights": op("ee ee", lambda x, w, v: functional.linear(x, w + v)),
    "product of weights": op("ee ee", lambda x, w, v: functional.linear(x, w * v)),
    "product of matrices": op("eh he", lambda x, w, v: x @ (w @ v)),
    "expanded": op("1e", lambda x, w: functional.linear(x, w.expand(x.shape[-1], -1))),
    "repeated": op("1e", lambda x, w: functional.linear(x, w.repeat(x.shape[-1], 1))),
    "reshaped": op("hd", lambda x, w: functional.linear(x, w.reshape(x.shape[-1], x.shape[-1]))),
    "flat": op("ee", lambda x, w: x * w.flatten()[: x.shape[-1]] + w.view(-1)[-1]),
    "chunks": op(
        "eee e", lambda x, w, b: functional.linear(x, w.unbind(0)[0], b) + functional.linear(x, w[1])
    ),
    "query key value": lambda t, e: Operation(query_key_value, [(3 * e, e), (3 * e,)]),
    "overlapping slices": lambda t, e: Operation(overlapping, [(e + 1, e)]),
    "strided slices": op("de", strided),
    "columns": op("ee", columns),
    "unfolded": lambda t, e: Operation(unfolded, [(2 * e,)]),
    "triangle": op("ee", lambda x, w: functional.linear(x, w.tril())),
    "diagonal": op("e ee", lambda x, v, w: x @ torch.diag(v) + x * w.diagonal()),
    "joined": op("he he", lambda x, w, v: functional.linear(x, torch.cat([w, v]))),
    "picked": op("ee", lambda x, w: functional.linear(x, w[torch.arange(x.shape[-1]).flip(0)])),
    "flipped": op("ee", lambda x, w: functional.linear(x, w.flip(0).roll(1, 1).cumsum(1))),
    "soft weights": op("ee", lambda x, w: functional.linear(x, torch.softmax(w, -1))),
    "normalised weights": op(
        "ee", lambda x, w: functional.linear(functional.normalize(x, dim=-1), functional.normalize(w, dim=-1))
    ),
    "weight norm": lambda t, e: parametrizations.weight_norm(nn.Linear(e, e)),
    "direct and derived": op(
        "ee", lambda x, w: functional.linear(x, w) + x @ w + functional.linear(x, 0.5 * w)
    ),
    "masked weight": op("ee", lambda x, w: functional.linear(x, torch.where(w > 0, w, 0.1 * w))),
    "constant times weight": op("e", lambda x, s: x + s * torch.arange(float(x.shape[-1])).to(x)),
    "adapter": op("ee e2 e2", adapter),
    "straight through": op("ee", straight_through),
    "spectral": op("e e", spectral),
    # parts without a gradient
    "unused": op("ee ee", lambda x, w, v: functional.linear(x, w)),
    "times zero": op("ee", lambda x, w: x + 0.0 * functional.linear(x, w)),
    "detached weight": op(
        "ee", lambda x, w: functional.linear(x, w.detach()) + functional.linear(x.detach(), w)
    ),
    "no grad": op("ee e", without_gradient),
    # in place
    "relu in place": op("ee e", lambda x, w, b: functional.linear(x, w, b).relu_()),
    "add in place": op("ee e", add_in_place),
    "mul in place": op("e e", lambda x, b, s: (x + b).mul_(s)),
    "augmented": op("ee e e", augmented),
    "element assigned": op("ee e", element_assigned),
    "written halves": op("eh eh", written_halves),
    "accumulated": op("e e", accumulated),
    "view written": op("ee h", view_written),
    "view of a view written": op("h e", view_of_view_written),
    "copied over": op("ee e", copied_over),
    "state changed": op("e", lambda x, b: x.add_(b)),
    "leaky in place": around(lambda t, e: nn.Linear(e, e), lambda m, x: functional.leaky_relu_(m(x), 0.2)),
    "derived changed": op("e", derived_changed_between),
    "derived view changed": op("e", viewed_then_changed),
    # norms
    "layer norm": lambda t, e: nn.LayerNorm(e),
    "layer norm without bias": lambda t, e: nn.LayerNorm(e, bias=False),
    "layer norm derived": op("e e", lambda x, s, b: functional.layer_norm(x, (x.shape[-1],), 1 + s, b * 2)),
    "layer norm twice": around(lambda t, e: nn.LayerNorm(e), lambda m, x: m(torch.tanh(m(x)) + x)),
    "rms norm": lambda t, e: nn.RMSNorm(e),
    "group norm": around(lambda t, e: nn.GroupNorm(2, e), with_leading(lambda m, x: m(x))),
    "own norm": op("e", lambda x, s: x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-2) * s),
    # tables
    "embedding": around(lambda t, e: nn.Embedding(TABLE, e), lambda m, x: x + m(code(x))),
    "embedding padded": around(
        lambda t, e: nn.Embedding(TABLE, e, padding_idx=1), lambda m, x: x * 0.5 + m(code(x))
    ),
    "index": op("ke", lambda x, w: x + w[code(x)]),
    "index select": op("ke", lambda x, w: x + w.index_select(0, code(x).reshape(-1)).reshape(x.shape)),
    "one hot": op("ke", lambda x, w: x + functional.one_hot(code(x), TABLE).to(x) @ w),
    "bag": around(
        lambda t, e: nn.EmbeddingBag(TABLE, e, mode="sum"),
        with_leading(lambda m, x: x + m(code(x).unsqueeze(-1))),
    ),
    "tied table": op("ke", tied_table),
    # nothing to train
    "softmax": lambda t, e: nn.Softmax(-1),
    "gelu": lambda t, e: nn.GELU(),
    "dropout": lambda t, e: nn.Dropout(0.3),
    "dropout in place": around(lambda t, e: nn.Dropout(0.4, inplace=True), lambda m, x: m(x * 1.0)),
    "cumulative": op("", lambda x: torch.cumsum(x, -1) * 0.3),
    "logsumexp": op("", lambda x: x - torch.logsumexp(x, -1, keepdim=True)),
    "sorted": op("", lambda x: x.sort(-1).values),
    "largest": op("e", lambda x, s: torch.where(x == x.amax(-1, keepdim=True), x * s, 0.1 * x)),
}


# --- operations that know all three axes --------------------------------------------------------------


def attention(x: Tensor, w: Tensor, o: Tensor) -> Tensor:
    n, t, e = x.shape
    q, k, v = (p.view(n, t, 2, e // 2).transpose(1, 2) for p in functional.linear(x, w).split(e, -1))
    weights = torch.softmax(q @ k.transpose(-2, -1) * (e // 2) ** -0.5, -1)
    return functional.linear((weights @ v).transpose(1, 2).reshape(n, t, e), o)


def fused_attention(x: Tensor, w: Tensor, bias: Tensor) -> Tensor:
    n, t, e = x.shape
    q, k, v = functional.linear(x, w).view(n, t, 3, 2, e // 2).permute(2, 0, 3, 1, 4)
    y = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    return y.transpose(1, 2).reshape(n, t, e)


def causal_attention(x: Tensor, w: Tensor) -> Tensor:
    n, t, e = x.shape
    q, k, v = functional.linear(x, w).view(n, t, 3, 2, e // 2).permute(2, 0, 3, 1, 4)
    y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    return y.transpose(1, 2).reshape(n, t, e)


def attended(m: Any, x: Tensor) -> Tensor:
    y: Tensor = m(x, x, x, need_weights=False)[0]
    return y


def attended_time_first(m: Any, x: Tensor) -> Tensor:
    y: Tensor = m(*(x.transpose(0, 1),) * 3)[0]
    return y.transpose(0, 1)


def crossed(m: Any, x: Tensor) -> Tensor:
    y: Tensor = m(x, x.flip(1), torch.tanh(x))[0]
    return y


def looped(m: Any, x: Tensor) -> Tensor:
    state, steps = None, []
    for step in x.unbind(1):
        state = m(step, state)
        steps.append(state[0])
    return torch.stack(steps, 1)


def recurrence(x: Tensor, w: Tensor, u: Tensor) -> Tensor:
    state, steps = torch.zeros_like(x[:, 0]), []
    for i in range(x.shape[1]):
        state = torch.tanh(functional.linear(x[:, i], w) + state @ u)
        steps.append(state)
    return torch.stack(steps, 1)


def first_assigned(x: Tensor, p: Tensor) -> Tensor:
    y = x * 1.0
    y[:, 0] = p
    return y


def some_changed(x: Tensor, p: Tensor, s: Tensor) -> Tensor:
    y = x * 1.0
    y[:, 0] += p
    y[:, ::2] *= s
    return y


def indexed_add(x: Tensor, p: Tensor) -> Tensor:
    index = torch.arange(x.shape[1]).flip(0)
    return torch.index_add(x, 1, index, p.expand_as(x))


def pooled_by_attention(x: Tensor, v: Tensor) -> Tensor:
    share = torch.softmax(x @ v, 1).unsqueeze(-1)
    return x + (share * x).sum(1, keepdim=True)


def neighbours(m: Any, x: Tensor) -> Tensor:
    y: Tensor = m(x, torch.roll(x, 1, 1))
    return y


def channels(m: Any, x: Tensor) -> Tensor:
    y: Tensor = m(x.transpose(1, 2))
    return y.transpose(1, 2)


def picture(m: Any, x: Tensor) -> Tensor:
    y: Tensor = m(torch.stack([x, torch.tanh(x)], 1))
    return y.mean(1)


def picture_shared(m: Any, x: Tensor) -> Tensor:
    one = torch.stack([x, torch.tanh(x)], 1)
    y: Tensor = m(torch.relu_(m(one)))
    return y.sum(1)


def derived_kernel(x: Tensor, w: Tensor) -> Tensor:
    return functional.conv1d(x.transpose(1, 2), w.flip(-1) + w, padding=1).transpose(1, 2)


def batched_product(x: Tensor, w: Tensor) -> Tensor:
    return torch.bmm(x, w.expand(x.shape[0], -1, -1))


def batched_sum(x: Tensor, b: Tensor, w: Tensor) -> Tensor:
    n, t, e = x.shape
    return torch.baddbmm(b.expand(n, t, e), x, w.expand(n, e, e), beta=0.7, alpha=0.5)


SEQUENCE: dict[str, Part] = {
    "positions": op("te", lambda x, p: x + p),
    "sliced positions": op("1de", lambda x, p: x + p[:, : x.shape[1]]),
    "positions by table": around(
        lambda t, e: nn.Embedding(t, e), lambda m, x: x + m(torch.arange(x.shape[1])).unsqueeze(0)
    ),
    "class token": op("11e", lambda x, c: torch.cat([c.expand(x.shape[0], -1, -1), x], 1)),
    "attention": lambda t, e: Operation(attention, [(3 * e, e), (e, e)]),
    "fused attention with bias": lambda t, e: Operation(fused_attention, [(3 * e, e), (2, t, t)]),
    "causal attention": lambda t, e: Operation(causal_attention, [(3 * e, e)]),
    "multi-head attention": around(lambda t, e: nn.MultiheadAttention(e, 2, batch_first=True), attended),
    "multi-head attention, time first": around(lambda t, e: nn.MultiheadAttention(e, 2), attended_time_first),
    "cross attention": around(
        lambda t, e: nn.MultiheadAttention(e, 2, bias=False, add_bias_kv=True, batch_first=True), crossed
    ),
    "encoder layer": lambda t, e: nn.TransformerEncoderLayer(e, 2, 2 * e, 0.0, batch_first=True),
    "mixing of positions": op("tt", lambda x, w: torch.einsum("ts,bse->bte", w, x)),
    "mixing from the left": op("tt", lambda x, w: w @ x),
    "mixing by a layer": around(lambda t, e: nn.Linear(t, t), channels),
    "conv1d": around(lambda t, e: nn.Conv1d(e, e, 3, padding=1), channels),
    "conv1d strided": around(lambda t, e: nn.Conv1d(e, e, 2, stride=2, padding=1), channels),
    "conv1d circular": around(
        lambda t, e: nn.Conv1d(e, e, 3, padding=1, padding_mode="circular", bias=False), channels
    ),
    "conv1d depthwise": around(lambda t, e: nn.Conv1d(e, e, 3, padding="same", groups=e), channels),
    "conv1d dilated": around(lambda t, e: nn.Conv1d(e, e, 2, padding=2, dilation=2, groups=2), channels),
    "conv1d derived": op("ee3", derived_kernel),
    "conv transposed": around(lambda t, e: nn.ConvTranspose1d(e, e, 2, groups=2), channels),
    "conv2d": around(lambda t, e: nn.Conv2d(2, 3, 3, padding=1), picture),
    "conv2d grouped": around(lambda t, e: nn.Conv2d(2, 4, (1, 3), padding=(0, 1), groups=2), picture),
    "conv2d twice": around(lambda t, e: nn.Conv2d(2, 2, 3, padding=1), picture_shared),
    "conv2d normed": around(
        lambda t, e: nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.GroupNorm(2, 4), nn.ReLU()),
        picture,
    ),
    "group norm over positions": around(lambda t, e: nn.GroupNorm(2, e), channels),
    "instance norm": around(lambda t, e: nn.InstanceNorm1d(e, affine=True), channels),
    "layer norm over all": lambda t, e: nn.LayerNorm((t, e)),
    "dropout of channels": lambda t, e: nn.Dropout1d(0.3),
    "bmm": op("1ee", batched_product),
    "baddbmm": op("1te 1ee", batched_sum),
    "lstm": around(lambda t, e: nn.LSTM(e, e, batch_first=True), lambda m, x: m(x)[0]),
    "gru, time first": around(
        lambda t, e: nn.GRU(e, e // 2, bidirectional=True),
        lambda m, x: m(x.transpose(0, 1))[0].transpose(0, 1),
    ),
    "rnn": around(lambda t, e: nn.RNN(e, e, batch_first=True), lambda m, x: m(x)[0]),
    "lstm cell": around(lambda t, e: nn.LSTMCell(e, e), looped),
    "recurrence": op("ee ee", recurrence),
    "first assigned": op("e", first_assigned),
    "some changed": op("e s", some_changed),
    "indexed add": op("e", indexed_add),
    "pooled by attention": op("e", pooled_by_attention),
    "neighbours": around(lambda t, e: nn.Bilinear(e, e, e), neighbours),
    "bag of positions": around(
        lambda t, e: nn.EmbeddingBag(TABLE, e), lambda m, x: x + m(code(x)).unsqueeze(1)
    ),
    # nothing to train
    "cumulative over positions": op("", lambda x: x.cumsum(1) * 0.5),
    "largest so far": op("", lambda x: x.cummax(1).values),
    "pooled": op("", lambda x: functional.avg_pool1d(x.transpose(1, 2), 2, 1, 1).transpose(1, 2)),
    "rolled": op("", lambda x: torch.roll(x, 1, 1) - x.flip(1)),
    "mean over positions": op("", lambda x: x - x.mean(1, keepdim=True)),
}
