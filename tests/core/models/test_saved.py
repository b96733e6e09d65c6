"""A model on disk and back."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from clipwise.architectures import MLP
from clipwise.errors import InvalidData, InvalidSpec
from clipwise.models import saved

SCHEMA: dict[str, Any] = {"task": "classification", "classes": ["no", "yes"]}


def save(folder: Path, precision: str = "float32") -> nn.Module:
    architecture = MLP(hidden_sizes=(3,), dropout=0.5)
    module = architecture.build((4,), 2).to(saved.DTYPES[precision])
    saved.save(
        module,
        folder,
        model={"kind": "mlp", "hidden_sizes": [3], "dropout": 0.5},
        input_shape=(4,),
        outputs=2,
        precision=precision,
        schema=SCHEMA,
    )
    return module


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_loaded_model_gives_the_same_outputs(tmp_path: Path, precision: str) -> None:
    module = save(tmp_path, precision).eval()
    loaded = saved.load(tmp_path)
    inputs = torch.rand(5, *loaded.input_shape, dtype=saved.DTYPES[precision])
    assert torch.equal(loaded.module(inputs), module(inputs))
    assert loaded.classes == ("no", "yes")


def test_33_the_weights_file_holds_nothing_but_parameters_and_buffers(tmp_path: Path) -> None:
    module = save(tmp_path)
    assert set(load_file(tmp_path / saved.WEIGHTS_FILE)) == set(module.state_dict())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=saved.CONFIG_FILE):
        saved.load(tmp_path)
    save(tmp_path)
    (tmp_path / saved.WEIGHTS_FILE).write_bytes(b"not weights")
    with pytest.raises(InvalidData, match=saved.WEIGHTS_FILE):
        saved.load(tmp_path)


@pytest.mark.parametrize("change", ["missing", "foreign", "shape"])
def test_weights_of_another_model_are_refused(tmp_path: Path, change: str) -> None:
    save(tmp_path)
    path = tmp_path / saved.WEIGHTS_FILE
    weights = load_file(path)
    if change == "missing":
        del weights["1.bias"]
    elif change == "foreign":
        weights["9.bias"] = torch.zeros(1)
    else:
        weights["1.bias"] = torch.zeros(7)
    save_file(weights, path)
    with pytest.raises(InvalidData, match="does not fit"):
        saved.load(tmp_path)


def test_a_configuration_of_another_kind_or_format_is_refused(tmp_path: Path) -> None:
    save(tmp_path)
    path = tmp_path / saved.CONFIG_FILE
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "model": {"kind": "elsewhere"}}))
    with pytest.raises(InvalidSpec, match="elsewhere"):
        saved.load(tmp_path)
    path.write_text(json.dumps({**config, "format": "another/1"}))
    with pytest.raises(InvalidData, match="format"):
        saved.load(tmp_path)
