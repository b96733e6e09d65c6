import math
from typing import Any

import numpy as np
import pytest
import torch

from clipwise.errors import InvalidInput
from clipwise.schedules import ClipRule, ConstantClip, FlatClip, as_clip_rule


@pytest.mark.parametrize("array", [np.array, torch.tensor])
def test_flat_factors_keep_short_gradients_and_scale_long_ones(array: Any) -> None:
    factors = FlatClip(max_norm=0.3).factors(array([0.0, 0.1, 0.3, 3.0]))
    assert [float(factor) for factor in factors[:3]] == [1.0, 1.0, 1.0]
    assert float(factors[3]) == pytest.approx(0.1)


def test_a_rule_states_its_sensitivity() -> None:
    assert isinstance(FlatClip(max_norm=2.0), ClipRule)
    assert FlatClip(max_norm=2.0).sensitivity == 2.0


def test_the_constant_schedule_gives_one_rule_at_every_step() -> None:
    rule = FlatClip(max_norm=2.0)
    assert ConstantClip().rule(0, 2.0) == ConstantClip().rule(99, 2.0) == rule
    assert ConstantClip().rule(3, rule) is rule


@pytest.mark.parametrize("bad", [0, -1, math.nan, math.inf, True, "1", 1e13, FlatClip])
def test_what_is_no_bound_is_an_error(bad: Any) -> None:
    with pytest.raises(InvalidInput, match="max_norm"):
        as_clip_rule(bad)


def test_a_rule_without_a_finite_sensitivity_is_an_error() -> None:
    class Unbounded:
        sensitivity = math.inf

        def factors(self, norms: Any) -> Any:
            return norms

    with pytest.raises(InvalidInput, match="sensitivity of inf"):
        as_clip_rule(Unbounded())
