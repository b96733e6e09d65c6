"""Closed forms of per-unit gradients: one file per operation, one table."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from clipwise.clipping.dropout import DROPOUTS
from clipwise.clipping.rules import aten, batch_statistics, whole_batch
from clipwise.clipping.rules.arithmetic import (
    addition,
    division,
    multiplication,
    prelu,
    reversed_subtraction,
    subtraction,
    where,
    where_method,
    written,
)
from clipwise.clipping.rules.aten import with_overloads
from clipwise.clipping.rules.concatenation import cat, stack
from clipwise.clipping.rules.convolution import (
    conv1d,
    conv2d,
    conv3d,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
)
from clipwise.clipping.rules.embedding import embedding
from clipwise.clipping.rules.embedding_bag import embedding_bag
from clipwise.clipping.rules.linear import linear
from clipwise.clipping.rules.matmul import matmul, outer, tensordot
from clipwise.clipping.rules.normalization import group_norm, instance_norm, layer_norm, rms_norm
from clipwise.clipping.rules.product import bilinear, einsum
from clipwise.clipping.rules.reading import reading
from clipwise.clipping.rules.recurrent import RECURRENT, frozen
from clipwise.clipping.rules.rule import Rule
from clipwise.clipping.rules.selection import getitem, index_select

_RULES: dict[Callable[..., Any], Rule] = {
    functional.linear: linear,
    functional.embedding: embedding,
    functional.layer_norm: layer_norm,
    torch.layer_norm: layer_norm,
    functional.group_norm: group_norm,
    torch.group_norm: group_norm,
    functional.instance_norm: instance_norm,
    functional.rms_norm: rms_norm,
    torch.rms_norm: rms_norm,
    functional.conv1d: conv1d,
    functional.conv2d: conv2d,
    functional.conv3d: conv3d,
    functional.conv_transpose1d: conv_transpose1d,
    functional.conv_transpose2d: conv_transpose2d,
    functional.conv_transpose3d: conv_transpose3d,
    torch.matmul: matmul,
    torch.mm: matmul,
    Tensor.matmul: matmul,
    Tensor.mm: matmul,
    Tensor.__matmul__: matmul,
    Tensor.__rmatmul__: matmul,
    torch.bmm: matmul,
    Tensor.bmm: matmul,
    torch.mv: matmul,
    Tensor.mv: matmul,
    torch.dot: matmul,
    Tensor.dot: matmul,
    torch.einsum: einsum,
    torch.tensordot: tensordot,
    torch.outer: outer,
    Tensor.outer: outer,
    torch.bilinear: bilinear,
    functional.embedding_bag: embedding_bag,
    functional.prelu: prelu,
    torch.prelu: prelu,
    Tensor.__getitem__: getitem,
    torch.index_select: index_select,
    Tensor.index_select: index_select,
    torch.where: where,
    Tensor.where: where_method,
    torch.cat: cat,
    torch.concat: cat,
    torch.concatenate: cat,
    torch.stack: stack,
    torch.add: addition,
    Tensor.add: addition,
    Tensor.__add__: addition,
    Tensor.__radd__: addition,
    torch.mul: multiplication,
    Tensor.mul: multiplication,
    Tensor.__mul__: multiplication,
    Tensor.__rmul__: multiplication,
    torch.sub: subtraction,
    torch.subtract: subtraction,
    Tensor.sub: subtraction,
    Tensor.__sub__: subtraction,
    torch.rsub: reversed_subtraction,
    Tensor.__rsub__: reversed_subtraction,
    torch.div: division,
    torch.true_divide: division,
    Tensor.div: division,
    Tensor.true_divide: division,
    Tensor.__truediv__: division,
    Tensor.add_: written(addition),
    Tensor.__iadd__: written(addition),
    Tensor.sub_: written(subtraction),
    Tensor.__isub__: written(subtraction),
    Tensor.mul_: written(multiplication),
    Tensor.__imul__: written(multiplication),
    Tensor.div_: written(division),
    Tensor.__itruediv__: written(division),
    **RECURRENT,
}
RULES = with_overloads(_RULES)
"""Which rule knows which operation; every other one is taken by `any_operation`."""

_WHOLE_BATCH: dict[Callable[..., Any], Callable[..., Any]] = {
    functional.scaled_dot_product_attention: whole_batch.attention,
    functional.batch_norm: batch_statistics.batch_norm,
    functional.cross_entropy: whole_batch.cross_entropy,
    Tensor.view: whole_batch.view,
    Tensor.__setitem__: whole_batch.setitem,
    Tensor.requires_grad_: whole_batch.requires_grad,
    Tensor.__bool__: reading(bool),
    Tensor.__int__: reading(int),
    Tensor.__index__: reading(int),
    Tensor.__float__: reading(float),
    Tensor.item: reading(),
    Tensor.is_nonzero: reading(bool),
    torch.is_nonzero: reading(bool),
    **{operation: whole_batch.dropout(operation) for operation in DROPOUTS},
    **{operation: frozen(rule) for operation, rule in RECURRENT.items()},
    torch.ops.aten.sym_size.int: aten.size,
    torch.ops.aten._assert_tensor_metadata.default: aten.nothing,  # noqa: SLF001
}
WHOLE_BATCH = with_overloads(_WHOLE_BATCH)
"""Operations without weights that do better on the whole batch."""
