"""Closed forms of convolutions and of the norms that go with them, against the slow oracle."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests import reference
from tests.core.clipping.settings import ROWS, Setting, floats
from torch import Tensor, nn
from torch.nn import functional

from clipwise.clipping import ClippingEngine, FlatClip
from clipwise.clipping.batch import as_rows
from clipwise.clipping.capture import capture
from clipwise.clipping.dropout import RowKeys
from clipwise.clipping.losses import as_loss
from clipwise.clipping.rules import convolved
from clipwise.clipping.rules.any_operation import any_operation
from clipwise.clipping.rules.windows import Window

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


class Unbatched(nn.Module):
    """A convolution that is given one image without a batch of its own."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x[0])[None]


class Folded(nn.Module):
    """Several images of a row make one batch, as in models of video."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(2, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class Twice(nn.Module):
    """One convolution used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(torch.tanh(self.layer(x)))


def only(module: nn.Module, name: str) -> nn.Module:
    for own, parameter in module.named_parameters():
        parameter.requires_grad_(own == name)
    return module


def layer(name: str, make: Callable[[], nn.Module], *shape: int) -> Setting:
    """Return a setting in which something trained lies before, so that gradients go through, and after."""
    return Setting(name=name, module=make, inputs=floats(*shape))


LAYERS = (
    layer("1d", lambda: nn.Conv1d(3, 4, 3), 3, 9),
    layer("1d stride", lambda: nn.Conv1d(3, 4, 4, stride=3, padding=2), 3, 11),
    layer("1d dilation", lambda: nn.Conv1d(3, 4, 3, dilation=2, padding=3, bias=False), 3, 8),
    layer("1d depthwise", lambda: nn.Conv1d(4, 8, 3, groups=4, padding=1), 4, 7),
    layer("1d same, even", lambda: nn.Conv1d(3, 4, 4, padding="same"), 3, 7),
    layer("1d reflect", lambda: nn.Conv1d(2, 3, 3, padding=2, padding_mode="reflect"), 2, 6),
    layer("2d", lambda: nn.Conv2d(3, 4, 3, padding=1), 3, 6, 6),
    layer("2d no bias", lambda: nn.Conv2d(3, 4, 3, bias=False), 3, 6, 5),
    layer("2d few positions", lambda: nn.Conv2d(16, 24, 3, padding=1), 16, 3, 3),
    layer("2d few positions, stride", lambda: nn.Conv2d(16, 24, 3, stride=2, padding=1), 16, 4, 5),
    layer("2d many channels", lambda: nn.Conv2d(16, 16, 3, padding=1), 16, 24, 24),
    layer("2d stride", lambda: nn.Conv2d(3, 4, (3, 2), stride=(2, 3), padding=(1, 0)), 3, 7, 8),
    layer("2d dilation", lambda: nn.Conv2d(2, 3, 3, dilation=(2, 1), padding=2, stride=2), 2, 8, 7),
    layer("2d pointwise", lambda: nn.Conv2d(5, 4, 1), 5, 4, 3),
    layer("2d pointwise, stride", lambda: nn.Conv2d(5, 4, 1, stride=2, bias=False), 5, 5, 4),
    layer("2d pointwise, one position", lambda: nn.Conv2d(5, 4, 1), 5, 1, 1),
    layer("2d pointwise, padded", lambda: nn.Conv2d(5, 4, 1, padding=1), 5, 2, 2),
    layer("2d groups", lambda: nn.Conv2d(4, 6, 3, groups=2, padding=1), 4, 5, 5),
    layer("2d depthwise", lambda: nn.Conv2d(4, 4, 3, groups=4, padding=1), 4, 5, 5),
    layer("2d same", lambda: nn.Conv2d(2, 3, 3, padding="same", dilation=2), 2, 6, 6),
    layer("2d same, even", lambda: nn.Conv2d(2, 3, (2, 4), padding="same"), 2, 6, 5),
    layer("2d valid", lambda: nn.Conv2d(2, 3, 3, padding="valid"), 2, 6, 5),
    layer("2d replicate", lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="replicate"), 2, 5, 5),
    layer("2d circular", lambda: nn.Conv2d(2, 3, 3, padding="same", padding_mode="circular"), 2, 5, 5),
    layer("2d reflect", lambda: nn.Conv2d(2, 3, 4, padding="same", padding_mode="reflect"), 2, 6, 5),
    layer("2d kernel in the padding", lambda: nn.Conv2d(2, 3, 3, padding=3, stride=2), 2, 1, 2),
    layer("2d only the bias", lambda: only(nn.Conv2d(2, 3, 3), "bias"), 2, 5, 5),
    layer("2d only the weight", lambda: only(nn.Conv2d(2, 3, 3), "weight"), 2, 5, 5),
    layer("2d unbatched", lambda: Unbatched(nn.Conv2d(2, 3, 3)), 2, 5, 5),
    layer("2d folded", Folded, 4, 2, 5, 5),
    layer("2d twice", Twice, 3, 5, 5),
    layer("2d channels last", lambda: nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last), 3, 6, 6),
    layer("3d", lambda: nn.Conv3d(2, 3, 2, padding=1), 2, 3, 4, 3),
    layer(
        "3d all",
        lambda: nn.Conv3d(4, 6, (3, 2, 1), stride=2, padding=1, dilation=(1, 2, 1), groups=2),
        4,
        4,
        5,
        4,
    ),
    layer("3d few positions", lambda: nn.Conv3d(12, 12, 3, padding=1), 12, 2, 2, 2),
    layer("3d circular", lambda: nn.Conv3d(2, 2, 3, padding=1, padding_mode="circular"), 2, 3, 3, 4),
    layer("transposed 1d", lambda: nn.ConvTranspose1d(3, 4, 3), 3, 6),
    layer("transposed 1d, all", lambda: nn.ConvTranspose1d(4, 6, 3, 3, 2, 1, groups=2, dilation=2), 4, 5),
    layer("transposed 2d", lambda: nn.ConvTranspose2d(3, 4, 3, bias=False), 3, 4, 5),
    layer("transposed 2d, stride", lambda: nn.ConvTranspose2d(3, 2, 4, stride=2, padding=1), 3, 4, 4),
    layer("transposed 2d, output padding", lambda: nn.ConvTranspose2d(3, 2, 3, 2, 1, 1), 3, 4, 4),
    layer(
        "transposed 2d, wide output padding",
        lambda: nn.ConvTranspose2d(3, 2, 3, 1, 1, 1, dilation=2),
        3,
        4,
        4,
    ),
    layer("transposed 2d, wider", lambda: nn.ConvTranspose2d(3, 2, 2, 2, 0, 3, dilation=4), 3, 3, 4),
    layer("transposed 2d, depthwise", lambda: nn.ConvTranspose2d(4, 8, 3, 2, groups=4), 4, 4, 3),
    layer("transposed 2d, pointwise", lambda: nn.ConvTranspose2d(4, 3, 1), 4, 4, 3),
    layer("transposed 2d, pointwise, stride", lambda: nn.ConvTranspose2d(4, 3, 1, stride=2), 4, 4, 3),
    layer("transposed 2d, few positions", lambda: nn.ConvTranspose2d(16, 16, 4, 2, 1), 16, 2, 2),
    layer("transposed 2d, only the bias", lambda: only(nn.ConvTranspose2d(3, 4, 3), "bias"), 3, 4, 4),
    layer("transposed 2d, unbatched", lambda: Unbatched(nn.ConvTranspose2d(2, 3, 3)), 2, 4, 4),
    layer("transposed 3d", lambda: nn.ConvTranspose3d(2, 3, 3, 2, 1, 1), 2, 3, 2, 3),
    layer("transposed 3d, groups", lambda: nn.ConvTranspose3d(4, 2, 2, groups=2), 4, 3, 2, 3),
)

