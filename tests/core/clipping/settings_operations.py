"""Settings for single operations in which a parameter meets the rows."""

from collections.abc import Callable
from typing import Any

import torch
from tests.core.clipping.settings import ROWS, Setting, floats, integers
from torch import Tensor, nn
from torch.nn import functional


class With(nn.Module):
    """A function of parameters and inputs: `function(*parameters, *inputs)`."""

    def __init__(self, function: Callable[..., Any], *shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.function = function
        self.parts = nn.ParameterList([nn.Parameter(torch.rand(shape) + 0.5) for shape in shapes])

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*self.parts, *inputs)


def over_all(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return a loss for outputs whose first axis is none of rows: a row is a batch of one."""
    return (outputs.square() + 0.1 * outputs).mean().reshape(1)


def operation(
    name: str,
    function: Callable[..., Any],
    *shapes: tuple[int, ...],
    inputs: Callable[[], Any],
    without_rule: str = "",
    **more: Any,
) -> Setting:
    """Return a setting for a function of parameters and inputs."""
    return Setting(
        name=name,
        module=lambda: With(function, *shapes),
        inputs=inputs,
        without_rule=frozenset(without_rule.split()),
        loss=over_all,
        **more,
    )


def layer(name: str, module: Callable[[], nn.Module], inputs: Callable[[], Any], **more: Any) -> Setting:
    """Return a setting for one layer."""
    more["without_rule"] = frozenset(more.get("without_rule", "").split())
    return Setting(name=name, module=module, inputs=inputs, **more)


def positive(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.rand(ROWS, *shape) + 0.5


def mixed(*made: Callable[[], Tensor]) -> Callable[[], tuple[Tensor, ...]]:
    return lambda: tuple(one() for one in made)


class Bag(nn.Module):
    """An embedding bag whose indices come with weights of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(9, 4, mode="sum", padding_idx=2)

    def forward(self, index: Tensor, weights: Tensor) -> Tensor:
        return self.bag(index, per_sample_weights=weights)


LAYERS = (
    layer("linear_1", lambda: nn.Linear(5, 3), floats(5)),
    layer("linear_2", lambda: nn.Linear(5, 3), floats(4, 5)),
    layer("linear_3", lambda: nn.Linear(5, 3), floats(2, 3, 5)),
    layer("linear_4", lambda: nn.Linear(5, 3), floats(2, 2, 3, 5)),
    layer("linear_many_positions", lambda: nn.Linear(30, 40), floats(3, 30)),
    layer("embedding_padding", lambda: nn.Embedding(9, 4, padding_idx=0), integers(9, 5)),
    layer("embedding_padding_from_the_end", lambda: nn.Embedding(9, 4, padding_idx=-2), integers(9, 2, 5)),
    layer("embedding_of_one", lambda: nn.Embedding(9, 4), integers(9)),
    layer("embedding_int32", lambda: nn.Embedding(9, 4), lambda: integers(9, 5)().int()),
    layer("bag_sum", lambda: nn.EmbeddingBag(9, 4, mode="sum"), integers(9, 5)),
    layer("bag_mean", lambda: nn.EmbeddingBag(9, 4, mode="mean"), integers(9, 5)),
    layer("bag_mean_padding", lambda: nn.EmbeddingBag(4, 3, mode="mean", padding_idx=-4), integers(4, 5)),
    layer("bag_max", lambda: nn.EmbeddingBag(9, 4, mode="max"), integers(9, 5)),
    layer("bag_max_padding", lambda: nn.EmbeddingBag(4, 3, mode="max", padding_idx=1), integers(4, 5)),
    layer("bag_weighted", Bag, mixed(integers(9, 5), floats(5))),
    layer("layer_norm_affine", lambda: nn.LayerNorm((3, 4)), floats(2, 3, 4)),
    layer("layer_norm_without_bias", lambda: nn.LayerNorm(4, bias=False), floats(3, 4)),
    layer(
        "layer_norm_plain",
        lambda: nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5, elementwise_affine=False), nn.Tanh()),
        floats(3, 4),
    ),
    layer("rms_norm", lambda: nn.RMSNorm(4), floats(3, 4)),
    layer("rms_norm_two_axes", lambda: nn.RMSNorm((3, 4), eps=1e-3), floats(2, 3, 4)),
    layer(
        "rms_norm_plain",
        lambda: nn.Sequential(nn.Linear(4, 5), nn.RMSNorm(5, elementwise_affine=False), nn.Tanh()),
        floats(4),
    ),
    layer(
        "instance_norm",
        lambda: nn.Sequential(nn.InstanceNorm2d(3, affine=True), nn.Tanh()),
        floats(3, 4, 4),
        without_rule="instance_norm",
    ),
    layer("prelu_one", lambda: nn.PReLU(), floats(3, 4)),
    layer("prelu_channels", lambda: nn.PReLU(3), floats(3, 4, 2)),
    layer("prelu_flat", lambda: nn.PReLU(3), floats(3)),
    layer("bilinear", lambda: nn.Bilinear(3, 4, 2), mixed(floats(3), floats(4))),
    layer("bilinear_positions", lambda: nn.Bilinear(3, 4, 2, bias=False), mixed(floats(5, 3), floats(5, 4))),
)

