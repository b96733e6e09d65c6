"""A package that adds a model kind, really built, installed and used."""

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest

from clipwise import plugins
from clipwise.configuration import PositiveFloat, configuration
from clipwise.errors import ConfigurationError, InvalidSpec
from clipwise.jobs import spec
from clipwise.optim import Optimizer

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "residual_mlp"
USE = """
import json, sys
from clipwise import architectures, plugins
kinds = architectures.kinds()
before = "torch" in sys.modules
made = plugins.construct(kinds, {"kind": "residual_mlp", "width": 16, "blocks": 3}, what="model")
made.check((8,), 4)
from clipwise.jobs import spec
document = {"dataset": "digits", "model": {"kind": "residual_mlp"}, "training": {"steps": 1}}
parsed = spec.parse(document).model
loaded = before or "torch" in sys.modules
import torch
from clipwise.models import TorchModel
from clipwise.optim import Optimizer
module = made.build((8,), 4)
model = TorchModel(module, "cross_entropy")
batch = (torch.randn(6, 8), torch.tensor([0, 1, 2, 3, 0, 1]))
model.probe_independence(batch)
found = Optimizer(0.1).run_train_step(model, batch, sclip=0.5)
print(json.dumps({
    "kinds": sorted(kinds),
    "json": plugins.as_json(made),
    "parsed": parsed,
    "loaded_torch": loaded,
    "counted": made.parameters((8,), 4),
    "built": sum(p.numel() for p in module.parameters()),
    "largest": float((found.sample_norms * found.clip_factors).max()),
}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder into which the example package was built and installed."""
    folder = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(EXAMPLE, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    target = folder / "target"
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--quiet",
    ]
    done = subprocess.run([*command, "--target", target, source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


def test_an_installed_package_adds_a_kind_that_trains(installed: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", USE], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["kinds"] == ["cnn", "linear", "logistic", "mlp", "residual_mlp"]
    assert seen["json"] == {"kind": "residual_mlp", "width": 16, "blocks": 3}
    assert seen["parsed"] == {"kind": "residual_mlp", "width": 64, "blocks": 2}
    assert seen["loaded_torch"] is False
    assert seen["counted"] == seen["built"]
    assert 0 < seen["largest"] <= 0.5 * (1 + 1e-6)


def entry(name: str, value: str) -> EntryPoint:
    return EntryPoint(name=name, value=value, group="clipwise.architectures")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([entry("x", "json:loads"), entry("x", "json:dumps")], "two installed packages"),
        ([entry("x", "no_such_package:X")], "'x' of no_such_package:X cannot be imported"),
    ],
)
def test_packages_that_cannot_be_used_are_named(
    monkeypatch: pytest.MonkeyPatch, entries: list[EntryPoint], message: str
) -> None:
    monkeypatch.setattr(plugins, "entry_points", lambda **_: entries)
    plugins.installed.cache_clear()
    try:
        with pytest.raises(ConfigurationError, match=message):
            plugins.installed("clipwise.architectures")
    finally:
        plugins.installed.cache_clear()


@configuration
class Halving:
    """An optimizer module of somebody else."""

    kind: Literal["halving"] = "halving"
    factor: PositiveFloat = 0.5

    def init(self, params: Any) -> dict[str, Any]:  # noqa: ARG002
        return {}

    def update(
        self,
        state: Any,
        updates: Any,
        params: Any,  # noqa: ARG002
        out: Any = None,  # noqa: ARG002
    ) -> tuple[Any, Any]:
        return updates * self.factor, state


def test_an_installed_optimizer_module_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    value = f"{__name__}:Halving"
    monkeypatch.setattr(
        plugins,
        "entry_points",
        lambda group: [EntryPoint(name="halving", value=value, group=group)] if "optimizer" in group else [],
    )
    monkeypatch.setitem(sys.modules, __name__, SimpleNamespace(Halving=Halving))
    plugins.installed.cache_clear()
    try:
        document = {
            "dataset": "digits",
            "model": {"kind": "mlp"},
            "training": {"steps": 1},
            "optimizer": {"modules": [{"kind": "halving"}, {"kind": "momentum"}]},
        }
        parsed = spec.parse(document)
        assert parsed.as_json()["optimizer"]["modules"][0] == {"kind": "halving", "factor": 0.5}
        assert spec.parse(parsed.as_json()) == parsed
        optimizer = Optimizer(1.0, modules=parsed.optimizer.modules[:1])
        model = SimpleNamespace(parameters={"a": np.zeros(2)})
        updates = optimizer.compute_updates_from_gradients(model, SimpleNamespace(values={"a": np.ones(2)}))
        assert updates["a"].tolist() == [-0.5, -0.5]
    finally:
        plugins.installed.cache_clear()


@pytest.mark.parametrize("config", [None, [], "mlp", {}, {"kind": 3}])
def test_what_names_no_kind_is_an_error_at_the_kind(config: Any) -> None:
    with pytest.raises(InvalidSpec, match="a model is an object with a 'kind'") as caught:
        plugins.construct({"mlp": dict}, config, what="model")
    assert caught.value.problems[0].pointer == "/kind"
