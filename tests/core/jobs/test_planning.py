"""The plan: public numbers, what does not fit, and nothing heavy imported."""

import copy
import subprocess
import sys
from typing import Any

import pytest

from clipwise.data.builtin import BUILTINS
from clipwise.data.schema import DatasetSchema
from clipwise.errors import InvalidSpec
from clipwise.jobs import planning
from clipwise.jobs.spec import parse
from clipwise.privacy import accountant, settle

DIGITS = BUILTINS["digits"].schema
DIABETES = BUILTINS["diabetes"].schema
EXAMPLE: dict[str, Any] = {
    "dataset": "digits",
    "model": {"kind": "mlp", "hidden_sizes": [128]},
    "training": {"steps": 300, "batch_size": 128},
    "clipping": {"max_norm": 1.0},
    "privacy": {"target_epsilon": 3.0, "delta": 1e-4},
    "evaluation": {"fraction": 0.2},
}


def document(changes: dict[str, Any]) -> dict[str, Any]:
    changed = copy.deepcopy(EXAMPLE)
    for pointer, value in changes.items():
        *parents, last = pointer.split("/")
        place = changed
        for parent in parents:
            place = place[parent]
        if value is None and last in place and last != "privacy":
            del place[last]
        else:
            place[last] = value
    return changed


def outline(changes: dict[str, Any], schema: DatasetSchema = DIGITS, **more: Any) -> planning.Outline:
    return planning.outline(parse(document(changes)), schema, **more)


def test_the_plan_of_the_example() -> None:
    plan = planning.plan_job(parse(EXAMPLE), DIGITS)
    assert plan.training_size == 1437
    assert plan.sampling_rate == 128 / 1437
    assert (plan.steps, plan.expected_batch_size, plan.delta) == (300, 128.0, 1e-4)
    assert plan.parameters == 64 * 128 + 128 + 128 * 10 + 10
    assert plan.noise_multiplier is not None
    assert plan.epsilon == accountant.epsilon(
        noise_multiplier=plan.noise_multiplier, sampling_rate=128 / 1437, steps=300, delta=1e-4
    )
    assert 2.985 <= plan.epsilon <= 3.0
    assert plan.epsilon_curve is not None
    assert (plan.epsilon_curve.step[-1], plan.epsilon_curve.value[-1]) == (300, plan.epsilon)
    assert plan.memory_bytes is not None
    assert 100e6 < plan.memory_bytes < 2e9
    assert plan.warnings == []
    assert type(plan).model_validate_json(plan.model_dump_json()) == plan


def test_a_noise_multiplier_is_taken_as_it_is() -> None:
    drawn = outline({"privacy": {"noise_multiplier": 1.5, "delta": 1e-4}})
    assert drawn.noise is not None
    plan = planning.complete(drawn, settle(drawn.noise))
    assert plan.noise_multiplier == 1.5
    assert plan.epsilon is not None


def test_without_privacy_there_is_no_noise_to_settle() -> None:
    drawn = outline({"privacy": None})
    assert drawn.noise is None
    plan = planning.complete(drawn, None)
    assert (plan.epsilon, plan.delta, plan.noise_multiplier, plan.epsilon_curve) == (None, None, None, None)
    with pytest.raises(ValueError, match="calibration"):
        planning.complete(outline({}), None)


@pytest.mark.parametrize(("epochs", "steps"), [(1.0, 12), (0.001, 1), (10.0, 113), (100.0, 1123)])
def test_epochs_become_steps(epochs: float, steps: int) -> None:
    assert outline({"training": {"epochs": epochs, "batch_size": 128}}).steps == steps


@pytest.mark.parametrize(
    ("changes", "pointer", "words"),
    [
        ({"training/batch_size": 1438}, "/training/batch_size", "1437"),
        ({"model": {"kind": "linear"}}, "/model/kind", "classification"),
        ({"model": {"kind": "resnet"}}, "/model/kind", "mlp"),
        ({"model": {"kind": "mlp", "hidden_sizes": [16384] * 8}}, "/model/hidden_sizes", "parameters"),
        ({"evaluation/fraction": 0.9999}, "/evaluation/fraction", "held out"),
        ({"privacy/delta": 1e-11}, "/privacy/delta", "1e-10"),
        ({"clipping/max_norm": 1e-31}, "/clipping/max_norm", "1e-30"),
        (
            {
                "clipping": {
                    "kind": "per_group",
                    "groups": [{"name": "a", "parameters": ["*"], "max_norm": 1e-31}],
                }
            },
            "/clipping/groups/0/max_norm",
            "1e-30",
        ),
        ({"training": {"epochs": 99_999.0, "batch_size": 1}}, "/training/epochs", "steps"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], pointer: str, words: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        outline(changes)
    assert pointer in [problem.pointer for problem in caught.value.problems]
    assert words in caught.value.detail


@pytest.mark.parametrize("bound", ["joint", "each"])
def test_a_bound_of_each_parameter_is_said_to_raise_the_noise(bound: str) -> None:
    clipping = {"kind": "per_parameter", "max_norm": 0.5, "bound": bound}
    said = any("up to 0.5 times the root" in line for line in outline({"clipping": clipping}).warnings)
    assert said == (bound == "each")


def test_every_field_that_does_not_fit_is_named_at_once() -> None:
    with pytest.raises(InvalidSpec) as caught:
        outline({"training/batch_size": 5000, "model": {"kind": "linear"}, "privacy/delta": 1e-12})
    assert {problem.pointer for problem in caught.value.problems} == {
        "/training/batch_size",
        "/model/kind",
        "/privacy/delta",
    }


def test_a_kind_that_only_workers_have_is_planned_without_its_parameters() -> None:
    drawn = outline({"model": {"kind": "resnet", "depth": 3}}, model_kinds={"resnet"})
    assert drawn.parameters is None
    with pytest.raises(InvalidSpec, match="no worker has"):
        outline({"model": {"kind": "resnet"}}, model_kinds={"vit"})


def test_a_regression_takes_a_linear_model() -> None:
    drawn = outline({"model": {"kind": "linear"}, "training/batch_size": 32}, DIABETES)
    assert drawn.parameters == 11


def test_warnings_name_what_weakens_the_guarantee() -> None:
    schema = DatasetSchema.model_validate(
        {**DIGITS.as_json(), "classes_origin": "from_rows", "unit": {"column": "patient", "max_rows": 3}}
    )
    said = " ".join(outline({"privacy/delta": 0.01, "evaluation/every_steps": 301}, schema).warnings)
    for words in ("delta 0.01", "'patient'", "classes", "every_steps 301", "up to 3 times batch_size"):
        assert words in said
    nameless = DatasetSchema.model_validate({**DIGITS.as_json(), "unit": {"column": None, "max_rows": 3}})
    assert "one person (up to 3)" in " ".join(outline({}, nameless).warnings)
    weak = outline({"privacy": {"noise_multiplier": 0.6, "delta": 1e-4}})
    assert weak.noise is not None
    assert "weak" in " ".join(planning.complete(weak, settle(weak.noise)).warnings)


def test_planning_imports_neither_torch_nor_scipy() -> None:
    code = (
        "import sys, clipwise.jobs.planning; "
        "print([m for m in ('torch', 'sklearn', 'scipy', 'dp_accounting') if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert out.stdout.strip() == "[]"
