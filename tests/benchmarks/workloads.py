"""What the engine is measured on: for each row of the table a module, its data and its loss.

Modules are written as people write them, and so that peers can take them where that costs nothing: attention
is a few `Linear` and `scaled_dot_product_attention`, positions of tokens are looked up for each row, and bare
parameters lie in a module of their own. Nothing is dropped out, so that every engine computes the same.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.benchmarks.architectures import (
    Decoder,
    Recommender,
    RecurrentClassifier,
    ResNet18,
    VisionTransformer,
    bert,
)

ROW_SEED = 20


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One row of the table.

    Attributes:
        title: as the table shows it.
        rows: of a batch.
        build: the module; the same weights each time for one seed.
        inputs: draws the inputs of so many rows, one tensor (N, ...).
        classes: targets are drawn below this.
        positions: targets of each row; None is one, without an axis of its own.
        recurrent: has a bar of its own.
    """

    title: str
    rows: int
    build: Callable[[], nn.Module]
    inputs: Callable[[int, torch.Generator], Tensor]
    classes: int
    positions: int | None = None
    recurrent: bool = False

    def data(self, rows: int, seed: int = ROW_SEED) -> tuple[Tensor, Tensor]:
        """Return inputs and targets of so many rows."""
        generator = torch.Generator().manual_seed(seed)
        shape = (rows,) if self.positions is None else (rows, self.positions)
        return self.inputs(rows, generator), torch.randint(self.classes, shape, generator=generator)

    def module(self) -> nn.Module:
        """Return the module, with the same weights each time."""
        torch.manual_seed(10)
        return self.build().train()


def row_losses(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the cross entropy (B,) of logits (B, C) or (B, T, C), the mean over a row's positions."""
    losses = functional.cross_entropy(outputs.flatten(0, -2), targets.flatten(), reduction="none")
    return losses if targets.ndim == 1 else losses.view(targets.shape).mean(1)


def mean_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean of `row_losses`, as an ordinary training loop computes it."""
    return functional.cross_entropy(outputs.flatten(0, -2), targets.flatten())


def _features(*shape: int) -> Callable[[int, torch.Generator], Tensor]:
    return lambda rows, generator: torch.randn(rows, *shape, generator=generator)


def _tokens(vocabulary: int, *shape: int) -> Callable[[int, torch.Generator], Tensor]:
    return lambda rows, generator: torch.randint(vocabulary, (rows, *shape), generator=generator)


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))


def _cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 8 * 8, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


WORKLOADS: dict[str, Workload] = {
    "mlp": Workload(
        title="MLP 784-512-512-10, batch 256", rows=256, build=_mlp, inputs=_features(784), classes=10
    ),
    "cnn": Workload(
        title="small CNN, batch 256", rows=256, build=_cnn, inputs=_features(3, 32, 32), classes=10
    ),
    "resnet": Workload(
        title="ResNet-18, GroupNorm, batch 64",
        rows=64,
        build=ResNet18,
        inputs=_features(3, 32, 32),
        classes=10,
    ),
    "decoder": Workload(
        title="decoder, 4 layers, batch 16",
        rows=16,
        build=lambda: Decoder(tied=False),
        inputs=_tokens(8192, 128),
        classes=8192,
        positions=128,
    ),
    "decoder-tied": Workload(
        title="decoder, tied embedding, batch 16",
        rows=16,
        build=lambda: Decoder(tied=True),
        inputs=_tokens(8192, 128),
        classes=8192,
        positions=128,
    ),
    "vit": Workload(
        title="ViT, 6 layers, batch 64",
        rows=64,
        build=VisionTransformer,
        inputs=_features(3, 32, 32),
        classes=10,
    ),
    "bert": Workload(
        title="BERT of transformers, 4 layers, batch 16",
        rows=16,
        build=bert,
        inputs=_tokens(8192, 128),
        classes=10,
    ),
    "recommender": Workload(
        title="recommender, 100k rows, batch 512",
        rows=512,
        build=Recommender,
        inputs=_tokens(100_000, 2),
        classes=2,
    ),
    "lstm": Workload(
        title="LSTM classifier, batch 64",
        rows=64,
        build=lambda: RecurrentClassifier(nn.LSTM),
        inputs=_tokens(10_000, 64),
        classes=10,
        recurrent=True,
    ),
    "gru": Workload(
        title="GRU classifier, batch 64",
        rows=64,
        build=lambda: RecurrentClassifier(nn.GRU),
        inputs=_tokens(10_000, 64),
        classes=10,
        recurrent=True,
    ),
}
