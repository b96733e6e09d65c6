"""Programs of `torch.export`: as exact as the module that they come from, by the same rules."""

import pytest
import torch
from tests import reference
from tests.core.clipping.settings import ROWS, Setting, Tied, floats, integers, uneven
from tests.core.clipping.settings_attention import LENGTH, WIDTH, Attending, encoder
from tests.core.clipping.test_engine import KEY, made
from torch import Tensor, nn

from clipwise.clipping import ClippingEngine, FlatClip
from clipwise.clipping.batch import as_rows
from clipwise.clipping.capture import capture
from clipwise.clipping.dropout import row_keys


class Convolved(nn.Module):
    """A small image classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.GroupNorm(2, 4)
        self.dropout, self.head = nn.Dropout(0.3), nn.Linear(100, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(torch.relu(self.norm(self.convolution(x)))).flatten(1))


class Looked(nn.Module):
    """A table, a scale and a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.norm = nn.Embedding(9, 4, padding_idx=0), nn.LayerNorm(4)
        self.scale = nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.scale, self.norm(self.table(x) * self.scale).mean(1), self.table.weight[:4])


class Recurring(nn.Module):
    """The last state of an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0][:, -1]


EXPORTED = (
    Setting(
        name="layers",
        module=lambda: nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 2)),
        inputs=floats(5),
    ),
    Setting(name="convolved", module=Convolved, inputs=floats(2, 5, 5)),
    Setting(name="looked_up", module=Looked, inputs=integers(9, 5)),
    Setting(name="tied", module=Tied, inputs=integers(7, 3)),
    Setting(name="recurring", module=Recurring, inputs=floats(4, 5)),
    Setting(name="attending", module=Attending, inputs=floats(LENGTH, WIDTH)),
    Setting(name="encoder", module=lambda: encoder(dropout=0.0), inputs=floats(LENGTH, WIDTH)),
    Setting(name="encoder_evaluated", module=encoder, inputs=floats(LENGTH, WIDTH), training=False),
)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("decomposed", [False, True])
@pytest.mark.parametrize("setting", EXPORTED, ids=lambda setting: setting.name)
def test_an_exported_program_is_exact(setting: Setting, decomposed: bool) -> None:
    module, batch = made(setting, torch.float64)
    rows = {0: torch.export.Dim("rows")}
    program = torch.export.export(module, (batch[0],), dynamic_shapes=(rows,))
    if decomposed:
        if setting.name == "convolved":
            return  # native_dropout, which decomposing makes of dropout, draws from torch's generator
        program = program.run_decompositions()
    exported = program.module()
    expected, norms = reference.clipped_sum(module, uneven, batch, 0.1, key=KEY)
    engine = ClippingEngine(exported, uneven, microbatch_size=4)
    found = engine.clipped_sum(as_rows(batch), FlatClip(max_norm=0.1), key=KEY)
    assert engine.whole_model == {}
    assert reference.relative_error(found.norms, norms) <= 1e-10
    for name, value in expected.items():
        assert reference.relative_error(found.values[name], value) <= 1e-10, name


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("setting", EXPORTED, ids=lambda setting: setting.name)
def test_an_exported_program_is_taken_by_closed_forms(setting: Setting) -> None:
    module, batch = made(setting, torch.float64)
    rows = {0: torch.export.Dim("rows")}
    exported = torch.export.export(module, (batch[0],), dynamic_shapes=(rows,)).module()
    records = capture(exported, uneven, as_rows(batch), row_keys(KEY, ROWS)).records
    assert records
    assert {record.operation for record in records if record.rule.name == "any operation"} == set()
