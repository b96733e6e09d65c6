from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests import reference
from torch import Tensor, nn

from clipwise.clipping import ClippingEngine, FlatClip
from clipwise.clipping.batch import as_rows
from clipwise.clipping.capture import Captured, capture
from clipwise.clipping.dropout import row_keys
from clipwise.errors import UnsupportedModule

ROWS, TIMES, SIZE, KEY = 6, 7, 5, 99
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
KINDS: dict[str, Callable[..., nn.RNNBase]] = {
    "lstm": nn.LSTM,
    "projected": lambda *args, **more: nn.LSTM(*args, proj_size=3, **more),
    "gru": nn.GRU,
    "tanh": nn.RNN,
    "relu": lambda *args, **more: nn.RNN(*args, nonlinearity="relu", **more),
}
CELLS: dict[str, Callable[..., nn.RNNCellBase]] = {
    "lstm": nn.LSTMCell,
    "gru": nn.GRUCell,
    "tanh": nn.RNNCell,
    "relu": lambda *args, **more: nn.RNNCell(*args, nonlinearity="relu", **more),
}
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "batch_first": {"batch_first": True},
    "stacked": {"num_layers": 3, "bias": False},
    "both_ways": {"num_layers": 2, "bidirectional": True, "batch_first": True},
    "dropout": {"num_layers": 3, "dropout": 0.4, "bidirectional": True},
    "dropout_batch_first": {"num_layers": 2, "dropout": 0.4, "batch_first": True},
}


