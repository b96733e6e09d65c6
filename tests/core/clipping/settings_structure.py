"""Settings for what modules do with layers: sharing, deriving, freezing, recomputing, writing in place."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from tests.core.clipping.settings import ROWS, Setting, Tied, Twice, floats, integers, uneven
from tests.core.clipping.settings_operations import mixed
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from clipwise.clipping.losses import cross_entropy


def structure(
    name: str, module: Callable[[], nn.Module], inputs: Callable[[], Any], without_rule: str = "", **more: Any
) -> Setting:
    """Return a setting with an uneven loss."""
    more.setdefault("loss", uneven)
    return Setting(
        name=name, module=module, inputs=inputs, without_rule=frozenset(without_rule.split()), **more
    )


class Symmetric(nn.Module):
    """A parametrization by a symmetric matrix."""

    def forward(self, x: Tensor) -> Tensor:
        return x.triu() + x.triu(1).transpose(-1, -2)


def symmetric() -> nn.Module:
    layer = nn.Linear(5, 5)
    parametrize.register_parametrization(layer, "weight", Symmetric())
    return nn.Sequential(layer, nn.Tanh(), nn.Linear(5, 2))


def spectral() -> nn.Module:
    return parametrizations.spectral_norm(nn.Linear(5, 4))


class Adapted(nn.Module):
    """A frozen layer with a trained correction of low rank."""

    def __init__(self, *, embedding: bool = False) -> None:
        super().__init__()
        self.frozen = nn.Embedding(7, 6) if embedding else nn.Linear(5, 6)
        self.frozen.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(2, 7 if embedding else 5))
        self.up = nn.Parameter(torch.randn(6, 2))
        self.embedding = embedding

    def forward(self, x: Tensor) -> Tensor:
        low = functional.embedding(x, self.down.t()) if self.embedding else x @ self.down.t()
        return self.frozen(x) + 0.5 * low @ self.up.t()


class Merged(nn.Module):
    """The same, with the correction added to the weight."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(5, 6).requires_grad_(False)
        self.down = nn.Parameter(torch.randn(2, 5))
        self.up = nn.Parameter(torch.randn(6, 2))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.frozen.weight + self.up @ self.down, self.frozen.bias)


class Checkpointed(nn.Module):
    """Parts that are computed again in the backward pass."""

    def __init__(self, *, sequential: bool = False, nested: bool = False) -> None:
        super().__init__()
        self.first = nn.Linear(5, 6)
        self.inner = nn.Sequential(
            nn.Linear(6, 6), nn.Tanh(), nn.Dropout(0.3), nn.Linear(6, 4), nn.LayerNorm(4)
        )
        self.sequential, self.nested = sequential, nested

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x))
        if self.sequential:
            return checkpoint_sequential(self.inner, 2, x, use_reentrant=False)
        if self.nested:
            return checkpoint(
                lambda y: checkpoint(self.inner, y * 2, use_reentrant=False), x, use_reentrant=False
            )
        return checkpoint(self.inner, x, use_reentrant=False)


