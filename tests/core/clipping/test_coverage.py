"""Every operation that the engine promises: exact, by capture and rules, and by the rule that is meant."""

from typing import Any

import pytest
import torch
from tests import reference
from tests.core.clipping.settings import ROWS, Setting, uneven
from tests.core.clipping.settings_attention import ATTENTION
from tests.core.clipping.settings_operations import OPERATIONS
from tests.core.clipping.settings_structure import STRUCTURES
from tests.core.clipping.test_engine import KEY, TOLERANCE, assert_equal, made
from torch import nn

from clipwise.clipping import ClippingEngine, FlatClip
from clipwise.clipping.batch import as_rows
from clipwise.clipping.capture import capture
from clipwise.clipping.dropout import row_keys
from clipwise.errors import ClipwiseError

COVERAGE = (*OPERATIONS, *ATTENTION, *STRUCTURES)


def assert_exact(
    setting: Setting, module: nn.Module, batch: Any, tolerance: float, *, group: int = 1, **more: Any
) -> None:
    """Compare with the oracle, some rows scaled and some not; nothing may leave the capture path."""
    _, norms = reference.clipped_sum(module, setting.loss, batch, None, group=group, key=KEY)
    bound = max(float(norms.median()), 1e-3)
    expected = reference.clipped_sum(module, setting.loss, batch, bound, group=group, key=KEY)
    engine = ClippingEngine(module, setting.loss, **more)
    found = engine.clipped_sum(as_rows(batch), FlatClip(max_norm=bound), group=group, key=KEY)
    assert engine.whole_model == {}
    assert_equal(found, expected, tolerance)
    assert float(norms.max()) > 0


settings = pytest.mark.parametrize("setting", COVERAGE, ids=lambda setting: setting.name)


@settings
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_exact(setting: Setting, dtype: torch.dtype) -> None:
    module, batch = made(setting, dtype)
    assert_exact(setting, module, batch, TOLERANCE[dtype])


@settings
def test_exact_in_microbatches(setting: Setting) -> None:
    module, batch = made(setting, torch.float64)
    assert_exact(setting, module, batch, 1e-10, microbatch_size=4)


@settings
def test_exact_for_groups_of_rows(setting: Setting) -> None:
    module, batch = made(setting, torch.float64, torch.tensor([1.0, 0.5, 2.0, 1.0, 1.0, 0.0]))
    assert_exact(setting, module, batch, 1e-10, group=3, microbatch_size=3)


several = pytest.mark.parametrize(
    "setting",
    [setting for setting in COVERAGE if len(list(setting.module().parameters())) > 1],
    ids=lambda setting: setting.name,
)


@several
@pytest.mark.parametrize("part", [0, 1])
def test_exact_with_every_other_parameter_frozen(setting: Setting, part: int) -> None:
    module, batch = made(setting, torch.float64)
    for parameter in list(module.parameters())[part::2]:
        parameter.requires_grad_(False)
    assert_exact(setting, module, batch, 1e-10)


@settings
def test_taken_by_the_rule_that_is_meant(setting: Setting) -> None:
    module, batch = made(setting, torch.float64)
    rows = as_rows(batch)
    records = capture(module, setting.loss, rows, row_keys(KEY, ROWS)).records
    found = {record.operation for record in records if record.rule.name == "any operation"}
    assert records
    assert found <= setting.without_rule


@pytest.mark.parametrize("size", [None, 1, 4])
@pytest.mark.parametrize("norm", [nn.utils.parametrizations.spectral_norm, nn.utils.spectral_norm])
def test_spectral_norm_in_training_uses_one_power_iteration_for_all_rows(norm: Any, size: int | None) -> None:
    torch.manual_seed(5)
    module = norm(nn.Linear(5, 4)).double()
    batch = (torch.randn(ROWS, 5).double(), torch.zeros(ROWS), torch.ones(ROWS).double())
    iterated = norm(nn.Linear(5, 4)).double()
    iterated.load_state_dict(module.state_dict())
    iterated(batch[0])
    expected = reference.clipped_sum(iterated.eval(), uneven, batch, 0.05)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    engine = ClippingEngine(module, uneven, microbatch_size=size)
    assert_equal(engine.clipped_sum(as_rows(batch), FlatClip(max_norm=0.05)), expected, 1e-10)
    assert engine.whole_model == {}
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_of_offsets_are_refused_and_bags_of_rows_are_the_way_out(mode: str) -> None:
    bag = nn.EmbeddingBag(9, 4, mode=mode)
    indices, offsets = torch.randint(9, (10,)), torch.tensor([0, 3, 5, 5, 8])
    for inputs, message in (((indices, offsets), "5 rows"), ((indices[:5], offsets), "padding_idx")):
        with pytest.raises(ClipwiseError, match=message):
            ClippingEngine(bag, uneven).clipped_sum(as_rows((inputs, torch.zeros(5))), None)
    rows = torch.nn.utils.rnn.pad_sequence(
        indices.tensor_split(offsets[1:]), batch_first=True, padding_value=9
    )
    padded = nn.EmbeddingBag(10, 4, mode=mode, padding_idx=9)
    with torch.no_grad():
        padded.weight[:9] = bag.weight
    found = ClippingEngine(padded, uneven).clipped_sum(as_rows((rows, torch.zeros(5))), None).values["weight"]
    (expected,) = torch.autograd.grad(uneven(bag(indices, offsets), torch.zeros(5)).sum(), [bag.weight])
    assert reference.relative_error(found[:9], expected) < 1e-6
    assert not found[9].any()
