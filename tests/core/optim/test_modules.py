import json
import math
from typing import Any

import pytest
from pydantic import ValidationError

from clipwise import plugins
from clipwise.optim.modules import MODULES, NOISE_KINDS, Adam, GaussianNoise, L2Clipping, Momentum, kinds

EXAMPLES: tuple[Any, ...] = (
    Adam(beta_1=0.5, beta_2=0.25, eps=1e-3),
    GaussianNoise(std=2.0),
    L2Clipping(max_norm=3.0),
    Momentum(beta=0.75, nesterov=True),
)


def test_every_kind_is_its_own_key_and_file() -> None:
    assert {type(example) for example in EXAMPLES} == set(MODULES.values())
    for kind, cls in MODULES.items():
        assert cls.__module__ == f"clipwise.optim.modules.{kind}"
        assert cls.__name__.lower() == kind.replace("_", "")
        assert kinds()[kind] is cls
    assert set(MODULES) >= NOISE_KINDS


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.kind)
def test_json_round_trip(example: Any) -> None:
    text = json.dumps(plugins.as_json(example))
    assert text.startswith(f'{{"kind": "{example.kind}"')
    assert plugins.construct(kinds(), json.loads(text), what="optimizer module") == example


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"kind": "l2_clipping", "max_norm": 0}, "max_norm"),
        ({"kind": "l2_clipping", "max_norm": -1.0}, "max_norm"),
        ({"kind": "l2_clipping", "max_norm": math.inf}, "max_norm"),
        ({"kind": "l2_clipping", "max_norm": "1"}, "max_norm"),
        ({"kind": "l2_clipping"}, "max_norm"),
        ({"kind": "gaussian_noise", "std": math.nan}, "std"),
        ({"kind": "momentum", "beta": 1.0}, "beta"),
        ({"kind": "momentum", "beta": True}, "beta"),
        ({"kind": "momentum", "nesterov": 1}, "nesterov"),
        ({"kind": "adam", "eps": 0.0}, "eps"),
        ({"kind": "adam", "beta_2": -0.1}, "beta_2"),
        ({"kind": "adam", "beta": 0.1}, "beta"),
    ],
)
def test_bad_values_are_named(config: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        plugins.construct(kinds(), config, what="optimizer module")
    assert [error["loc"] for error in caught.value.errors()] == [(field,)]


def test_modules_are_frozen() -> None:
    with pytest.raises(AttributeError, match="beta"):
        Momentum().beta = 0.1  # type: ignore[misc]
