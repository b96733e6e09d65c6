"""Products of norms and sums are of float32, whatever torch was told; the model's own are the caller's."""

from collections.abc import Iterator
from threading import Barrier, Thread

import pytest
import torch
from torch import Tensor, nn

from clipwise.clipping import ClippingEngine, FlatClip
from clipwise.clipping.batch import as_rows
from clipwise.clipping.contributions import outer
from clipwise.clipping.process_settings import full_precision
from clipwise.clipping.sums import Sums


@pytest.fixture(params=["medium", "high"])
def told(request: pytest.FixtureRequest) -> Iterator[str]:
    """Let torch take fewer digits for products of float32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(request.param)
    yield torch.backends.mkldnn.matmul.fp32_precision
    torch.set_float32_matmul_precision(before)


def test_norms_and_sums_are_of_full_precision(told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, set[str]] = {"forward": set(), "products": set(), "sums": set()}

    def see(where: str) -> None:
        seen[where].add(torch.backends.mkldnn.matmul.fp32_precision)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(40, 30)

        def forward(self, x: Tensor) -> Tensor:
            see("forward")
            return self.layer(x)

    instantiate, add = outer.instantiate, Sums.add

    def instantiated(left: Tensor, right: Tensor) -> tuple[list[Tensor], Tensor]:
        see("products")
        return instantiate(left, right)

    def added(self: Sums, *args: object) -> None:
        see("sums")
        add(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(outer, "instantiate", instantiated)
    monkeypatch.setattr(Sums, "add", added)
    rows = as_rows((torch.randn(4, 50, 40), torch.zeros(4, 50, 30)))
    ClippingEngine(Model(), "mse").clipped_sum(rows, FlatClip(max_norm=1.0))
    assert seen == {"forward": {told}, "products": {"ieee"}, "sums": {"ieee"}}
    assert torch.backends.mkldnn.matmul.fp32_precision == told


def test_a_gpu_is_told_too_and_told_back(told: str) -> None:
    cuda = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    before = [one.fp32_precision for one in cuda]
    assert before == ["tf32", "tf32"]
    with full_precision("cuda"):
        assert [one.fp32_precision for one in cuda] == ["ieee", "ieee"]
    assert [one.fp32_precision for one in cuda] == before
    assert torch.get_float32_matmul_precision() in ("medium", "high")


def test_what_follows_a_setting_of_all_goes_on_following_it() -> None:
    general, products = torch.backends, torch.backends.mkldnn.matmul
    before = (general.fp32_precision, products.fp32_precision)
    try:
        products.fp32_precision = "none"
        general.fp32_precision = "tf32"
        with full_precision("cpu"):
            assert products.fp32_precision == "ieee"
        assert products.fp32_precision == "tf32"
        general.fp32_precision = "ieee"
        assert products.fp32_precision == "ieee"
    finally:
        general.fp32_precision, products.fp32_precision = before


def test_devices_do_not_undo_each_others_changes(told: str) -> None:
    processor, gpu = full_precision("cpu"), full_precision("cuda")
    with processor:
        gpu.__enter__()
    assert torch.backends.cuda.matmul.fp32_precision == "ieee"
    assert torch.backends.mkldnn.matmul.fp32_precision == told
    gpu.__exit__(None, None, None)
    assert torch.backends.cuda.matmul.fp32_precision == "tf32"


def test_what_is_off_stays_as_it_is() -> None:
    before = torch.backends.mkldnn.matmul.fp32_precision
    with full_precision("cpu"):
        assert torch.backends.mkldnn.matmul.fp32_precision == before


def test_the_last_thread_puts_it_back(told: str) -> None:
    first_is_in, first_is_out = Barrier(2), Barrier(2)
    found: list[str] = []

    def other() -> None:
        first_is_in.wait()
        with full_precision("cpu"):
            first_is_in.wait()
            first_is_out.wait()
            found.append(torch.backends.mkldnn.matmul.fp32_precision)

    thread = Thread(target=other)
    thread.start()
    with full_precision("cpu"):
        first_is_in.wait()
        first_is_in.wait()
    first_is_out.wait()
    thread.join()
    assert found == ["ieee"]
    assert torch.backends.mkldnn.matmul.fp32_precision == told
