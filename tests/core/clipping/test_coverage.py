"""Every operation that the engine promises: exact, by capture and rules, and by the rule that is meant."""

from typing import Any

import pytest
import torch
from tests import reference
from tests.core.clipping.settings import ROWS, Setting
from tests.core.clipping.settings_attention import ATTENTION
from tests.core.clipping.settings_operations import OPERATIONS
from tests.core.clipping.settings_structure import STRUCTURES
from tests.core.clipping.test_engine import KEY, TOLERANCE, assert_equal, made
from torch import nn

from clipwise.clipping import ClippingEngine, FlatClip
from clipwise.clipping.batch import as_rows
from clipwise.clipping.capture import capture
from clipwise.clipping.dropout import row_keys

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
