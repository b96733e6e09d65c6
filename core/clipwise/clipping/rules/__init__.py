"""Closed forms of per-unit gradients: one file per operation, one table."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from clipwise.clipping.rules import whole_batch
from clipwise.clipping.rules.arithmetic import addition, multiplication
from clipwise.clipping.rules.convolution import conv1d, conv2d, conv3d
from clipwise.clipping.rules.embedding import embedding
from clipwise.clipping.rules.linear import linear
from clipwise.clipping.rules.matmul import addmm, matmul
from clipwise.clipping.rules.normalization import group_norm, layer_norm, rms_norm
from clipwise.clipping.rules.rule import Rule

RULES: dict[Callable[..., Any], Rule] = {
    functional.linear: linear,
    functional.embedding: embedding,
    functional.layer_norm: layer_norm,
    torch.layer_norm: layer_norm,
    functional.group_norm: group_norm,
    torch.group_norm: group_norm,
    functional.rms_norm: rms_norm,
    torch.rms_norm: rms_norm,
    functional.conv1d: conv1d,
    functional.conv2d: conv2d,
    functional.conv3d: conv3d,
    torch.matmul: matmul,
    torch.mm: matmul,
    Tensor.matmul: matmul,
    Tensor.mm: matmul,
    Tensor.__matmul__: matmul,
    torch.addmm: addmm,
    torch.add: addition,
    Tensor.add: addition,
    Tensor.__add__: addition,
    Tensor.__radd__: addition,
    torch.mul: multiplication,
    Tensor.mul: multiplication,
    Tensor.__mul__: multiplication,
    Tensor.__rmul__: multiplication,
}
"""Which rule knows which operation; every other one is taken by `any_operation`."""

WHOLE_BATCH: dict[Callable[..., Any], Callable[..., Any]] = {
    functional.scaled_dot_product_attention: whole_batch.attention,
    functional.cross_entropy: whole_batch.cross_entropy,
    functional.dropout: whole_batch.elements,
    torch.dropout: whole_batch.elements,
    functional.dropout1d: whole_batch.channels,
    functional.dropout2d: whole_batch.channels,
    functional.dropout3d: whole_batch.channels,
    Tensor.view: whole_batch.view,
}
"""Operations without weights that do better on the whole batch."""