NORMS = (
    layer("group norm", lambda: nn.GroupNorm(2, 6), 6, 5, 4),
    layer("group norm, no positions", lambda: nn.GroupNorm(2, 6), 6),
    layer("group norm, only the bias", lambda: only(nn.GroupNorm(3, 6), "bias"), 6, 4),
    layer("group norm, only the weight", lambda: only(nn.GroupNorm(1, 6), "weight"), 6, 4),
    layer(
        "group norm, channels last", lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4)), 3, 6, 6
    ),
    layer("instance norm 1d", lambda: nn.InstanceNorm1d(3, affine=True), 3, 8),
    layer("instance norm 2d", lambda: nn.InstanceNorm2d(3, affine=True), 3, 4, 5),
    layer("instance norm 3d", lambda: nn.InstanceNorm3d(2, affine=True), 2, 3, 4, 2),
    layer("instance norm, unbatched", lambda: Unbatched(nn.InstanceNorm2d(3, affine=True)), 3, 4, 5),
    layer("instance norm, only the bias", lambda: only(nn.InstanceNorm1d(3, affine=True), "bias"), 3, 8),
)
ALL = (*LAYERS, *NORMS)


def weighting(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return a loss in which every element of the outputs counts differently."""
    flat = outputs.flatten(1)
    steps = torch.arange(1, flat.shape[1] + 1, dtype=flat.dtype, device=flat.device)
    return (flat + 0.1 * flat.square()).mul(torch.sin(1.7 * steps)).sum(1) * (1 + targets)


def made(setting: Setting, dtype: torch.dtype) -> tuple[nn.Module, tuple[Tensor, ...]]:
    torch.manual_seed(3)
    module = setting.module().to(dtype)
    inputs = setting.inputs().to(dtype)
    if "channels last" in setting.name:
        inputs = inputs.to(memory_format=torch.channels_last)
    return module, (inputs, torch.linspace(0, 1, ROWS, dtype=dtype), torch.ones(ROWS))


def check(module: nn.Module, batch: Any, tolerance: float, group: int = 1, **more: Any) -> None:
    _, norms = reference.clipped_sum(module, weighting, batch, None, group=group)
    bound = float(norms.median()) * 1.01  # some units are scaled, some are not
    values, norms = reference.clipped_sum(module, weighting, batch, bound, group=group)
    engine = ClippingEngine(module, weighting, **more)
    found = engine.clipped_sum(as_rows(batch), FlatClip(max_norm=bound), group=group)
    assert not engine.whole_model
    for name, value in values.items():
        assert reference.relative_error(found.values[name], value) <= tolerance, name
    assert reference.relative_error(found.norms, norms) <= tolerance


def records(module: nn.Module, batch: Any) -> Any:
    keys = RowKeys(key=0, start=0, stop=ROWS, device=torch.device("cpu"))
    return capture(module, as_loss(weighting), as_rows(batch), keys).records


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("group", [1, 2, 3])
@pytest.mark.parametrize("setting", ALL, ids=lambda setting: setting.name)
def test_equal_to_a_loop_over_single_samples(setting: Setting, group: int, dtype: torch.dtype) -> None:
    module, batch = made(setting, dtype)
    check(module, batch, TOLERANCE[dtype], group)


@pytest.mark.parametrize("setting", ALL, ids=lambda setting: setting.name)
def test_equal_where_gradients_go_on_to_a_layer_before(setting: Setting) -> None:
    module, batch = made(setting, torch.float64)
    scale = nn.Linear(batch[0].shape[-1], batch[0].shape[-1], dtype=torch.float64)
    check(nn.Sequential(scale, nn.Tanh(), module), batch, 1e-10, microbatch_size=4)


@pytest.mark.parametrize("setting", ALL, ids=lambda setting: setting.name)
def test_the_closed_form_is_taken(setting: Setting) -> None:
    found = records(*made(setting, torch.float32))
    assert found
    for record in found:
        assert record.rule is not any_operation
        assert record.why == "closed form"


def grouped(setting: Setting) -> bool:
    return any(getattr(part, "groups", 1) > 1 for part in setting.module().modules())


PATHS = [
    pytest.param(setting, path, id=f"{setting.name}-{path}")
    for setting in LAYERS
    for path in (convolved.PATCHES, convolved.GROUPS, convolved.GRAM)
    if path != convolved.GRAM or not grouped(setting)  # Gram matrices are of a single group of channels
]


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize(("setting", "path"), PATHS)
def test_every_path_gives_the_same(
    setting: Setting, path: str, group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, batch = made(setting, torch.float64)
    monkeypatch.setattr(convolved, "chosen_path", lambda *_args: path)
    check(module, batch, 1e-10, group)


@pytest.mark.parametrize("cheaper", [False, True])
@pytest.mark.parametrize("size", [1, 2000])
def test_slices_and_both_gram_matrices_of_patches_give_the_same(
    cheaper: bool, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, batch = made(layer("2d", lambda: nn.Conv2d(4, 6, 3, stride=2, padding=2), 4, 5, 6), torch.float64)
    monkeypatch.setattr(convolved, "pixels_cost", lambda *_args: 0 if cheaper else 2**62)
    monkeypatch.setattr(convolved, "PATCH_BYTES", {True: size})
    monkeypatch.setattr(convolved, "PART_BYTES", size)
    monkeypatch.setattr(convolved, "GRAM_BYTES", size)
    for path in (convolved.PATCHES, convolved.GRAM):
        monkeypatch.setattr(convolved, "chosen_path", lambda *_args, path=path: path)
        check(module, batch, 1e-10, 3)


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e18])
def test_gram_norms_keep_very_large_and_small_images(scale: float) -> None:
    torch.manual_seed(0)
    left, right = torch.randn(4, 8, 3, 3), torch.randn(4, 16, 3, 3)
    left[0], left[1], right[2] = left[0] * scale, 0.0, right[2] * scale
    window = Window(kernel=(3, 3), stride=(1, 1), padding=(1, 1), dilation=(1, 1))
    found = convolved.Convolved(left, right, window, groups=1, units=4)
    assert found.path() == convolved.GRAM
    exact = convolved.Convolved(left.double(), right.double(), window, groups=1, units=4).instantiated()
    norms = exact.flatten(1).norm(dim=1)
    assert torch.allclose(found.norms().squared.sqrt(), norms, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("shape", "positions", "groups", "path"),
    [
        ((64, 64, 3, 3), 1024, 1, convolved.PATCHES),
        ((512, 512, 3, 3), 16, 1, convolved.GRAM),
        ((64, 1, 3, 3), 64, 64, convolved.GROUPS),
    ],
)
def test_the_path_goes_by_shape(shape: tuple[int, ...], positions: int, groups: int, path: str) -> None:
    assert convolved.chosen_path(torch.Size(shape), positions, positions, groups, torch.float32) == path


def test_gram_norms_state_by_how_much_they_can_be_off() -> None:
    torch.manual_seed(0)
    left, right = torch.randn(2, 8, 4, 4), torch.randn(2, 16, 4, 4)
    right = 1000 + right  # patches that are nearly the same, and gradients that cancel over positions
    left -= left.mean((2, 3), keepdim=True)
    window = Window(kernel=(3, 3), stride=(1, 1), padding=(0, 0), dilation=(1, 1))
    left = left[:, :, :2, :2] - left[:, :, :2, :2].mean((2, 3), keepdim=True)
    found = convolved.Convolved(left, right, window, groups=1, units=2)
    assert found.path() == convolved.GRAM
    norms = found.norms()
    exact = convolved.Convolved(left.double(), right.double(), window, groups=1, units=2).instantiated()
    off = (exact.flatten(1).square().sum(1) - norms.squared).abs()
    assert norms.spread is not None
    assert norms.error is not None
    assert (off <= norms.spread).all()
    added = found.weighted(torch.tensor([1.0, 0.0]))
    assert added is not None
    assert float((added - exact[0]).norm()) <= float(norms.error[0])


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("setting", ALL, ids=lambda setting: setting.name)
def test_autocast_is_close(setting: Setting) -> None:
    module, batch = made(setting, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        check(module, batch, 1e-2)


def test_running_statistics_are_left_to_others() -> None:
    module = nn.InstanceNorm1d(3, affine=True, track_running_stats=True).eval()
    batch = (torch.randn(ROWS, 3, 4), torch.zeros(ROWS), torch.ones(ROWS))
    check(module, batch, 1e-5)


def test_a_kernel_that_depends_on_the_rows_leaves_its_bias_exact() -> None:
    class Dynamic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.randn(2, dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            return functional.conv1d(x, x[0, :2, :4].reshape(2, 2, 2), self.bias)

    module = Dynamic()
    batch = (torch.randn(ROWS, 2, 6, dtype=torch.float64), torch.zeros(ROWS).double(), torch.ones(ROWS))
    check(module, batch, 1e-10)
    assert records(module, batch)[0].rule is any_operation