class Filling(nn.Module):
    """What each step computes is written into a tensor made beforehand."""

    def __init__(self, make: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.cell = nn.Linear(5 + 4, 4)
        self.make = make

    def forward(self, x: Tensor) -> Tensor:
        out = self.make(x)
        state = torch.zeros(x.shape[0], 4, dtype=x.dtype)
        for t in range(x.shape[1]):
            state = torch.tanh(self.cell(torch.cat([x[:, t], state], 1)))
            out[:, t] = state
        return out


class Accumulating(nn.Module):
    """A sum that begins at zeros, written in place."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 4)
        self.shift = nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros(1, 4, dtype=x.dtype)
        total += self.shift
        for t in range(x.shape[1]):
            total += self.layer(x[:, t])
        counts = torch.ones(4, dtype=x.dtype)
        counts.mul_(total[0].abs())
        return torch.tanh(total) * counts


class Masking(nn.Module):
    """A mask and one-hot vectors that are written into tensors made beforehand."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(7, 4)

    def forward(self, index: Tensor) -> Tensor:
        hot = torch.zeros(index.shape[0], index.shape[1], 7, dtype=self.layer.weight.dtype)
        hot.scatter_(2, index[:, :, None], 1.0)
        scores = torch.full(index.shape, 0.5, dtype=hot.dtype)
        scores.masked_fill_(index > 3, 2.0)
        return self.layer(hot) * scores[:, :, None]


class Outputs(NamedTuple):
    """What a module returns, by name."""

    logits: Tensor
    hidden: Tensor


class Several(nn.Module):
    """Several inputs, and outputs in a container."""

    def __init__(self, container: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.users = nn.Embedding(6, 4)
        self.dense = nn.Linear(3, 4)
        self.container = container

    def forward(self, user: Tensor, features: Tensor, mask: Tensor | None = None) -> Any:
        hidden = self.dense(features)
        if mask is not None:
            hidden = hidden.masked_fill(~mask, 0.0)
        return self.container(self.users(user) * hidden, hidden)


def of_dictionary(outputs: dict[str, Any], targets: Tensor) -> Tensor:
    return uneven(outputs["logits"], targets) + 0.1 * outputs["more"][0].square().mean(1)


def of_tuple(outputs: Any, targets: Tensor) -> Tensor:
    return uneven(outputs[0], targets) + 0.1 * outputs[1].square().mean(1)


class Tagger(nn.Module):
    """One label for each token."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 4, padding_idx=0)
        self.head = nn.Linear(4, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(torch.tanh(self.embedding(tokens)))


def over_labelled(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean over a row's tokens that have a label."""
    losses = functional.cross_entropy(outputs.transpose(1, 2), targets, reduction="none", ignore_index=-100)
    return losses.sum(1) / (targets != -100).sum(1).clamp(min=1)


def over_flat_tokens(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the same from tokens in one row, as losses of language models are written."""
    losses = functional.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="none")
    return losses.view(targets.shape).sum(1) / (targets != -100).sum(1)


def masked_in_targets(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return a squared error where targets come with a mask, (B, 2, T)."""
    wanted, mask = targets.unbind(1)
    errors = (outputs.mean(-1) - wanted).square()
    return (errors * mask).sum(1) / mask.sum(1).clamp(min=1)


def labels(*shape: int) -> Callable[[], Tensor]:
    def made() -> Tensor:
        found = torch.randint(3, (ROWS, *shape))
        found[:, 1] = -100
        found[3] = -100
        found[3, 0] = 2
        return found

    return made


class Gathering(nn.Module):
    """A residual network that reuses its input, slices and gathers in many ways."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(2)])
        self.scale = nn.ParameterDict({"a": nn.Parameter(torch.ones(4)), "b": nn.Parameter(torch.ones(1))})

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer(x).relu_() * self.scale["a"]
        first, *rest = x.unbind(1)
        x = torch.stack([first, *rest, sum(rest)], 1) / self.scale["b"]
        return x.transpose(1, 2).reshape(x.shape[0], -1)[:, ::2]


STRUCTURES = (
    structure("twice", Twice, floats(5)),
    structure("twice_positions", Twice, floats(3, 5)),
    structure("tied", Tied, integers(7, 3), loss=cross_entropy, targets=integers(7)),
    structure(
        "tied_by_storage", lambda: Tied(apart=True), integers(7, 3), loss=cross_entropy, targets=integers(7)
    ),
    structure("weight_norm", lambda: parametrizations.weight_norm(nn.Linear(5, 3)), floats(4, 5)),
    structure(
        "weight_norm_of_convolution", lambda: parametrizations.weight_norm(nn.Conv1d(3, 4, 2)), floats(3, 6)
    ),
    structure("weight_norm_of_old", lambda: nn.utils.weight_norm(nn.Linear(5, 3)), floats(5)),
    structure("orthogonal", lambda: parametrizations.orthogonal(nn.Linear(5, 4)), floats(5)),
    structure(
        "orthogonal_cayley",
        lambda: parametrizations.orthogonal(nn.Linear(4, 4), orthogonal_map="cayley"),
        floats(4),
    ),
    structure("spectral_norm_evaluated", spectral, floats(5), training=False),
    structure(
        "spectral_norm_of_old_evaluated",
        lambda: nn.utils.spectral_norm(nn.Linear(5, 4)),
        floats(5),
        training=False,
    ),
    structure("symmetric", symmetric, floats(5)),
    structure("adapted", Adapted, floats(3, 5)),
    structure("adapted_embedding", lambda: Adapted(embedding=True), integers(7, 3)),
    structure("merged_adapter", Merged, floats(3, 5)),
    structure("checkpointed", Checkpointed, floats(3, 5)),
    structure("checkpointed_in_sequence", lambda: Checkpointed(sequential=True), floats(3, 5)),
    structure("checkpointed_in_checkpoint", lambda: Checkpointed(nested=True), floats(3, 5)),
    structure(
        "filling_zeros", lambda: Filling(lambda x: torch.zeros(x.shape[0], 3, 4, dtype=x.dtype)), floats(3, 5)
    ),
    structure(
        "filling_empty", lambda: Filling(lambda x: torch.empty((1, 3, 4), dtype=x.dtype)), floats(3, 5)
    ),
    structure("filling_new", lambda: Filling(lambda x: x.new_zeros(x.shape[0], 3, 4)), floats(3, 5)),
    structure(
        "filling_full",
        lambda: Filling(lambda x: torch.full((len(x), 3, 4), 0.5, dtype=x.dtype)),
        floats(3, 5),
    ),
    structure("filling_like", lambda: Filling(lambda x: torch.zeros_like(x[..., :4])), floats(3, 5)),
    structure("accumulating", Accumulating, floats(3, 5)),
    structure("masking", Masking, integers(7, 5)),
    structure(
        "by_name",
        lambda: Several(lambda one, two: {"logits": one, "more": [two]}),
        lambda: {
            "features": torch.randn(ROWS, 3),
            "user": torch.randint(6, (ROWS,)),
            "mask": torch.rand(ROWS, 4) > 0.3,
        },
        loss=of_dictionary,
    ),
    structure(
        "by_place", lambda: Several(lambda one, two: (one, two)), mixed(integers(6), floats(3)), loss=of_tuple
    ),
    structure("named_outputs", lambda: Several(Outputs), mixed(integers(6), floats(3)), loss=of_tuple),
    structure("labelled_tokens", Tagger, integers(9, 5), loss=over_labelled, targets=labels(5)),
    structure("flat_tokens", Tagger, integers(9, 5), loss=over_flat_tokens, targets=labels(5)),
    structure(
        "mask_in_targets",
        Tagger,
        integers(9, 5),
        loss=masked_in_targets,
        targets=lambda: torch.stack([torch.randn(ROWS, 5), (torch.rand(ROWS, 5) > 0.4).float()], 1),
    ),
    structure("gathering", Gathering, floats(3, 4)),
)
