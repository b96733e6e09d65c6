import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.nn.quantized.dynamic import Linear as Quantized
from torch.ao.quantization import FakeQuantize
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from clipwise.clipping import clipped_gradients
from clipwise.errors import UnsupportedModule
from clipwise.models import TorchModel


class ReadingOut(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x.sum().item()


class Masking(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[x > 0].sum().expand(1, 4)


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        self.mean.add_(x.detach().mean(0))
        return x - self.mean


class CheckpointingReentrantly(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.inner, x, use_reentrant=True)


class Aliasing(nn.Module):
    """Two parameters that are different views of one storage."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(4, 4, bias=False)
        self.right = nn.Linear(4, 4, bias=False)
        self.right.weight = nn.Parameter(self.left.weight.detach().t())

    def forward(self, x: Tensor) -> Tensor:
        return self.right(self.left(x))


class Centring(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


class Summing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.cumsum(0)


class Sorting(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sort(0).values


class Rolling(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 0.1 * x.roll(1, 0)


class ByTheLargest(nn.Module):
    """Divides by the largest element of the batch, which the row that holds it does not notice."""

    def forward(self, x: Tensor) -> Tensor:
        return x / x.abs().max()


class BatchStatistics(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return functional.batch_norm(x.view(-1, 2, 2), None, None, training=True).flatten(1)


class Heads(nn.Module):
    """A sequence model that takes the rows for positions."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x)[0]


def compiled_in_place() -> nn.Module:
    part = nn.ReLU()
    part.compile(backend="eager")
    return part


def exported(rows: Any) -> nn.Module:
    shapes = None if rows is None else ({0: rows},)
    return torch.export.export(nn.Linear(4, 4), (torch.randn(5, 4),), dynamic_shapes=shapes).module()


def inside(part: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.Sequential(part, nn.Linear(4, 1)))


def square(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.flatten(1).square().mean(1)


REFUSED: tuple[tuple[Callable[[], nn.Module], str, str], ...] = (
    (lambda: inside(nn.BatchNorm1d(4)), "1.0", "GroupNorm"),
    (lambda: inside(nn.BatchNorm1d(4, track_running_stats=False)).eval(), "1.0", "GroupNorm"),
    (lambda: inside(nn.SyncBatchNorm(4)), "1.0", "GroupNorm"),
    (lambda: inside(nn.InstanceNorm1d(4, track_running_stats=True)), "1.0", "track_running_stats=False"),
    (lambda: inside(nn.Embedding(3, 4, sparse=True)), "1.0", "sparse=False"),
    (lambda: inside(nn.Embedding(3, 4, max_norm=1.0)), "1.0", "max_norm=None"),
    (lambda: inside(nn.LazyLinear(4)), "1.0", "run the module once"),
    (lambda: inside(torch.jit.script(nn.ReLU())), "1.0", "original nn.Module"),
    (lambda: inside(ReadingOut()), "1.0", "keep numbers as tensors"),
    (lambda: inside(Masking()), "1.0", "boolean mask"),
    (lambda: inside(Counting()), "1.0", "in place"),
    (lambda: inside(Aliasing()), "1.0.right", "one storage"),
    (lambda: inside(nn.ReLU()).requires_grad_(False), "", "requires_grad"),
    (lambda: nn.DataParallel(nn.Linear(4, 1)), "", ".module"),
    (lambda: inside(nn.DataParallel(nn.Linear(4, 4))), "1.0", ".module"),
    (lambda: inside(torch.jit.trace(nn.Linear(4, 4), torch.randn(2, 4))), "1.0", "original nn.Module"),
    (lambda: inside(torch.compile(nn.Linear(4, 4), backend="eager")), "1.0", "_orig_mod"),
    (lambda: inside(compiled_in_place()), "1.0", "copy.deepcopy"),
    (lambda: inside(exported(None)), "1.0", "dynamic_shapes"),
    (lambda: inside(FakeQuantize()), "1.0", "without quantization"),
    (lambda: inside(Quantized(4, 4)), "1.0", "quantize it then"),
    (lambda: inside(nn.EmbeddingBag(3, 4, sparse=True)), "1.0", "sparse=False"),
    (lambda: inside(nn.LazyBatchNorm1d()), "1.0", "GroupNorm"),
    (lambda: inside(CheckpointingReentrantly()), "1.0", "use_reentrant=False"),
    (lambda: inside(BatchStatistics()), "1.0", "group_norm"),
    (lambda: inside(nn.Linear(4, 4, dtype=torch.complex64)), "1.0", "real floating type"),
)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("make", "path", "way_out"), REFUSED)
def test_what_has_no_per_sample_gradients_is_refused_with_its_path(
    make: Callable[[], nn.Module], path: str, way_out: str
) -> None:
    module = make()
    with pytest.raises(UnsupportedModule, match="module '") as caught:
        clipped_gradients(module, square, (torch.randn(5, 4), torch.zeros(5)), 1.0)
    assert caught.value.path == path
    assert way_out in caught.value.detail


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (lambda: inside(Centring()), "1.0"),
        (lambda: nn.Sequential(nn.Linear(4, 4), Heads()), "1.attention"),
        (lambda: inside(nn.Softmax(dim=0)), "1.0"),
        (lambda: inside(Summing()), "1.0"),
        (lambda: inside(Sorting()), "1.0"),
        (lambda: inside(Rolling()), "1.0"),
        (lambda: inside(ByTheLargest()), "1.0"),
        (lambda: inside(BatchStatistics()), "1.0"),
        (lambda: nn.Sequential(nn.LSTM(4, 3)), "0"),
    ],
)
@pytest.mark.parametrize("rows", [1, 2, 5])
def test_the_probe_refuses_what_mixes_samples(make: Callable[[], nn.Module], path: str, rows: int) -> None:
    torch.manual_seed(1)
    module = make()

    def loss(outputs: Tensor | tuple[Tensor, ...], targets: Tensor) -> Tensor:
        first = outputs[0] if isinstance(outputs, tuple) else outputs
        return first.flatten(1).square().mean(1)

    with pytest.raises(UnsupportedModule, match="mixes samples") as caught:
        TorchModel(module, loss).probe_independence((torch.randn(rows, 4), torch.zeros(rows)))
    assert caught.value.path == path
    assert not any(part._forward_hooks for part in module.modules())


