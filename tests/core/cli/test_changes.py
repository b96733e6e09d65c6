"""The patch of a clone, from a file and from `--set`."""

import json
from pathlib import Path
from typing import Any

import pytest

from clipwise.cli.changes import read_changes
from clipwise.cli.failures import WrongUsage


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        ([], {}),
        (["training.steps=500"], {"training": {"steps": 500}}),
        (["training.steps=null", "training.epochs=2.5"], {"training": {"steps": None, "epochs": 2.5}}),
        (['name="a = b"', "privacy=null"], {"name": "a = b", "privacy": None}),
        (['/tags/a.b~1c="x"'], {"tags": {"a.b/c": "x"}}),
        (['optimizer.modules=[{"kind": "momentum"}]'], {"optimizer": {"modules": [{"kind": "momentum"}]}}),
        (['training={"steps": 1}', "training.seed=7"], {"training": {"steps": 1, "seed": 7}}),
    ],
)
def test_settings_become_a_patch(settings: list[str], changes: dict[str, Any]) -> None:
    assert read_changes(None, settings) == changes


def test_settings_are_written_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "changes.json"
    file.write_text(json.dumps({"training": {"steps": 1, "seed": 2}, "name": None}))
    assert read_changes(str(file), ["training.steps=9"]) == {
        "training": {"steps": 9, "seed": 2},
        "name": None,
    }


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["training.steps"], "PATH=VALUE"),
        (["=1"], "PATH=VALUE"),
        (["name=again"], "--set 'name=\"again\"'"),
        (["training.steps=NaN"], "is not JSON"),
        (["training..steps=1"], "a part of the path is empty"),
        (["training=1", "training.steps=2"], "'training' is set to something else already"),
    ],
)
def test_what_is_no_setting_is_named(settings: list[str], said: str) -> None:
    with pytest.raises(WrongUsage) as raised:
        read_changes(None, settings)
    assert said in raised.value.format_message()
