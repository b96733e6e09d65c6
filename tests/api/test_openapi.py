"""The OpenAPI document, and the api against it: Schemathesis looks for what contradicts it."""

import json
import subprocess
import sys
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from clipwise.settings import Settings
from clipwise_api.app import create_app
from clipwise_api.openapi import document
from tests.api.conftest import CSV, JOB, KEY, Api
from tests.api.held_jobs import add_checkpoint, claim, register, release
from tests.api.test_outputs import add_artifact, add_line, add_metrics
from tests.conftest import ROOT

CHECKS = [
    not_a_server_error,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
]
EXAMPLES = 25


def test_the_document_is_the_committed_one_on_every_machine() -> None:
    printed = [
        subprocess.run(
            [sys.executable, "-m", "clipwise_api.openapi"],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "HOME": "/nowhere", "CLIPWISE_PORT": seed, "PATH": ""},
        ).stdout
        for seed in ("1", "2")
    ]
    assert printed[0] == printed[1]
    assert json.loads(printed[0]) == json.loads((ROOT / "frontend" / "openapi.json").read_text())


def test_every_operation_is_named_and_documents_its_errors() -> None:
    found = document(create_app(Settings()))
    for path, operations in found["paths"].items():
        for method, operation in operations.items():
            assert operation["operationId"].isidentifier(), path
            assert operation["summary"], path
            assert operation["description"], path
            for status, answer in operation["responses"].items():
                if status == "default" or (status >= "400" and operation["operationId"] != "readyz"):
                    assert list(answer["content"]) == ["application/problem+json"], (method, path, status)
    assert found["openapi"].startswith("3.1")


def test_the_served_document_is_the_same(owner: httpx.Client) -> None:
    assert owner.get("/openapi.json").json() == document(create_app(Settings()))


schema = schemathesis.openapi.from_dict(json.loads((ROOT / "frontend" / "openapi.json").read_text()))


class Known:
    """Ids of what is there, so that not every request ends in a 404."""

    path_parameters: dict[str, str] = {}


@schema.hook("map_case")
def meet_what_is_there(context: Any, case: Any) -> Any:
    """Have two of three requests ask for something that exists."""
    parameters = case.path_parameters or {}
    if len(str(parameters)) % 3:
        case.path_parameters = {
            name: Known.path_parameters.get(name, value) for name, value in parameters.items()
        }
    if isinstance(case.body, dict) and "dataset" in case.body and len(str(case.body)) % 3:
        case.body = {**case.body, "dataset": "digits", "model": {"kind": "mlp"}}
    return case


@pytest.fixture(scope="module")
def inhabited_api(postgres_api: Api) -> Api:
    """An api with a worker, a job that it left with a checkpoint, and a data set."""
    register(postgres_api, "wrk_1", queues=["gpu"])
    with postgres_api.client() as owner:
        job_id = owner.post("/v1/jobs", json=JOB).json()["id"]
        files = {"file": ("x.csv", CSV.encode())}
        dataset_id = owner.post("/v1/datasets", data={"name": "people"}, files=files).json()["id"]
    add_metrics(postgres_api, job_id, "loss", {step: 1.0 / step for step in range(1, 200)})
    add_line(postgres_api, job_id, 1, "hello")
    add_artifact(postgres_api, job_id, "model.safetensors", b"weights")
    attempt = claim(postgres_api, "wrk_1")
    add_checkpoint(postgres_api, attempt, 4, b"weights")
    release(postgres_api, attempt, message="the worker was drained")
    Known.path_parameters = {
        "job_id": job_id,
        "dataset_id": dataset_id,
        "name": "model.safetensors",
        "kind": "mlp",
        "step": "4",
        "worker_id": "wrk_1",
    }
    return postgres_api


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
def test_no_answer_contradicts_the_document(case: schemathesis.Case[Any], inhabited_api: Api) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    case.call_and_validate(base_url=inhabited_api.url, headers=headers, checks=CHECKS, timeout=30)