ARITHMETIC = (
    operation("x_times_w", lambda w, x: x * w, (4,), inputs=floats(3, 4)),
    operation("w_times_x", lambda w, x: w * x, (3, 1), inputs=floats(3, 4)),
    operation("w_times_a_smaller_x", lambda w, x: w * x, (2, 3, 4), inputs=floats(4)),
    operation("x_plus_w", lambda w, x: x + w, (1, 4), inputs=floats(3, 4)),
    operation("w_plus_x", lambda w, x: w + x, (3, 4), inputs=floats(3, 4)),
    operation("w_plus_a_smaller_x", lambda w, x: (w + x).tanh(), (5, 3, 4), inputs=floats(3, 1)),
    operation("x_minus_w", lambda w, x: x - w, (4,), inputs=floats(3, 4)),
    operation("w_minus_x", lambda w, x: w - x, (4,), inputs=floats(3, 4)),
    operation("alpha", lambda w, x: torch.add(x, w, alpha=3.0).sub(w, alpha=0.5), (4,), inputs=floats(3, 4)),
    operation("x_over_w", lambda w, x: x / w, (4,), inputs=floats(3, 4)),
    operation("w_over_x", lambda w, x: w / x, (4,), inputs=positive(3, 4)),
    operation("w_to_the_x", lambda w, x: w**x, (4,), inputs=floats(3, 4), without_rule="pow"),
    operation("x_to_the_w", lambda w, x: x**w, (4,), inputs=positive(3, 4), without_rule="pow"),
    operation("integers_times_w", lambda w, x: x * w, (4,), inputs=integers(5, 4)),
    operation("a_mask_times_w", lambda w, x: (x > 0) * w, (4,), inputs=floats(3, 4)),
    operation("where", lambda w, x: torch.where(x > 0, x, w), (4,), inputs=floats(3, 4)),
    operation("where_of_weights", lambda v, w, x: torch.where(x > 0, v, w), (4,), (), inputs=floats(3, 4)),
    operation("where_method", lambda w, x: x.where(x > 0, w * 2), (4,), inputs=floats(3, 4)),
    operation("lerp", torch.lerp, (4,), (4,), inputs=floats(3, 4), without_rule="lerp"),
    operation("addcmul", torch.addcmul, (4,), (1,), inputs=floats(3, 4), without_rule="addcmul"),
    operation(
        "masked_fill", lambda w, x: x.masked_fill(x > 0, w), (), inputs=floats(4), without_rule="masked_fill"
    ),
    operation("maximum", torch.maximum, (4,), inputs=floats(3, 4), without_rule="maximum"),
)

