"""Modules and batches that the engine is compared on with the oracle."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from clipwise.clipping.losses import cross_entropy, mse

ROWS = 6


def square(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return a loss that asks for no targets."""
    return outputs.flatten(1).square().mean(1)


def uneven(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return a loss to whose gradient every output adds another part, so that no norm makes it vanish."""
    flat = outputs.flatten(1)
    towards = torch.arange(flat.shape[1], dtype=flat.dtype).cos()
    return (flat * towards + 0.5 * flat.square()).mean(1)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A module, its loss, and a batch of `ROWS` rows.

    Attributes:
        without_rule: names of the operations that `any_operation` takes, where that is tested.
    """

    name: str
    module: Callable[[], nn.Module]
    inputs: Callable[[], Any]
    loss: Callable[..., Tensor] = square
    targets: Callable[[], Tensor] = lambda: torch.zeros(ROWS)
    training: bool = True
    without_rule: frozenset[str] = frozenset()


class Twice(nn.Module):
    """One layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(torch.tanh(self.layer(x)))


class Tied(nn.Module):
    """Embedding and output share one parameter; with `apart` two parameters share one storage."""

    def __init__(self, *, apart: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.head = nn.Linear(4, 7, bias=False)
        weight = self.embedding.weight
        self.head.weight = nn.Parameter(weight.detach()) if apart else weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.embedding(x).mean(1))


class Bare(nn.Module):
    """Parameters that belong to no layer: einsum, a scale, a shift, one that is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 3))
        self.scale = nn.Parameter(torch.randn(()))
        self.shift = nn.Parameter(torch.randn(3))
        self.unused = nn.Parameter(torch.randn(2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bi,io->bo", x, self.weight) * self.scale + self.shift


class SeveralInputs(nn.Module):
    """Two inputs, by position or by name."""

    def __init__(self) -> None:
        super().__init__()
        self.users = nn.Embedding(6, 4)
        self.dense = nn.Linear(3, 4)

    def forward(self, user: Tensor, features: Tensor) -> Tensor:
        return (self.users(user) * self.dense(features)).sum(-1, keepdim=True)


class Attention(nn.Module):
    """Self-attention with a causal mask that is a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.register_buffer("mask", torch.triu(torch.ones(4, 4, dtype=torch.bool), 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, attn_mask=self.mask, need_weights=False)[0]


class Recurrent(nn.Module):
    """The last state of an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 4, num_layers=2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0][:, -1]


class Cells(nn.Module):
    """Recurrent layers of the other kinds, and a cell in a loop of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(5, 4, bidirectional=True, batch_first=True)
        self.rnn = nn.RNN(8, 4, batch_first=True)
        self.cell = nn.LSTMCell(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        steps, state = self.rnn(self.gru(x)[0])[0], None
        for step in steps.unbind(1):
            state = self.cell(step, state)
        return state[0]


class Dropping(nn.Module):
    """Dropout of elements and of channels, called as modules and as a function, also in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 8, 2)
        self.channels = nn.Dropout1d(0.4)
        self.elements = nn.Dropout(0.3, inplace=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.elements(self.channels(torch.relu(self.conv(x))) * 1.0).mean(2)
        return functional.dropout(self.head(hidden), 0.2, self.training)


def frozen_part() -> nn.Module:
    """A frozen first layer, and a batch norm with public statistics in evaluation mode."""
    norm = nn.BatchNorm1d(4).eval()
    module = nn.Sequential(nn.Linear(5, 4), norm, nn.Tanh(), nn.Linear(4, 2))
    module[0].requires_grad_(False)
    return module


def evaluated_batch_norm(module: nn.Module) -> nn.Module:
    """Keep batch norms in evaluation mode when the rest is put into training mode."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.eval()
    return module


def floats(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(ROWS, *shape)


def integers(high: int, *shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randint(high, (ROWS, *shape))


SETTINGS = (
    Setting(name="linear", module=lambda: nn.Linear(5, 3), inputs=floats(5), loss=mse, targets=floats(3)),
    Setting(name="linear_3d", module=lambda: nn.Linear(5, 3), inputs=floats(4, 5)),
    Setting(name="linear_4d", module=lambda: nn.Linear(5, 3, bias=False), inputs=floats(2, 3, 5)),
    Setting(
        name="classifier",
        module=lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(inplace=True), nn.Linear(8, 3)),
        inputs=floats(3, 4),
        loss=cross_entropy,
        targets=integers(3),
    ),
    Setting(name="conv1d", module=lambda: nn.Conv1d(3, 4, 3, stride=2), inputs=floats(3, 9)),
    Setting(name="conv2d", module=lambda: nn.Conv2d(4, 4, 3, padding=1, groups=2), inputs=floats(4, 5, 5)),
    Setting(name="conv_transpose", module=lambda: nn.ConvTranspose2d(2, 3, 2), inputs=floats(2, 4, 4)),
    Setting(name="embedding", module=lambda: nn.Embedding(9, 4, padding_idx=0), inputs=integers(9, 5)),
    Setting(name="embedding_bag", module=lambda: nn.EmbeddingBag(9, 4), inputs=integers(9, 5)),
    Setting(name="layer_norm", module=lambda: nn.LayerNorm((3, 4)), inputs=floats(3, 4)),
    Setting(name="group_norm", module=lambda: nn.GroupNorm(2, 6), inputs=floats(6, 4, 4)),
    Setting(
        name="instance_norm",
        module=lambda: nn.InstanceNorm1d(3, affine=True),
        inputs=floats(3, 8),
        loss=mse,
        targets=floats(3, 8),
    ),
    Setting(
        name="frozen_part",
        module=frozen_part,
        inputs=floats(5),
        without_rule=frozenset({"batch_norm"}),
    ),
    Setting(name="twice", module=Twice, inputs=floats(5)),
    Setting(name="tied", module=Tied, inputs=integers(7, 3), loss=cross_entropy, targets=integers(7)),
    Setting(
        name="tied_by_storage",
        module=lambda: Tied(apart=True),
        inputs=integers(7, 3),
        loss=cross_entropy,
        targets=integers(7),
    ),
    Setting(name="bare_parameters", module=Bare, inputs=floats(5)),
    Setting(
        name="weight_norm",
        module=lambda: nn.utils.parametrizations.weight_norm(nn.Linear(5, 3)),
        inputs=floats(5),
    ),
    Setting(name="positional", module=SeveralInputs, inputs=lambda: (integers(6)(), floats(3)())),
    Setting(
        name="by_name",
        module=SeveralInputs,
        inputs=lambda: {"features": floats(3)(), "user": integers(6)()},
        loss=mse,
        targets=floats(),
    ),
    Setting(name="attention", module=Attention, inputs=floats(4, 8)),
    Setting(
        name="transformer_eval",
        module=lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
        inputs=floats(4, 8),
        loss=mse,
        targets=floats(4, 8),
        training=False,
    ),
    Setting(name="lstm", module=Recurrent, inputs=floats(4, 5)),
    Setting(name="recurrent_cells", module=Cells, inputs=floats(3, 5)),
    Setting(name="dropout_training", module=Dropping, inputs=floats(3, 5)),
    Setting(name="dropout_evaluation", module=Dropping, inputs=floats(3, 5), training=False),
)
