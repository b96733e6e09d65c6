"""A job's specification: the example, its defaults, and what is said of each wrong field."""

import copy
import json
from typing import Any

import pytest
from pydantic import ValidationError

from clipwise.data.schema import DatasetSchema
from clipwise.errors import InvalidSpec
from clipwise.jobs.spec import JobSpec, parse, problems_of
from clipwise.schedules import AutomaticClip, ClipGroup, FlatClip, PerGroupClip, PerParameterClip

EXAMPLE: dict[str, Any] = {
    "name": "digits, epsilon 3",
    "dataset": "digits",
    "model": {"kind": "mlp", "hidden_sizes": [128]},
    "training": {"steps": 300, "batch_size": 128, "microbatch_size": None, "seed": 7, "precision": "float32"},
    "optimizer": {
        "learning_rate": 0.1,
        "weight_decay": 0.0,
        "regularizers": [],
        "modules": [{"kind": "l2_clipping", "max_norm": 5.0}, {"kind": "momentum", "beta": 0.9}],
    },
    "clipping": {"kind": "flat", "max_norm": 1.0, "schedule": {"kind": "constant"}},
    "privacy": {"target_epsilon": 3.0, "delta": 1e-4},
    "evaluation": {"fraction": 0.2, "every_steps": 50},
    "resources": {"queue": "cpu", "gpus": 0},
    "limits": {"max_runtime_seconds": 3600},
    "tags": {"team": "cardiology"},
}
SMALLEST: dict[str, Any] = {"dataset": "digits", "model": {"kind": "logistic"}, "training": {"steps": 1}}


def with_field(pointer: str, value: Any) -> dict[str, Any]:
    """Return the example with the field at `pointer` set, or with a new one."""
    document = copy.deepcopy(EXAMPLE)
    *path, last = pointer.strip("/").split("/")
    target: Any = document
    for part in path:
        target = target[int(part)] if isinstance(target, list) else target[part]
    target[int(last) if isinstance(target, list) else last] = value
    return document


def test_the_example_is_valid_and_survives_a_round_trip() -> None:
    spec = parse(EXAMPLE)
    assert parse(spec.as_json()) == spec
    assert JobSpec.model_validate_json(spec.model_dump_json()) == spec
    assert spec.as_json()["optimizer"]["modules"][0]["max_norm"] == 5.0


def test_every_default_is_written_out() -> None:
    document = parse(SMALLEST).as_json()
    assert document["training"] == {
        "steps": 1,
        "epochs": None,
        "batch_size": 128,
        "microbatch_size": None,
        "seed": 0,
        "precision": "float32",
    }
    assert document["clipping"] is None
    assert document["privacy"] is None
    assert document["evaluation"] == {"fraction": 0.2, "every_steps": None}
    assert document["resources"] == {"queue": "cpu", "gpus": 0, "priority": 0}