TABLES = (
    operation("positions", lambda w, x: x + w[:, : x.shape[1]], (1, 7, 4), inputs=floats(5, 4)),
    operation("positions_flat", lambda w, x: torch.tanh(x + w[: x.shape[1]]), (7, 4), inputs=floats(5, 4)),
    operation("getitem", lambda w, i: w[i], (9, 4), inputs=integers(9, 5)),
    operation("getitem_vector", lambda w, i: w[i], (9,), inputs=integers(9, 5)),
    operation("getitem_deep", lambda w, i: w[i], (9, 2, 3), inputs=integers(9, 5)),
    operation("getitem_negative", lambda w, i: w[i - 9], (9, 4), inputs=integers(9, 5)),
    operation(
        "getitem_last", lambda w, i: w[:, i], (4, 9), inputs=integers(9, 5), without_rule="__getitem__"
    ),
    operation(
        "getitem_pairs",
        lambda w, i, j: w[i, j],
        (5, 9),
        inputs=mixed(integers(5, 3), integers(9, 3)),
        without_rule="__getitem__",
    ),
    operation("index_select", lambda w, i: w.index_select(0, i.flatten()), (9, 4), inputs=integers(9, 5)),
    operation(
        "looked_up_and_multiplied",
        lambda w, i: torch.einsum("btk,vk->btv", functional.embedding(i, w), w),
        (9, 4),
        inputs=integers(9, 5),
    ),
    operation(
        "looked_up_and_multiplied_and_added",
        lambda w, i: (functional.embedding(i, w) @ w.t()) @ w + w[2] * w[:5],
        (9, 4),
        inputs=integers(9, 5),
    ),
    operation(
        "index_select_last",
        lambda w, i: torch.index_select(w, 1, i.flatten()),
        (4, 9),
        inputs=integers(9, 5),
        without_rule="index_select",
    ),
    operation(
        "gather", lambda w, i: w.gather(0, i[0]), (9, 4), inputs=integers(9, 5, 4), without_rule="gather"
    ),
    operation(
        "take_along_dim",
        lambda w, i: torch.take_along_dim(w, i[0], 0),
        (9, 4),
        inputs=integers(9, 5, 4),
        without_rule="take_along_dim",
    ),
)