def square(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.flatten(1).square().mean(1)


class Everything(nn.Module):
    """All that a layer returns, after a layer of another kind."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.first = nn.Linear(SIZE, SIZE)
        self.layer = layer

    def forward(self, x: Tensor, *states: Tensor) -> Tensor:
        x = torch.tanh(self.first(x))
        # A row is a batch of one, and states have layers first.
        begin = tuple(state.transpose(0, 1).contiguous() for state in states)
        given = () if not begin else (begin if isinstance(self.layer, nn.LSTM) else begin[0],)
        outputs, ends = self.layer(x if self.layer.batch_first else x.transpose(0, 1), *given)
        if not self.layer.batch_first:
            outputs = outputs.transpose(0, 1)
        ends = ends if isinstance(ends, tuple) else (ends,)
        return torch.cat([outputs.flatten(1), *(2 * end.transpose(0, 1).flatten(1) for end in ends)], 1)


class Unrolled(nn.Module):
    """A cell in a loop of one's own, which begins where its first step chooses."""

    def __init__(self, cell: nn.RNNCellBase) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        state, seen = None, []
        for step in x.unbind(1):
            state = self.cell(step, state)
            seen.append(state[0] if isinstance(state, tuple) else state)
        return torch.cat(seen, 1)


def captured(module: nn.Module, batch: Any) -> Captured:
    rows = as_rows(batch)
    return capture(module, square, rows, row_keys(KEY, rows.size))


def assert_exact(
    module: nn.Module, inputs: Any, *, operations: list[str], group: int = 1, **more: Any
) -> None:
    """Compare with the oracle at a bound that half of the units exceed; demand closed forms."""
    first = inputs[0] if isinstance(inputs, tuple) else inputs
    dtype = next(module.parameters()).dtype
    weights = torch.ones(ROWS, dtype=dtype)
    weights[1], weights[-1] = 2.0, 0.0
    batch = (inputs, torch.zeros(first.shape[0]), weights)
    _, norms = reference.clipped_sum(module, square, batch, None, group=group, key=KEY)
    bound = float(norms.median()) * 1.0001
    expected, norms = reference.clipped_sum(module, square, batch, bound, group=group, key=KEY)
    engine = ClippingEngine(module, square, **more)
    found = engine.clipped_sum(as_rows(batch), FlatClip(max_norm=bound), group=group, key=KEY)
    for name, value in expected.items():
        assert reference.relative_error(found.values[name], value) <= TOLERANCE[dtype], name
    assert reference.relative_error(found.norms, norms) <= TOLERANCE[dtype]
    assert any(bool(value.any()) for value in expected.values())
    assert not engine.whole_model
    assert [one.rule.name for one in captured(module, batch).records] == operations


def made(kind: str, dtype: torch.dtype = torch.float64, **more: Any) -> tuple[Everything, Tensor]:
    torch.manual_seed(5)
    module = Everything(KINDS[kind](SIZE, 4, **more)).to(dtype)
    return module, torch.randn(ROWS, TIMES, SIZE, dtype=dtype)


def name_of(kind: str) -> str:
    return {"projected": "lstm", "tanh": "rnn", "relu": "rnn"}.get(kind, kind)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_exact(kind: str, shape: str, dtype: torch.dtype) -> None:
    module, x = made(kind, dtype, **SHAPES[shape])
    assert_exact(module, x, operations=["linear", name_of(kind)])


@pytest.mark.parametrize("shape", ["both_ways", "dropout"])
@pytest.mark.parametrize("kind", KINDS)
def test_groups_and_microbatches(kind: str, shape: str) -> None:
    module, x = made(kind, **SHAPES[shape])
    assert_exact(module, x, operations=["linear", name_of(kind)], group=3, microbatch_size=3)
    assert_exact(module, x, operations=["linear", name_of(kind)], group=2)


@pytest.mark.parametrize("kind", KINDS)
def test_states_that_the_rows_bring(kind: str) -> None:
    module, x = made(kind, num_layers=2, bidirectional=True)
    out = 3 if kind == "projected" else 4
    states = [torch.randn(ROWS, 4, out, dtype=x.dtype)]
    if isinstance(module.layer, nn.LSTM):
        states.append(torch.randn(ROWS, 4, 4, dtype=x.dtype))
    assert_exact(module, (x, *states), operations=["linear", name_of(kind)], group=2)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_states_that_are_computed_and_learned(kind: str) -> None:
    class Begun(nn.Module):
        def __init__(self, layer: nn.RNNBase) -> None:
            super().__init__()
            self.layer, self.begin = layer, nn.Parameter(torch.randn(1, 1, 4))
            self.encode = nn.Linear(SIZE, 4)

        def forward(self, x: Tensor) -> Tensor:
            encoded = self.encode(x.mean(1))[None]
            state = (self.begin, encoded) if isinstance(self.layer, nn.LSTM) else self.begin
            return self.layer(x, state)[0] * encoded.transpose(0, 1)

    torch.manual_seed(1)
    module = Begun(KINDS[kind](SIZE, 4, batch_first=True)).double()
    x = torch.randn(ROWS, TIMES, SIZE, dtype=torch.float64)
    assert_exact(module, x, operations=["linear", "addition", kind], group=2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("trained", ["weight_ih", "weight_hh", "bias_ih", "bias_hh", "_l1"])
def test_parts_that_are_frozen(kind: str, trained: str) -> None:
    module, x = made(kind, num_layers=2)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(trained in name)
    assert_exact(module, x, operations=[name_of(kind)])
    (record,) = captured(module, (x, torch.zeros(ROWS))).records
    assert len(record.weights) == sum(trained in name for name, _ in module.named_parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_a_frozen_layer_hands_gradients_on(kind: str) -> None:
    module, x = made(kind, num_layers=2, dropout=0.5)
    module.layer.requires_grad_(False)
    assert_exact(module, x, operations=["linear"])


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_last_state_counts(kind: str) -> None:
    class Last(nn.Module):
        def __init__(self, layer: nn.RNNBase) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            ends = self.layer(x)[1]
            return (ends[1] if isinstance(ends, tuple) else ends)[-1]

    torch.manual_seed(2)
    module = Last(KINDS[kind](SIZE, 4, batch_first=True)).double()
    x = torch.randn(ROWS, TIMES, SIZE, dtype=torch.float64)
    assert_exact(module, x, operations=[name_of(kind)])


def test_several_sequences_and_none_of_a_batch_in_a_row() -> None:
    class Sentences(nn.Module):
        """A row is a document: one layer over sentences of words, one over the document."""

        def __init__(self) -> None:
            super().__init__()
            self.words, self.sentences = nn.GRU(SIZE, 4, batch_first=True), nn.LSTM(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            encoded = self.words(x.flatten(0, 1))[1][0]
            return self.sentences(encoded)[0][-1:]  # not batched: (T, I)

    torch.manual_seed(3)
    x = torch.randn(ROWS, 3, TIMES, SIZE, dtype=torch.float64)
    assert_exact(Sentences().double(), x, operations=["gru", "lstm"], group=2)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_cells_in_a_loop_of_ones_own(cell: str, bias: bool) -> None:
    torch.manual_seed(4)
    module = Unrolled(CELLS[cell](SIZE, 4, bias=bias)).double()
    x = torch.randn(ROWS, TIMES, SIZE, dtype=torch.float64)
    assert_exact(module, x, operations=[f"{name_of(cell)} cell"] * TIMES, group=2)


@pytest.mark.parametrize("cell", CELLS)
def test_a_frozen_cell(cell: str) -> None:
    torch.manual_seed(4)
    module = nn.Sequential(nn.Linear(SIZE, SIZE), Unrolled(CELLS[cell](SIZE, 4).requires_grad_(False)))
    x = torch.randn(ROWS, TIMES, SIZE, dtype=torch.float64)
    assert_exact(module.double(), x, operations=["linear"])


def test_shared_weights_in_two_layers() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.LSTM(4, 4, batch_first=True), nn.LSTM(4, 4, batch_first=True)
            self.other.weight_hh_l0 = self.one.weight_hh_l0
            self.other.weight_ih_l0 = self.one.weight_hh_l0

        def forward(self, x: Tensor) -> Tensor:
            return self.other(self.one(x)[0])[0]

    torch.manual_seed(6)
    assert_exact(Both().double(), torch.randn(ROWS, 5, 4, dtype=torch.float64), operations=["lstm", "lstm"])


def test_masks_are_drawn_for_every_row_and_are_those_of_the_oracle() -> None:
    module, x = made("gru", num_layers=2, dropout=0.5)
    batch = (x[:1].expand(ROWS, -1, -1), torch.zeros(ROWS))
    with torch.no_grad():
        losses = captured(module, batch).losses
    assert losses.sort().values.diff().min() > 1e-9  # a million times what rounding does
    assert torch.equal(captured(module, batch).losses, losses)
    module.eval()
    # Kernels may round equal rows differently: they are equal as far as sums of products are.
    with torch.no_grad():
        expected = square(module(x[:1]), batch[1]).expand(ROWS)
    torch.testing.assert_close(captured(module, batch).losses.detach(), expected, rtol=1e-12, atol=0.0)


def test_outputs_that_are_written_to_are_never_taken_for_what_they_were() -> None:
    class Written(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.LSTM(SIZE, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)[0].mul_(2)

    torch.manual_seed(7)
    module = Written().double()
    batch = (torch.randn(ROWS, TIMES, SIZE, dtype=torch.float64), torch.zeros(ROWS), torch.ones(ROWS))
    expected, _ = reference.clipped_sum(module, square, batch, 0.1)
    engine = ClippingEngine(module, square)
    found = engine.clipped_sum(as_rows(batch), FlatClip(max_norm=0.1))
    assert "modified by an inplace operation" in next(iter(engine.whole_model.values()))
    for name, value in expected.items():
        assert reference.relative_error(found.values[name], value) <= 1e-10


class Packed(nn.Module):
    """The last state of sequences of different lengths, by packing them."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.first, self.layer = nn.Linear(SIZE, SIZE), KINDS[kind](SIZE, 4, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(
            self.first(x), lengths, batch_first=True, enforce_sorted=False
        )
        ends = self.layer(packed)[1]
        return (ends[0] if isinstance(ends, tuple) else ends)[-1]


class Gathered(Packed):
    """The same, by taking each row's output at its own last step: the way out that a refusal names."""

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        outputs = self.layer(self.first(x))[0]
        index = (lengths - 1)[:, None, None].expand(-1, 1, outputs.shape[2])
        return outputs.gather(1, index)[:, 0]


LENGTHS = torch.tensor([7, 3, 2, 5, 6, 1])


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("kind", ["lstm", "gru", "tanh"])
def test_packed_sequences_are_refused_with_a_way_out(kind: str) -> None:
    batch = ((torch.randn(ROWS, TIMES, SIZE), LENGTHS), torch.zeros(ROWS))
    with pytest.raises(UnsupportedModule, match=r"packs sequences.*gather each row's state"):
        ClippingEngine(Packed(kind), square).clipped_sum(as_rows(batch), FlatClip(max_norm=1.0))


@pytest.mark.parametrize("kind", ["lstm", "gru", "tanh"])
def test_the_way_out_of_packing_is_exact_and_gives_the_same(kind: str) -> None:
    torch.manual_seed(8)
    module, x = Gathered(kind).double(), torch.randn(ROWS, TIMES, SIZE, dtype=torch.float64)
    assert torch.allclose(module(x, LENGTHS), Packed.forward(module, x, LENGTHS))
    assert_exact(module, (x, LENGTHS), operations=["linear", name_of(kind)], group=2)
