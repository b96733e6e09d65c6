import contextlib
import io
import re

import pytest
import torch
from tests.conftest import ROOT
from tests.core.clipping.settings import SETTINGS, Setting
from tests.core.clipping.test_coverage import COVERAGE
from tests.core.clipping.test_engine import made
from tests.core.clipping.test_transformers import MODELS
from torch import Tensor, nn

from clipwise.clipping import explain
from clipwise.clipping.parameters import trained_tensors
from clipwise.models import TorchModel


class Mixture(nn.Module):
    """A table, a weight made of two parameters, a wide layer at many positions, and one that no row meets."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 4)
        self.wide = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
        self.idle = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.logsumexp(self.wide(self.table(x)), -1)


def test_every_meeting_is_a_line_of_the_table() -> None:
    module = Mixture()
    found = TorchModel(module, "mse").explain((torch.randint(11, (5, 7)), torch.zeros(5, 7)))
    assert found.whole_model == ""
    assert [(line.operation, line.parameters, line.rule) for line in found.lines] == [
        ("embedding", ("table.weight",), "embedding"),
        (
            "linear",
            ("wide.parametrizations.weight.original0", "wide.parametrizations.weight.original1"),
            "linear",
        ),
        ("linear", ("wide.bias",), "linear"),
    ]
    assert found.unmet == ("idle.weight", "idle.bias")
    assert all(line.memory > 0 and line.cost > 0 for line in found.lines)
    text = str(found)
    assert "rows of the table" in text
    assert "idle.weight" in text


def test_the_path_is_what_the_cost_model_says() -> None:
    few, many, one = ((torch.randn(2, n, 256), torch.zeros(2, n, 512)) for n in (4, 600, 1))
    module = nn.Linear(256, 512, bias=False)
    (line,) = explain(module, "mse", few).lines
    assert line.path == "gram"
    assert "gram costs" in line.why
    (line,) = explain(module, "mse", many).lines
    assert line.path == "instantiated"
    assert "not precise enough" in line.why
    (line,) = explain(module, "mse", one).lines
    assert line.path == "product of norms"


def test_an_operation_without_a_rule_says_so() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.randn(3))

        def forward(self, x: Tensor) -> Tensor:
            return torch.atan2(x, self.scale)

    (line,) = explain(Odd(), "mse", (torch.randn(4, 3), torch.zeros(4, 3))).lines
    assert (line.operation, line.rule) == ("atan2", "any operation")
    assert "no rule" in line.why


def test_a_model_that_is_taken_as_a_whole_says_why() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.randn(3))

        def forward(self, x: Tensor) -> Tensor:
            return torch.vmap(lambda row: row * self.scale)(x)

    found = explain(Model(), "mse", (torch.randn(4, 3), torch.zeros(4, 3)))
    assert "nested vmap" in found.whole_model
    assert "the whole model" in str(found)


def test_nothing_is_changed_by_looking() -> None:
    setting = next(setting for setting in SETTINGS if setting.name == "dropout_training")
    module = setting.module()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    torch.manual_seed(5)
    state = torch.get_rng_state()
    explain(module, setting.loss, (setting.inputs(), setting.targets()))
    torch.set_rng_state(state)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())


def test_the_guide_to_the_engine_runs_and_says_what_it_shows() -> None:
    guide = (ROOT / "docs" / "engine.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, {})
    rows, head, *lines = printed.getvalue().splitlines()
    assert 1 < int(rows) < 64
    assert head.split() == ["operation", "parameters", "rule", "path", "why", "cost", "memory"]
    assert [line.split()[:2] for line in lines] == [["linear", "weight"], ["linear", "bias"]]


@pytest.mark.parametrize("setting", [*SETTINGS, *COVERAGE, *MODELS], ids=lambda setting: setting.name)
def test_nothing_that_is_promised_is_taken_as_a_whole(setting: Setting) -> None:
    module, (inputs, targets, _) = made(setting, torch.float32)
    found = explain(module, setting.loss, (inputs, targets))
    assert found.whole_model == ""
    assert {line.operation for line in found.lines if line.rule == "any operation"} <= setting.without_rule
    trained = trained_tensors(module)[0].keys()
    assert {name for line in found.lines for name in line.parameters} | set(found.unmet) == trained
    assert found.lines
