import json
import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from clipwise import plugins
from clipwise.architectures import ARCHITECTURES, Architecture, kinds
from clipwise.errors import InvalidSpec
from clipwise.models import TorchModel

CONFIGS: tuple[tuple[dict[str, Any], tuple[int, ...], int], ...] = (
    ({"kind": "logistic"}, (30,), 2),
    ({"kind": "logistic", "bias": False}, (3, 4, 5), 7),
    ({"kind": "linear"}, (10,), 1),
    ({"kind": "mlp"}, (64,), 10),
    ({"kind": "mlp", "hidden_sizes": [7, 5, 3], "activation": "gelu", "dropout": 0.25}, (1, 8, 8), 3),
    ({"kind": "mlp", "hidden_sizes": []}, (4,), 1),
    ({"kind": "cnn"}, (1, 8, 8), 10),
    ({"kind": "cnn", "channels": [6, 12, 9], "kernel_size": 5, "activation": "silu"}, (3, 17, 9), 4),
    ({"kind": "cnn", "channels": [5], "kernel_size": 1, "hidden_size": 11}, (2, 2, 3), 1),
)


def construct(config: dict[str, Any]) -> Architecture:
    made: Architecture = plugins.construct(kinds(), config, what="model")
    return made


@pytest.mark.parametrize(("config", "shape", "outputs"), CONFIGS)
def test_a_built_module_has_the_counted_parameters_and_takes_a_clipped_step(
    config: dict[str, Any], shape: tuple[int, ...], outputs: int
) -> None:
    architecture = construct(config)
    architecture.check(shape, outputs)
    module = architecture.build(shape, outputs)
    assert architecture.parameters(shape, outputs) == sum(p.numel() for p in module.parameters())
    inputs = torch.randn(5, *shape)
    assert module(inputs).shape == (5, outputs)
    model = TorchModel(module, "mse")
    batch = (inputs, torch.randn(5, outputs))
    model.probe_independence(batch)
    assert float(model.compute_batch_gradients(batch, 0.5).sample_norms.min()) > 0


@pytest.mark.parametrize(("config", "shape", "outputs"), CONFIGS)
def test_json_round_trip_and_schema(config: dict[str, Any], shape: tuple[int, ...], outputs: int) -> None:
    architecture = construct(config)
    text = json.dumps(plugins.as_json(architecture))
    assert text.startswith(f'{{"kind": "{config["kind"]}"')
    assert construct(json.loads(text)) == architecture
    schema = plugins.json_schema(type(architecture))
    assert schema["description"]
    assert schema["additionalProperties"] is False
    assert set(json.loads(text)) == set(schema["properties"])


def test_every_kind_is_its_own_key_and_file_and_has_a_task() -> None:
    assert {config["kind"] for config, _, _ in CONFIGS} == set(ARCHITECTURES)
    for kind, cls in ARCHITECTURES.items():
        assert cls.__module__ == f"clipwise.architectures.{kind}"
        assert set(cls.tasks) <= {"classification", "regression"}
        assert cls.tasks


@pytest.mark.parametrize(
    ("config", "shape", "pointer", "way_out"),
    [
        ({"kind": "cnn"}, (64,), "/kind", "use 'mlp'"),
        ({"kind": "cnn", "channels": [4, 4, 4, 4]}, (1, 8, 8), "/channels", "at most 3 channels"),
        ({"kind": "mlp", "hidden_sizes": [16384] * 6}, (64,), "/hidden_sizes", "make hidden_sizes smaller"),
        (
            {"kind": "cnn", "channels": [4096] * 3, "kernel_size": 7},
            (1, 8, 8),
            "/channels",
            "make channels",
        ),
        ({"kind": "logistic"}, (200_000_000,), "", "fewer features"),
    ],
)
def test_what_does_not_fit_the_data_is_refused(
    config: dict[str, Any], shape: tuple[int, ...], pointer: str, way_out: str
) -> None:
    with pytest.raises(InvalidSpec) as caught:
        construct(config).check(shape, 10)
    assert [problem.pointer for problem in caught.value.problems] == [pointer]
    assert way_out in caught.value.detail


@pytest.mark.parametrize(
    ("config", "location"),
    [
        ({"kind": "mlp", "hidden_sizes": [0]}, ("hidden_sizes", 0)),
        ({"kind": "mlp", "hidden_sizes": [128.0]}, ("hidden_sizes", 0)),
        ({"kind": "mlp", "hidden_sizes": [10**9]}, ("hidden_sizes", 0)),
        ({"kind": "mlp", "hidden_sizes": [8] * 33}, ("hidden_sizes",)),
        ({"kind": "mlp", "hidden_sizes": 128}, ("hidden_sizes",)),
        ({"kind": "mlp", "activation": "softmax"}, ("activation",)),
        ({"kind": "mlp", "dropout": 1.0}, ("dropout",)),
        ({"kind": "mlp", "dropout": math.nan}, ("dropout",)),
        ({"kind": "mlp", "hidden": [1]}, ("hidden",)),
        ({"kind": "cnn", "channels": []}, ("channels",)),
        ({"kind": "cnn", "kernel_size": 4}, ("kernel_size",)),
        ({"kind": "cnn", "hidden_size": 0}, ("hidden_size",)),
        ({"kind": "logistic", "bias": "yes"}, ("bias",)),
    ],
)
def test_bad_values_are_named(config: dict[str, Any], location: tuple[str | int, ...]) -> None:
    with pytest.raises(ValidationError) as caught:
        construct(config)
    assert [error["loc"] for error in caught.value.errors()] == [location]


def test_an_unknown_kind_says_which_are_known() -> None:
    with pytest.raises(InvalidSpec) as caught:
        construct({"kind": "transformer"})
    assert "known: cnn, linear, logistic, mlp" in caught.value.problems[0].detail