@pytest.mark.parametrize(
    ("pointer", "value", "says"),
    [
        ("/training/steps", 0, "greater than or equal to 1"),
        ("/training/steps", "300", "valid integer"),
        ("/training/steps", True, "valid integer"),
        ("/training/steps", 1.5, "valid integer"),
        ("/training/batch", 3, "no such field"),
        ("/training/precision", "float8", "float32"),
        ("/optimizer/learning_rate", float("nan"), "finite"),
        ("/optimizer/learning_rate", float("inf"), "finite"),
        ("/optimizer/learning_rate", -1, "greater than 0"),
        ("/optimizer/modules/0/max_norm", 0, "greater than"),
        ("/optimizer/modules/0/max_norm", "5", "valid number"),
        ("/optimizer/modules/1/betas", 3, "no such field"),
        ("/optimizer/modules/1/kind", "sgd", "known: "),
        ("/optimizer/modules/1", {"beta": 0.9}, "give one of"),
        ("/optimizer/modules/1", 7, "give one of"),
        ("/clipping/max_norm", 0, "greater than 0"),
        ("/clipping/kind", "triangular", "flat"),
        ("/clipping/schedule/kind", "linear", "constant"),
        ("/privacy/target_epsilon", 0, "greater than 0"),
        ("/privacy/delta", 1, "less than 1"),
        ("/model/hidden_sizes/0", -4, "greater than"),
        ("/model/hidden_sizes/0", "128", "valid integer"),
        ("/model/depth", 3, "no such field"),
        ("/evaluation/fraction", 1.0, "less than 1"),
        ("/resources/queue", "GPU queue", "match pattern"),
        ("/resources/gpus", 2, "less than or equal to 1"),
        ("/tags/team", 5, "valid string"),
        ("/surprise", 1, "no such field"),
    ],
)
def test_a_wrong_field_is_named_by_its_pointer(pointer: str, value: Any, says: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        parse(with_field(pointer, value))
    (problem,) = caught.value.problems
    # A field of a plug-in that is missing as a whole is reported at its `kind`.
    assert problem.pointer in (pointer, f"{pointer}/kind")
    assert says in problem.detail


GROUP = {"name": "first", "parameters": ["0.*"], "max_norm": 1.0}


@pytest.mark.parametrize(
    ("clipping", "rule"),
    [
        ({"max_norm": 2.0}, FlatClip(max_norm=2.0)),
        ({"kind": "flat", "max_norm": 2}, FlatClip(max_norm=2.0)),
        ({"kind": "automatic"}, AutomaticClip(max_norm=1.0, stability=0.01)),
        ({"kind": "automatic", "stability": 0.5}, AutomaticClip(stability=0.5)),
        ({"kind": "per_parameter", "max_norm": 0.5}, PerParameterClip(max_norm=0.5)),
        (
            {"kind": "per_parameter", "max_norm": 0.5, "bound": "each"},
            PerParameterClip(max_norm=0.5, bound="each"),
        ),
        (
            {"kind": "per_group", "groups": [GROUP]},
            PerGroupClip(groups=(ClipGroup(name="first", parameters=("0.*",), max_norm=1.0),)),
        ),
    ],
)
def test_every_clip_rule_can_be_asked_for(clipping: dict[str, Any], rule: Any) -> None:
    spec = parse({**SMALLEST, "clipping": clipping})
    assert spec.clipping is not None
    assert spec.clipping.rule() == rule
    assert parse(json.loads(json.dumps(spec.as_json()))) == spec
    assert spec.as_json()["clipping"].items() >= clipping.items()


@pytest.mark.parametrize(
    ("clipping", "pointer", "says"),
    [
        ({"max_norm": -1.0}, "/clipping/max_norm", "greater than 0"),
        ({}, "/clipping/max_norm", "required"),
        ({"kind": "automatic", "stability": 0.0}, "/clipping/stability", "greater than or equal to"),
        ({"kind": "automatic", "max_norms": 1.0}, "/clipping/max_norms", "no such field"),
        ({"kind": "per_parameter", "max_norm": 1.0, "bound": "all"}, "/clipping/bound", "'joint' or 'each'"),
        ({"kind": "per_group", "groups": []}, "/clipping/groups", "at least 1"),
        (
            {"kind": "per_group", "groups": [{**GROUP, "max_norm": 0}]},
            "/clipping/groups/0/max_norm",
            "than 0",
        ),
        ({"kind": "per_group", "groups": [GROUP, GROUP]}, "/clipping/groups/1/name", "another group"),
        (
            {"kind": "per_group", "groups": [{**GROUP, "parameters": []}]},
            "/clipping/groups/0/parameters",
            "1",
        ),
        ({"kind": "adaptive"}, "/clipping/kind", "'per_group'"),
    ],
)
def test_a_wrong_clip_rule_is_named_by_its_pointer(clipping: dict[str, Any], pointer: str, says: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        parse({**SMALLEST, "clipping": clipping})
    (problem,) = caught.value.problems
    assert problem.pointer == pointer
    assert says in problem.detail


def test_a_pointer_escapes_what_json_pointers_escape() -> None:
    with pytest.raises(InvalidSpec) as caught:
        parse({**SMALLEST, "a/b~c": 1})
    assert caught.value.problems[0].pointer == "/a~1b~0c"


@pytest.mark.parametrize(
    ("feature", "pointer", "says"),
    [
        ({"name": "a", "type": "text"}, "/features/0/type", "'number'"),
        ({"name": "a"}, "/features/0/type", "required"),
        ({"name": "a", "type": "number", "bounds": ["x", 1]}, "/features/0/bounds/0", "valid number"),
        ({"name": "a", "type": "category"}, "/features/0/categories", "required"),
    ],
)
def test_a_feature_is_named_without_the_tags_of_unions(
    feature: dict[str, Any], pointer: str, says: str
) -> None:
    document = {"features": [feature], "target": "y", "task": "classification", "classes": ["0", "1"]}
    with pytest.raises(ValidationError) as caught:
        DatasetSchema.model_validate({**document, "size": {"value": 10}})
    (problem,) = problems_of(caught.value)
    assert problem.pointer == pointer
    assert says in problem.detail
    assert "tag" not in problem.detail


def test_all_wrong_fields_are_named_at_once() -> None:
    document = with_field("/training/steps", -1)
    document["optimizer"]["modules"][0]["max_norm"] = -1.0
    document["clipping"]["max_norm"] = -1.0
    with pytest.raises(InvalidSpec) as caught:
        parse(document)
    assert {problem.pointer for problem in caught.value.problems} == {
        "/training/steps",
        "/optimizer/modules/0/max_norm",
        "/clipping/max_norm",
    }


@pytest.mark.parametrize(
    ("change", "pointer", "says"),
    [
        ({"training": {"steps": 3, "epochs": 1.0}}, "/training/steps", "either 'steps' or 'epochs'"),
        ({"training": {}}, "/training/steps", "either 'steps' or 'epochs'"),
        ({"privacy": {"delta": 1e-4}}, "/privacy/target_epsilon", "either 'target_epsilon' or"),
        ({"clipping": None}, "/clipping", "'privacy' needs 'clipping'"),
        (
            {"optimizer": {"modules": [{"kind": "gaussian_noise", "std": 0.1}]}},
            "/optimizer/modules/0/kind",
            "noise comes from the mechanism alone",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(change: dict[str, Any], pointer: str, says: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        parse({**EXAMPLE, **change})
    (problem,) = caught.value.problems
    assert problem.pointer == pointer
    assert says in problem.detail


@pytest.mark.parametrize("document", [None, 3, "job", [], [EXAMPLE]])
def test_what_is_no_object_is_refused(document: Any) -> None:
    with pytest.raises(InvalidSpec):
        parse(document)


def test_a_kind_that_is_not_installed_is_left_to_the_workers() -> None:
    spec = parse({**SMALLEST, "model": {"kind": "from_elsewhere", "width": 3}})
    assert spec.model == {"kind": "from_elsewhere", "width": 3}
