"""Branches on values, tensors and inputs that rows are written into, and checkpointing."""

from collections.abc import Callable
from threading import Thread

import pytest
import torch
from tests.core.clipping.settings import ROWS, Setting, uneven
from tests.core.clipping.settings_structure import Checkpointed, Filling
from tests.core.clipping.test_coverage import assert_exact
from tests.core.clipping.test_engine import KEY, made
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from clipwise.clipping import ClippingEngine, FlatClip, explain
from clipwise.clipping.batch import as_rows


class Branching(nn.Module):
    """A layer for rows whose sum is positive, another for the rest, and a loop whose length a row gives."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x) if x.sum() > 0 else self.second(x) * 2
        for _ in range(int((x > 0).sum())):
            y = torch.tanh(self.first(y))
        if bool((y > 1e6).any()):
            raise ValueError
        return y


SETTING = Setting(name="branching", module=Branching, inputs=lambda: torch.randn(ROWS, 4) + 0.5, loss=uneven)


@pytest.mark.parametrize("group", [1, 2, 3])
@pytest.mark.parametrize("size", [None, 4])
def test_rows_that_take_different_branches(group: int, size: int | None) -> None:
    for weights in (torch.ones(ROWS), torch.tensor([0.0, 1.0, 2.0, 0.5, 0.0, 0.0])):
        module, batch = made(SETTING, torch.float64, weights)
        signs = batch[0].sum(1) > 0
        assert signs.any()
        assert not signs.all()
        assert_exact(SETTING, module, batch, 1e-10, group=group, microbatch_size=size)


def test_losses_norms_and_factors_stay_in_the_order_of_the_rows() -> None:
    module, batch = made(SETTING, torch.float64)
    together = ClippingEngine(module, uneven).clipped_sum(as_rows(batch), FlatClip(max_norm=0.1))
    for i in range(ROWS):
        row = tuple(part[i : i + 1] for part in batch)
        alone = ClippingEngine(module, uneven).clipped_sum(as_rows(row), FlatClip(max_norm=0.1))
        for name in ("losses", "norms", "factors"):
            assert torch.allclose(getattr(together, name)[i], getattr(alone, name)[0], rtol=1e-12)


def test_padding_takes_no_branch_of_its_own() -> None:
    calls = []

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            calls.append(1)
            return self.layer(x) if x.abs().sum() > 0 else x

    module = Counting()
    rows = as_rows(
        (torch.cat([torch.ones(3, 4), torch.zeros(2, 4)]), torch.zeros(5), torch.tensor([1.0, 1, 1, 0, 0]))
    )
    engine = ClippingEngine(module, uneven)
    engine.clipped_sum(rows, None)
    calls.clear()
    engine.clipped_sum(rows, None)
    assert len(calls) == 1
    assert engine.whole_model == {}


def test_a_tensor_that_rows_fill_is_found_once() -> None:
    passes = []

    def make(x: Tensor) -> Tensor:
        passes.append(1)
        return torch.zeros(x.shape[0], 3, 4)

    engine = ClippingEngine(Filling(make), uneven)
    rows = as_rows((torch.randn(ROWS, 3, 5), torch.zeros(ROWS)))
    engine.clipped_sum(rows, None)
    passes.clear()
    engine.clipped_sum(rows, None)
    assert len(passes) == 1
    assert engine.whole_model == {}


def same_parts(inner: Callable[..., nn.Module]) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(1)
    one = inner()
    plain = nn.Sequential(one.first, nn.Tanh(), one.inner)
    return one.double(), plain.double()


@pytest.mark.parametrize("how", [{}, {"sequential": True}])
def test_checkpointing_changes_nothing_and_computes_nothing_again(how: dict[str, bool]) -> None:
    checkpointed, plain = same_parts(lambda: Checkpointed(**how))
    calls = []
    checkpointed.inner[0].register_forward_hook(lambda *_: calls.append(1))
    rows = as_rows((torch.randn(ROWS, 3, 5, dtype=torch.float64), torch.zeros(ROWS)))
    found = ClippingEngine(checkpointed, uneven)
    values = found.clipped_sum(rows, FlatClip(max_norm=0.1), key=KEY).values
    expected = ClippingEngine(plain, uneven).clipped_sum(rows, FlatClip(max_norm=0.1), key=KEY).values
    assert found.whole_model == {}
    for one, other in zip(values.values(), expected.values(), strict=True):
        assert torch.equal(one, other)
    calls.clear()
    found.clipped_sum(rows, FlatClip(max_norm=0.1), key=KEY)
    assert len(calls) == 1


def test_checkpointing_elsewhere_goes_on_as_it_was() -> None:
    """Another thread's checkpoints are computed again while this one captures."""
    inner, counted = nn.Linear(4, 4), []
    inner.register_forward_pre_hook(lambda *_: counted.append(1))

    def elsewhere() -> None:
        for _ in range(20):
            checkpoint(inner, torch.randn(2, 4), use_reentrant=False).sum().backward()

    thread = Thread(target=elsewhere)
    engine = ClippingEngine(Checkpointed(), uneven)
    rows = as_rows((torch.randn(ROWS, 3, 5), torch.zeros(ROWS)))
    thread.start()
    for _ in range(5):
        engine.clipped_sum(rows, None)
    thread.join()
    assert len(counted) == 40
    counted.clear()
    elsewhere()
    assert len(counted) == 40


def test_hooks_on_saved_tensors_of_the_caller_still_see_them() -> None:
    seen = []

    def pack(tensor: Tensor) -> Tensor:
        seen.append(tensor.shape)
        return tensor

    engine = ClippingEngine(nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)), uneven)
    rows = as_rows((torch.randn(ROWS, 4), torch.zeros(ROWS)))
    expected = engine.clipped_sum(rows, None).values
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        found = engine.clipped_sum(rows, None).values
    assert seen
    assert all(torch.equal(found[name], expected[name]) for name in expected)


class WritingInputs(nn.Module):
    """Shifts and cuts its input, in place or not."""

    def __init__(self, *, in_place: bool) -> None:
        super().__init__()
        self.shift, self.layer = nn.Parameter(torch.ones(4)), nn.Linear(4, 2)
        self.in_place = in_place

    def forward(self, x: Tensor) -> Tensor:
        if self.in_place:
            x.mul_(2.0)
            x += self.shift
            return self.layer(functional.relu(x, inplace=True))
        return self.layer(functional.relu(x * 2.0 + self.shift))


@pytest.mark.parametrize("size", [None, 2])
def test_a_module_that_writes_into_its_input_leaves_the_callers_batch_alone(size: int | None) -> None:
    writing, plain = WritingInputs(in_place=True), WritingInputs(in_place=False)
    plain.load_state_dict(writing.state_dict())
    x = torch.randn(ROWS, 4)
    before = x.clone()
    rows = as_rows((x, torch.zeros(ROWS)))
    engine = ClippingEngine(writing, uneven, microbatch_size=size)
    for _ in range(3):
        found = engine.clipped_sum(rows, FlatClip(max_norm=0.1)).values
        assert torch.equal(x, before)
    assert engine.whole_model == {}
    expected = ClippingEngine(plain, uneven).clipped_sum(rows, FlatClip(max_norm=0.1)).values
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=1e-5), name


def test_explain_tells_the_rules_of_a_row_where_rows_disagree() -> None:
    module, batch = made(SETTING, torch.float64)
    found = explain(module, uneven, batch, groups=ROWS)
    assert found.whole_model == ""
    assert {line.operation for line in found.lines} == {"linear"}