def test_the_probe_refuses_a_loss_that_mixes_samples() -> None:
    def contrastive(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs @ outputs.T).logsumexp(1)

    with pytest.raises(UnsupportedModule, match=r"\(root\)"):
        TorchModel(nn.Linear(4, 2), contrastive).probe_independence((torch.randn(4, 4), torch.zeros(4)))


def test_the_probe_lets_independent_modules_pass_dropout_included() -> None:
    norm = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8).eval(), nn.Dropout(0.5), nn.GroupNorm(2, 8))
    state = torch.random.get_rng_state()
    TorchModel(norm, square).probe_independence((torch.randn(3, 4), torch.zeros(3)))
    TorchModel(norm, square).probe_independence((torch.zeros(0, 4), torch.zeros(0)))
    torch.random.set_rng_state(state)
    TorchModel(nn.Embedding(5, 2), square).probe_independence((torch.tensor([[3, 4]]), torch.zeros(1)))


def test_the_probe_looks_at_several_rows() -> None:
    rows = torch.tensor([[8.0, 1, 1, 1], [1.0, 2, 2, 1], [2.0, 1, 1, 1]])
    module = nn.Sequential(ByTheLargest(), nn.Linear(4, 1))
    with pytest.raises(UnsupportedModule, match="mixes samples"):
        TorchModel(module, square).probe_independence((rows, torch.zeros(3)))


def test_the_probe_names_reentrant_checkpointing() -> None:
    with pytest.raises(UnsupportedModule, match="use_reentrant=False"):
        TorchModel(inside(CheckpointingReentrantly()), square).probe_independence(
            (torch.randn(3, 4), torch.zeros(3))
        )


def test_the_ways_out_lead_out() -> None:
    batch = (torch.randn(5, 4), torch.zeros(5))
    in_place = inside(compiled_in_place())
    around = torch.compile(inside(nn.ReLU()), backend="eager")
    for module in (copy.deepcopy(in_place), around._orig_mod, inside(exported(torch.export.Dim("rows")))):
        TorchModel(module, square).probe_independence(batch)
        assert clipped_gradients(module, square, batch, 1.0)


def test_an_error_of_the_module_itself_is_not_called_unsupported() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied") as caught:
        clipped_gradients(nn.Linear(3, 1), square, (torch.randn(5, 4), torch.zeros(5)), 1.0)
    assert not isinstance(caught.value, UnsupportedModule)