PRODUCTS = (
    operation("matmul_right", lambda w, x: x @ w, (4, 2), inputs=floats(3, 4)),
    operation("matmul_transposed", lambda w, x: x @ w.t(), (2, 4), inputs=floats(3, 4)),
    operation("matmul_vector", lambda w, x: x @ w, (4,), inputs=floats(3, 4)),
    operation("matmul_of_a_vector", lambda w, x: x[0] @ w, (4, 2), inputs=floats(4)),
    operation("matmul_stack", lambda w, x: x @ w, (5, 4, 2), inputs=floats(5, 3, 4)),
    operation("matmul_stack_broadcast", lambda w, x: x @ w, (5, 4, 2), inputs=floats(3, 4)),
    operation("matmul_left", lambda w, x: w @ x, (2, 3), inputs=floats(3, 4)),
    operation("matmul_left_stack", lambda w, x: w @ x, (5, 2, 3), inputs=floats(5, 3, 4)),
    operation("matmul_left_vector", lambda w, x: w @ x[0], (2, 3), inputs=floats(3)),
    operation("mm", lambda w, x: torch.mm(x[0], w), (4, 2), inputs=floats(3, 4)),
    operation("mm_left", lambda w, x: w.mm(x[0]), (2, 3), inputs=floats(3, 4)),
    operation("mv", lambda w, x: w.mv(x[0]).unsqueeze(0), (2, 3), inputs=floats(3)),
    operation("dot", lambda w, x: w.dot(x[0]).reshape(1), (3,), inputs=floats(3)),
    operation("bmm", lambda w, x: torch.bmm(x[0], w), (5, 4, 2), inputs=floats(5, 3, 4)),
    operation("bmm_left", lambda w, x: w.bmm(x[0]), (5, 2, 3), inputs=floats(5, 3, 4)),
    operation("addmm", lambda b, w, x: torch.addmm(b, x[0], w), (2,), (4, 2), inputs=floats(3, 4)),
    operation("addmm_matrix", lambda b, w, x: torch.addmm(b, x[0], w), (3, 2), (4, 2), inputs=floats(3, 4)),
    operation(
        "addmm_scaled",
        lambda b, w, x: torch.addmm(b, x[0], w, beta=0.5, alpha=2.0),
        (2,),
        (4, 2),
        inputs=floats(3, 4),
    ),
    operation(
        "baddbmm", lambda b, w, x: torch.baddbmm(b, x[0], w), (1, 2), (5, 4, 2), inputs=floats(5, 3, 4)
    ),
    operation("einsum_matrix", lambda w, x: torch.einsum("bti,io->bto", x, w), (4, 2), inputs=floats(3, 4)),
    operation("einsum_left", lambda w, x: torch.einsum("oi,bti->bot", w, x), (2, 4), inputs=floats(3, 4)),
    operation(
        "einsum_heads", lambda w, x: torch.einsum("bti,hid->bhtd", x, w), (2, 4, 3), inputs=floats(3, 4)
    ),
    operation(
        "einsum_to_model", lambda w, x: torch.einsum("bhtd,hdi->bti", x, w), (2, 3, 4), inputs=floats(2, 5, 3)
    ),
    operation("einsum_diagonal", lambda w, x: torch.einsum("bti,i->bti", x, w), (4,), inputs=floats(3, 4)),
    operation(
        "einsum_ellipsis", lambda w, x: torch.einsum("...i,io->...o", x, w), (4, 2), inputs=floats(3, 4)
    ),
    operation(
        "einsum_grouped", lambda w, x: torch.einsum("bgi,gio->bgo", x, w), (3, 4, 2), inputs=floats(3, 4)
    ),
    operation(
        "einsum_summed",
        lambda w, x: torch.einsum("bti,jo->bo", x, w),
        (4, 2),
        inputs=floats(3, 4),
        without_rule="einsum",
    ),
    operation(
        "einsum_three",
        lambda v, w, x: torch.einsum("bi,ij,jo->bo", x, v, w),
        (4, 3),
        (3, 2),
        inputs=floats(4),
        without_rule="einsum",
    ),
    operation(
        "einsum_sublists", lambda w, x: torch.einsum(x, [0, 1], w, [1, 2], [0, 2]), (4, 2), inputs=floats(4)
    ),
    operation("tensordot", lambda w, x: torch.tensordot(x, w, dims=1), (4, 2), inputs=floats(3, 4)),
    operation("inner", lambda w, x: torch.inner(x, w), (2, 4), inputs=floats(3, 4), without_rule="inner"),
    operation("outer", lambda w, x: torch.outer(x[0], w).unsqueeze(0), (4,), inputs=floats(3)),
)


def write_in_place(w: Tensor, x: Tensor) -> Tensor:
    y = x * 1.0
    y += w
    y[:, 0] = w[0]
    y[:, 1:].mul_(w)
    y[:, 1].sub_(w.sum())
    return y


def split_data_and_weight(w: Tensor, x: Tensor) -> Tensor:
    first, second = torch.split(torch.cat([x, w.expand(len(x), -1, -1)], 1), 3, 1)
    values, places = (first * w).sort(dim=-1)
    best, _ = torch.topk(torch.maximum(second, w), 2, -1)
    return torch.cat([values + 0.1 * places, best.sum(-1, keepdim=True).expand_as(values)], 1)


def class_token(w: Tensor, x: Tensor) -> Tensor:
    return torch.cat([w.expand(x.shape[0], -1, -1), x], dim=1)


