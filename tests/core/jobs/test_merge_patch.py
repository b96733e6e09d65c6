"""The examples of RFC 7396, appendix A, and what they leave open."""

import copy
from typing import Any

import pytest

from clipwise.jobs.merge_patch import merged


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_the_examples_of_the_standard(target: Any, patch: Any, result: Any) -> None:
    before = copy.deepcopy((target, patch))
    assert merged(target, patch) == result
    assert (target, patch) == before


def test_a_null_takes_a_whole_branch_and_a_list_is_never_merged() -> None:
    target = {"training": {"steps": 3, "seed": 1}, "tags": {"a": "1"}, "modules": [{"kind": "x"}]}
    patch = {"training": {"steps": None, "epochs": 2}, "tags": None, "modules": [{"beta": 1, "kind": None}]}
    assert merged(target, patch) == {
        "training": {"seed": 1, "epochs": 2},
        "modules": [{"beta": 1, "kind": None}],
    }
