"""The runner as a real process: what it says, what it leaves, how it stops."""

import json
import time
from pathlib import Path
from typing import Any

import dp_accounting
import numpy as np
import pytest
import torch
from dp_accounting.pld import PLDAccountant
from safetensors import safe_open

from clipwise.data.builtin import BUILTINS, write_rows
from clipwise.data.encoding import Encoder
from clipwise.data.rows import RowFile
from clipwise.models import saved
from clipwise.training import split
from clipwise_worker.messages import from_runner
from tests.worker.attempts import PLAIN, PRIVATE, Runner, prepare, run, seconds_since


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("private")
    return folder / "output", run(folder, PRIVATE)


def weights(output: Path) -> dict[str, torch.Tensor]:
    with safe_open(output / saved.WEIGHTS_FILE, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def test_every_message_is_of_the_protocol_and_in_order(private: tuple[Path, list[dict[str, Any]]]) -> None:
    told = private[1]
    for message in told:
        from_runner.validate_python(message)
    phases = [message["phase"] for message in told if message["type"] == "phase"]
    assert phases == ["starting", "loading", "training", "exporting"]
    # Each step is paid for before it runs, and a checkpoint makes it last.
    kept = [m["type"] for m in told if m["type"] not in {"phase", "progress", "metrics"}]
    assert kept == [*["charge", "checkpoint"] * 20, "succeeded"]
    assert told[-1]["type"] == "succeeded"
    progress = [message for message in told if message["type"] == "progress"]
    assert [progress[0]["step"], progress[-1]["step"]] == [0, 20]
    assert [m["epsilon"] for m in progress] == sorted(m["epsilon"] for m in progress)
    assert progress[-1]["epsilon"] == told[-1]["epsilon"]
    for message in told:
        if message["type"] == "metrics" and message["released"]:
            assert set(message["values"]) == {"privacy/epsilon"}


def test_the_statement_is_what_dp_accounting_says(private: tuple[Path, list[dict[str, Any]]]) -> None:
    output, told = private
    said = json.loads((output / "privacy.json").read_text())
    how = said["mechanism"]
    event = dp_accounting.SelfComposedDpEvent(
        dp_accounting.PoissonSampledDpEvent(
            how["sampling_rate"], dp_accounting.GaussianDpEvent(how["noise_multiplier"])
        ),
        how["steps"],
    )
    judge = PLDAccountant(dp_accounting.NeighboringRelation.REPLACE_SPECIAL).compose(event)
    epsilon = judge.get_epsilon(said["guarantee"]["delta"])
    assert said["guarantee"]["epsilon"] == pytest.approx(epsilon, abs=1e-6)
    assert told[-1]["epsilon"] == said["guarantee"]["epsilon"]
    assert (how["steps"], how["noise_multiplier"], how["sensitivity"]) == (20, 1.0, 1.0)
    assert how["clipping"] == {"kind": "flat", "max_norm": 1.0, "schedule": {"kind": "constant"}}


def test_noise_is_calibrated_to_the_joint_sensitivity_of_the_clip_rule(tmp_path: Path) -> None:
    clipping = {"kind": "per_parameter", "max_norm": 0.5, "bound": "each"}
    told = run(tmp_path, {**PRIVATE, "training": {"steps": 2, "batch_size": 64}, "clipping": clipping})
    assert told[-1]["type"] == "succeeded"
    how = json.loads((tmp_path / "output" / "privacy.json").read_text())["mechanism"]
    assert how["clipping"].items() >= clipping.items()
    assert how["sensitivity"] == 1.0  # of four parameters


def test_a_clip_rule_that_does_not_fit_the_model_fails_before_training(tmp_path: Path) -> None:
    group = {"name": "first", "parameters": ["1.*"], "max_norm": 1.0}
    told = run(tmp_path, {**PRIVATE, "clipping": {"kind": "per_group", "groups": [group]}})
    assert (told[-1]["type"], told[-1]["code"]) == ("failed", "validation_failed")
    assert "'3.weight' is in no group" in told[-1]["message"]
    assert not any(message["type"] == "progress" for message in told)


def test_27_the_statement_names_people_who_own_several_rows_whatever_column_they_are_in(
    tmp_path: Path,
) -> None:
    schema = {**BUILTINS["digits"].schema.as_json(), "unit": {"column": None, "max_rows": 3}}
    run(tmp_path, {**PRIVATE, "training": {"steps": 1, "batch_size": 8}}, dataset_schema=schema)
    said = json.loads((tmp_path / "output" / "privacy.json").read_text())
    assert any("several rows (up to 3)" in line for line in said["outside"])


def test_a_private_training_that_diverged_succeeds_with_a_warning(tmp_path: Path) -> None:
    wild = {"learning_rate": 1e6, "weight_decay": 1e6}
    told = run(tmp_path, {**PRIVATE, "optimizer": wild})
    assert told[-1]["type"] == "succeeded"
    assert ["learning_rate" in m["message"] for m in told if m["type"] == "warning"] == [True]


def test_33_the_model_holds_weights_only_and_can_be_loaded(
    private: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    output, told = private
    assert sorted(told[-1]["artifacts"]) == sorted(path.name for path in output.iterdir())
    assert set(weights(output)) == {"1.weight", "1.bias", "3.weight", "3.bias"}
    model = saved.load(output)
    assert not model.module.training
    assert model.classes == tuple("0123456789")
    write_rows("digits", tmp_path / "rows.arrow")
    file = RowFile(tmp_path / "rows.arrow")
    held = split(len(file), 0.2, seed=3)[1]
    inputs, targets = Encoder(BUILTINS["digits"].schema).encode(file.take(held))
    assert inputs.shape[1:] == model.input_shape
    with torch.no_grad():
        guessed = model.module(torch.from_numpy(inputs)).argmax(1).numpy()
    assert np.mean(guessed == targets) == pytest.approx(told[-1]["metrics"]["eval/accuracy"])


def test_18_the_same_seed_twice_has_other_noise_under_privacy_and_the_same_result_without(
    private: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    run(tmp_path / "again", PRIVATE)
    first, second = weights(private[0]), weights(tmp_path / "again" / "output")
    assert all(not torch.equal(first[name], second[name]) for name in first)
    for name in ("a", "b"):
        run(tmp_path / name, PLAIN)
    first, second = (weights(tmp_path / name / "output") for name in ("a", "b"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    said = json.loads((tmp_path / "a" / "output" / "privacy.json").read_text())
    assert said["guarantee"]["kind"] == "none"


def test_a_regression_is_measured_in_its_own_unit(tmp_path: Path) -> None:
    document = {
        **PLAIN,
        "dataset": "diabetes",
        "model": {"kind": "linear"},
        "optimizer": {"learning_rate": 0.05, "modules": [{"kind": "momentum"}]},
        "training": {"steps": 300, "batch_size": 32, "precision": "float64"},
    }
    *_, last = run(tmp_path, document)
    assert last["type"] == "succeeded"
    assert 30 < last["metrics"]["eval/mae"] < 65
    assert last["metrics"]["eval/mae"] < last["metrics"]["eval/rmse"]
    assert saved.load(tmp_path / "output").classes is None


LONG = {
    **PRIVATE,
    "training": {**PRIVATE["training"], "steps": 100_000},
    "privacy": {"noise_multiplier": 100.0, "delta": 1e-4},
    "evaluation": {"fraction": 0.0},
}


def test_a_stop_is_honoured_between_two_steps_and_what_was_spent_is_told_before(tmp_path: Path) -> None:
    prepare(tmp_path, LONG)
    runner = Runner(tmp_path)
    told, asked = [], 0.0
    for message in runner.messages():
        told.append(message)
        if message["type"] == "progress" and message["step"] >= 5 and not asked:
            asked = time.monotonic()
            runner.say('{"type": "stop"}')
    took = seconds_since(asked)
    assert runner.end()[0] == 0
    assert told[-1]["type"] == "stopped"
    last = [message for message in told if message["type"] == "progress"][-1]
    assert last["step"] == told[-1]["step"] >= 5
    assert last["epsilon"] > 0
    assert took < 2.0


def test_a_stop_before_training_ends_it_at_once(tmp_path: Path) -> None:
    prepare(tmp_path, LONG)
    runner = Runner(tmp_path)
    runner.say('{"type": "stop"}')
    told = list(runner.messages())
    assert runner.end()[0] == 0
    assert told[-1] == {"type": "stopped", "step": 0, "charged_steps": None}
    assert not any(message["type"] == "progress" for message in told)


@pytest.mark.parametrize("line", [None, "not json", '{"type": "explode"}'])
def test_it_ends_with_its_supervisor(tmp_path: Path, line: str | None) -> None:
    prepare(tmp_path, LONG)
    runner = Runner(tmp_path)
    for message in runner.messages():
        if message["type"] == "phase" and message["phase"] == "starting":
            break
    assert runner.process.stdin is not None
    if line is None:
        runner.process.stdin.close()
    else:
        runner.say(line)
    assert not any(message["type"] in {"succeeded", "failed", "stopped"} for message in runner.messages())
    assert runner.process.wait(60) == 3


@pytest.mark.parametrize(
    ("document", "changes", "code", "words"),
    [
        (PRIVATE, {"rows": "/nowhere/rows.arrow", "builtin": None}, "dataset_unavailable", "rows"),
        (
            {
                **PLAIN,
                "dataset": "diabetes",
                "model": {"kind": "linear"},
                "optimizer": {"learning_rate": 1e6},
            },
            {},
            "non_finite_loss",
            "learning_rate",
        ),
    ],
)
def test_failures_have_a_reason(
    tmp_path: Path, document: dict[str, Any], changes: dict[str, Any], code: str, words: str
) -> None:
    *_, last = run(tmp_path, {**document, "training": {"steps": 300, "batch_size": 64}}, **changes)
    assert (last["type"], last["code"]) == ("failed", code)
    assert words in last["message"]


def test_a_kind_that_is_not_installed_here_fails_validation(tmp_path: Path) -> None:
    prepare(tmp_path, PRIVATE)
    attempt = tmp_path / "attempt.json"
    assignment = json.loads(attempt.read_text())
    assignment["spec"]["model"] = {"kind": "elsewhere"}
    attempt.write_text(json.dumps(assignment))
    runner = Runner(tmp_path)
    *_, last = runner.messages()
    assert runner.end()[0] == 0
    assert (last["type"], last["code"]) == ("failed", "validation_failed")
    assert "elsewhere" in last["message"]


def test_a_gpu_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    *_, last = run(tmp_path, {**PRIVATE, "resources": {"queue": "gpu", "gpus": 1}})
    assert (last["type"], last["code"]) == ("failed", "validation_failed")
    assert "resources.gpus" in last["message"]
    assert "no CUDA device" in last["message"]