JOINED = (
    operation("class_token", class_token, (1, 1, 4), inputs=floats(3, 4)),
    operation(
        "class_token_last", lambda w, x: torch.cat((x, w.expand_as(x)), -1), (1, 2), inputs=floats(3, 2)
    ),
    operation(
        "class_token_repeated",
        lambda w, x: torch.cat([w.repeat(len(x), 1, 1), x], 1),
        (1, 1, 4),
        inputs=floats(3, 4),
    ),
    operation(
        "class_token_stacked",
        lambda w, x: torch.stack([x, w.expand_as(x), x], -2),
        (1, 4),
        inputs=floats(3, 4),
    ),
    operation("hstack", lambda w, x: torch.hstack([x, w]), (1, 4), inputs=floats(4), without_rule="hstack"),
    operation("written_in_place", write_in_place, (4,), inputs=floats(3, 4), without_rule="__setitem__"),
    operation("split", split_data_and_weight, (3, 4), inputs=floats(3, 4), without_rule="maximum"),
    operation(
        "sort_of_both",
        lambda w, x: torch.stack([*torch.aminmax(x - w, dim=-1)], -1),
        (4,),
        inputs=floats(3, 4),
    ),
    operation(
        "softmax_with_sink",
        lambda w, x: torch.cat([x, w.expand(*x.shape[:-1], 1)], -1).softmax(-1),
        (1,),
        inputs=floats(3, 4),
    ),
    operation(
        "cosine_similarity",
        functional.cosine_similarity,
        (3, 4),
        inputs=floats(3, 4),
        without_rule="cosine_similarity",
    ),
    operation("cdist", torch.cdist, (3, 4), inputs=floats(5, 4), without_rule="cdist"),
    operation(
        "losses_with_weights",
        lambda w, x: functional.mse_loss(x, w.expand_as(x), reduction="none"),
        (4,),
        inputs=floats(3, 4),
        without_rule="mse_loss",
    ),
    operation(
        "grid",
        lambda w, x: functional.grid_sample(
            x, torch.tanh(w - 1).expand(len(x), -1, -1, -1), align_corners=False
        ),
        (5, 5, 2),
        inputs=floats(2, 4, 4),
        without_rule="grid_sampler",
    ),
)


class Between(nn.Module):
    """A function between two layers, or between convolutions for one of channels."""

    def __init__(self, *functions: nn.Module, channels: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv1d(2, 3, 1) if channels else nn.Linear(4, 5)
        self.functions = nn.Sequential(*functions)
        self.last = nn.Conv1d(3, 2, 1) if channels else nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.functions(self.first(x)))


DROPOUTS = (
    layer("dropout", lambda: Between(nn.Dropout(0.4), nn.Dropout(0.0), nn.Dropout(0.4)), floats(3, 4)),
    layer("dropout_in_place", lambda: Between(nn.Dropout(0.4, inplace=True)), floats(3, 4)),
    layer("dropout_evaluated", lambda: Between(nn.Dropout(0.4)), floats(3, 4), training=False),
    layer("dropout_channels", lambda: Between(nn.Dropout1d(0.4), channels=True), floats(2, 5)),
    layer("dropout_alpha", lambda: Between(nn.AlphaDropout(0.4)), floats(3, 4)),
    layer("dropout_alpha_in_place", lambda: Between(nn.AlphaDropout(0.4, inplace=True)), floats(3, 4)),
    layer(
        "dropout_alpha_channels", lambda: Between(nn.FeatureAlphaDropout(0.4), channels=True), floats(2, 5)
    ),
    operation(
        "dropout_of_a_weight", lambda w, x: x + functional.dropout(w, 0.4), (3, 4), inputs=floats(3, 4)
    ),
    operation(
        "dropout_of_torch", lambda w, x: torch.dropout(x * w, 0.4, train=True), (4,), inputs=floats(3, 4)
    ),
)

OPERATIONS = (*LAYERS, *ARITHMETIC, *TABLES, *PRODUCTS, *JOINED, *DROPOUTS)
