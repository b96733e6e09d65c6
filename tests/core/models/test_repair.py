import copy

import pytest
import torch
from torch import Tensor, nn

from clipwise.clipping.refusals import require_supported
from clipwise.errors import UnsupportedModule
from clipwise.models import TorchModel, repair
from clipwise.models.repair import groups_of
from clipwise.optim import Optimizer


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(x + self.bn2(self.conv2(hidden)))


class ResidualNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.layers = nn.ModuleList([Block(8), Block(8)])
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean((2, 3)))


def test_a_residual_network_is_refused_before_and_trains_after() -> None:
    torch.manual_seed(0)
    network = ResidualNetwork()
    inputs, targets = torch.randn(32, 1, 6, 6), torch.arange(32) % 2
    inputs += targets[:, None, None, None]
    with pytest.raises(UnsupportedModule, match=r"'stem\.1'.*repair"):
        TorchModel(network, "cross_entropy").probe_independence((inputs, targets))
    module, changes = repair(network)
    assert [change.path for change in changes] == [
        "stem.1",
        "layers.0.bn1",
        "layers.0.bn2",
        "layers.1.bn1",
        "layers.1.bn2",
    ]
    assert {(change.before, change.after) for change in changes} == {("BatchNorm2d(8)", "GroupNorm(4, 8)")}
    model = TorchModel(module, "cross_entropy")
    model.probe_independence((inputs, targets))
    optimizer = Optimizer(0.5)
    before = float(model.compute_losses((inputs, targets)).mean())
    for _ in range(30):
        optimizer.run_train_step(model, (inputs, targets), sclip=1.0)
    assert float(model.compute_losses((inputs, targets)).mean()) < before / 2


@pytest.mark.parametrize(
    ("part", "after"),
    [
        (nn.BatchNorm1d(64), "GroupNorm(4, 64)"),
        (nn.BatchNorm1d(12), "GroupNorm(1, 12)"),
        (nn.BatchNorm2d(64), "GroupNorm(32, 64)"),
        (nn.BatchNorm2d(24), "GroupNorm(12, 24)"),
        (nn.BatchNorm2d(7), "GroupNorm(1, 7)"),
        (nn.BatchNorm3d(16), "GroupNorm(8, 16)"),
        (nn.SyncBatchNorm(128), "GroupNorm(32, 128)"),
        (nn.BatchNorm2d(8, track_running_stats=False).eval(), "GroupNorm(4, 8)"),
    ],
)
def test_batch_norms_become_group_norms(part: nn.Module, after: str) -> None:
    module, (change,) = repair(part)
    assert change.path == ""
    assert change.after == after
    assert isinstance(module, nn.GroupNorm)
    assert module.training == part.training
    require_supported(module)


def test_rows_of_one_position_keep_their_differences() -> None:
    module, _ = repair(nn.BatchNorm1d(48))
    outputs = module(torch.randn(4, 48)).detach()
    assert float(outputs.std()) > 0.5
    assert outputs.unique().numel() == outputs.numel()


@pytest.mark.parametrize("channels", range(1, 100))
def test_groups_divide_the_channels(channels: int) -> None:
    groups = groups_of(channels, fewest=2)
    assert channels % groups == 0
    assert groups <= 32
    assert channels // groups >= min(2, channels)


def test_weights_flags_type_and_mode_are_kept() -> None:
    before = nn.BatchNorm2d(4, eps=0.01, dtype=torch.bfloat16)
    nn.init.normal_(before.weight)
    before.bias.requires_grad_(False)
    after = repair(nn.Sequential(nn.Conv2d(1, 4, 1), before)).module[1]
    assert torch.equal(after.weight, before.weight)
    assert (after.weight.dtype, after.eps, after.affine) == (torch.bfloat16, 0.01, True)
    assert (after.weight.requires_grad, after.bias.requires_grad) == (True, False)
    assert after.weight is not before.weight
    plain, _ = repair(nn.BatchNorm2d(4, affine=False))
    assert (plain.weight, plain.bias, plain.affine) == (None, None, False)
    assert plain(torch.randn(2, 4, 3, 3)).shape == (2, 4, 3, 3)


def test_the_module_itself_stays_as_it_is() -> None:
    network = ResidualNetwork()
    before = copy.deepcopy(network.state_dict())
    repair(network)
    assert isinstance(network.stem[1], nn.BatchNorm2d)
    assert network.state_dict().keys() == before.keys()


def test_what_is_shared_is_replaced_once() -> None:
    shared = nn.BatchNorm1d(4)
    tied = nn.BatchNorm1d(4)
    tied.weight = shared.weight
    module, changes = repair(nn.Sequential(shared, nn.Linear(4, 4), shared, nn.Sequential(shared), tied))
    assert module[0] is module[2] is module[3][0]
    assert [change.path for change in changes] == ["0", "4"]
    assert module[4] is not module[0]
    assert module[4].weight is module[0].weight


def test_instance_norms_lose_their_statistics_and_embeddings_their_sparsity() -> None:
    module, changes = repair(
        nn.ModuleDict(
            {
                "tracked": nn.InstanceNorm2d(3, affine=True, track_running_stats=True),
                "plain": nn.InstanceNorm2d(3),
                "table": nn.Embedding(5, 2, sparse=True),
                "bag": nn.EmbeddingBag(5, 2, sparse=True),
                "dense": nn.Embedding(5, 2),
            }
        )
    )
    assert [str(change) for change in changes] == [
        (
            "tracked: InstanceNorm2d(3, track_running_stats=True) -> "
            "InstanceNorm2d(3, track_running_stats=False)"
        ),
        "table: Embedding(sparse=True) -> Embedding(sparse=False)",
        "bag: EmbeddingBag(sparse=True) -> EmbeddingBag(sparse=False)",
    ]
    assert dict(module["tracked"].named_buffers()) == {}
    assert module["tracked"].weight.shape == (3,)
    require_supported(module)


def test_a_batch_norm_that_is_frozen_on_purpose_stays() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    module[1].eval()
    assert repair(module).changes == ()
    assert len(repair(module.eval()).changes) == 1  # of which nobody knows what will be trained


class ActivatedNorm(nn.BatchNorm2d):
    """A norm that does more."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return torch.relu(super().forward(input))


def hooked() -> nn.Module:
    norm = nn.BatchNorm2d(4)
    norm.register_forward_hook(lambda *_: None)
    return norm


@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.parametrize(
    ("part", "message"),
    [(ActivatedNorm(4), "by hand"), (hooked(), "by hand"), (nn.LazyBatchNorm2d(), "run the module once")],
)
def test_what_cannot_be_replaced_faithfully_is_named(part: nn.Module, message: str) -> None:
    with pytest.raises(UnsupportedModule, match=message) as caught:
        repair(nn.Sequential(nn.Identity(), part))
    assert caught.value.path == "1"


def test_nothing_is_changed_where_nothing_is_wrong() -> None:
    module, changes = repair(nn.Linear(2, 2))
    assert changes == ()
    assert isinstance(module, nn.Linear)
