"""Memory that chunks take in turn: it is used again, and nothing that leaves a call lies in it."""

import copy

import pytest
import torch
from tests import reference
from torch import Tensor, nn
from torch.nn import functional

from clipwise.clipping import ClippingEngine, FlatClip
from clipwise.clipping.batch import as_rows
from clipwise.clipping.contributions import workspace
from clipwise.clipping.contributions.workspace import Workspace, new_part
from clipwise.clipping.large_tensors import LARGE_BYTES, empty, zeros
from clipwise.clipping.norms import block_norms, norms_of

ROWS, TIMES, WORDS = 6, 20, 9


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let gradients of the test's size be made in several parts, and lie in several blocks."""
    monkeypatch.setattr(workspace, "BLOCK", 256)
    for module in (workspace, __import__("clipwise.clipping.contributions.outer", fromlist=["outer"])):
        monkeypatch.setattr(module, "PART_BYTES", 2048)
        monkeypatch.setattr(module, "CACHED_BYTES", 1024)


class Sharing(nn.Module):
    """A convolution, layers over positions, and a table that is also the output layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(WORDS, 8)
        self.mixed = nn.Conv1d(8, 8, 3, padding=1)
        self.wide = nn.Linear(8, 8)

    def forward(self, words: Tensor) -> Tensor:
        x = self.table(words)
        x = x + self.mixed(x.transpose(1, 2)).tanh().transpose(1, 2)
        x = x + self.wide(x).tanh()
        return x @ self.table.weight.t()


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(outputs.transpose(1, 2), targets, reduction="none").mean(1)


def batch(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(WORDS, (ROWS, TIMES), generator=generator)
    return words, torch.randint(WORDS, (ROWS, TIMES), generator=generator), torch.ones(ROWS)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(("size", "group"), [(None, 1), (2, 1), (None, 3)])
def test_exact_and_not_touched_by_the_next_call(size: int | None, group: int) -> None:
    torch.manual_seed(3)
    module = Sharing()
    engine = ClippingEngine(module, loss, microbatch_size=size)
    kept = []
    for seed in range(3):
        _, norms = reference.clipped_sum(module, loss, batch(seed), None, group=group)
        bound = float(norms.median())
        found = engine.clipped_sum(as_rows(batch(seed)), FlatClip(max_norm=bound), group=group)
        assert engine.whole_model == {}
        kept.append((bound, found))
    assert engine.held_bytes > 0
    for seed, (bound, found) in enumerate(kept):
        expected, norms = reference.clipped_sum(module, loss, batch(seed), bound, group=group)
        for name, value in expected.items():
            assert reference.relative_error(found.values[name], value) <= 1e-5, (seed, name)
        assert reference.relative_error(found.norms, norms) <= 1e-5


@pytest.mark.usefixtures("small_blocks")
def test_the_next_call_takes_the_same_memory() -> None:
    engine = ClippingEngine(Sharing(), loss)
    held = []
    for seed in range(4):
        engine.clipped_sum(as_rows(batch(seed)), FlatClip(max_norm=1.0))
        held.append(engine.held_bytes)
    assert set(held) == {held[0]}


def test_a_chunk_begins_where_the_last_one_began_and_what_it_takes_does_not_overlap() -> None:
    space, like = Workspace(), torch.zeros(1)
    places = []
    for _ in range(2):
        with space.chunk():
            parts = [new_part(like, (3, 5)), new_part(like, (7,)), new_part(like, (2, 2))]
            for number, part in enumerate(parts):
                part.fill_(number)
        assert [part.unique().tolist() for part in parts] == [[0.0], [1.0], [2.0]]
        places.append([part.data_ptr() for part in parts])
    assert places[0] == places[1]


@pytest.mark.parametrize(
    "like", [torch.zeros(1, dtype=torch.float64), torch.zeros(1, device="meta")], ids=str
)
def test_other_types_and_devices_get_tensors_of_their_own(like: Tensor) -> None:
    space = Workspace()
    with space.chunk():
        part = new_part(like, (2, 3))
    assert (part.shape, part.dtype, part.device) == ((2, 3), like.dtype, like.device)
    assert space.held == 0


def test_what_was_needed_once_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace, "BLOCK", 64)
    space, like = Workspace(), torch.zeros(1)
    for sizes, held in (((64, 64, 100), 4 * (64 + 64 + 112)), ((64,), 4 * 64)):
        with space.chunk():
            for size in sizes:
                new_part(like, (size,))
        space.end()
        assert space.held == held
    space.clear()
    assert space.held == 0


def test_nothing_is_taken_outside_of_a_chunk() -> None:
    space = Workspace()
    with pytest.raises(ZeroDivisionError), space.chunk():
        raise ZeroDivisionError
    new_part(torch.zeros(1), (5,))
    assert space.held == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [3, LARGE_BYTES])
def test_large_zeros_are_zeros_that_can_be_added_to(dtype: torch.dtype, rows: int) -> None:
    found = zeros((rows, 2), dtype, torch.device("cpu"))
    assert (found.shape, found.dtype) == ((rows, 2), dtype)
    assert not found.any()
    found[1] += 2.0
    assert float(found.sum()) == 4.0


def test_too_much_is_an_error_that_the_engine_knows() -> None:
    with pytest.raises(torch.OutOfMemoryError, match="can't allocate"):
        empty(2**52)
    with pytest.raises(torch.OutOfMemoryError, match="can't allocate"):
        zeros((2**52,), torch.float32, torch.device("cpu"))


def test_blocks_that_are_too_small_for_what_is_taken_now_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace, "BLOCK", 64)
    space, like = Workspace(), torch.zeros(1)
    for sizes, held in (((80, 80, 128), 4 * (80 + 80 + 128)), ((128,), 4 * 128)):
        with space.chunk():
            for size in sizes:
                new_part(like, (size,))
        space.end()
        assert space.held == held


def test_a_copy_of_a_model_holds_no_gradients_of_rows() -> None:
    engine = ClippingEngine(Sharing(), loss)
    expected = engine.clipped_sum(as_rows(batch(0)), FlatClip(max_norm=1.0)).values
    assert engine.held_bytes > 0
    double = copy.deepcopy(engine)
    assert double.held_bytes == 0
    found = double.clipped_sum(as_rows(batch(0)), FlatClip(max_norm=1.0)).values
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_zeros_in_one_part_and_huge_numbers_in_another_have_their_norms() -> None:
    parts = [torch.zeros(2, 3000), torch.full((1, 3000), 1e30), torch.ones(1, 3000)]
    found = norms_of(parts, [block_norms(part) for part in parts])
    expected = torch.cat(parts).double().norm(dim=1)
    assert reference.relative_error(found, expected) < 1e-6
