"""What a job leaves, and who may see it."""

import hashlib
import json
import re
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from clipwise.jobs.states import JobStatus
from clipwise.store import spans
from clipwise.store.events import append_event
from clipwise.store.sessions import transaction
from clipwise.store.spans import Point
from clipwise.store.tables import ArtifactRow, AttemptRow, JobRow, LogLineRow, MetricRow, WorkerRow
from tests.api.conftest import CSV, JOB, SCHEMA, Api

MODEL_BYTES = bytes(range(256)) * 10_000


def add_metrics(api: Api, job_id: str, name: str, values: dict[int, float | None], **columns: Any) -> None:
    fixed = {"attempt": 1, "released": True, **columns}
    with transaction(api.services.engine) as session:
        session.add_all(
            MetricRow(job_id=job_id, name=name, step=step, value=value, **fixed)
            for step, value in values.items()
        )
        points = [Point(name=name, step=s, value=v, released=fixed["released"]) for s, v in values.items()]
        spans.add(session, job_id, fixed["attempt"], points)


def add_artifact(api: Api, job_id: str, name: str, content: bytes) -> None:
    key = f"jobs/{job_id}/1/{re.sub('[^a-z.]', '_', name)}"
    stored = api.services.artifacts.write(key, [content])
    with transaction(api.services.engine) as session:
        session.add(
            ArtifactRow(
                job_id=job_id,
                name=name,
                key=key,
                size=stored.size,
                sha256=stored.sha256,
                attempt=1,
                created_at=datetime.now(UTC),
            )
        )


def add_attempt(api: Api, job_id: str, number: int, **columns: Any) -> None:
    fixed: dict[str, Any] = {"token": number, "worker_id": "wrk_1", "started_at": datetime.now(UTC)}
    with transaction(api.services.engine) as session:
        session.add(AttemptRow(job_id=job_id, number=number, **{**fixed, **columns}))


def add_line(api: Api, job_id: str, number: int, line: str) -> None:
    with transaction(api.services.engine) as session:
        now = datetime.now(UTC)
        session.add(
            LogLineRow(job_id=job_id, id=number, stream="stdout", line=line, attempt=1, created_at=now)
        )
        session.get_one(JobRow, job_id).last_log_id = number


def finish(api: Api, job_id: str, released: bool) -> None:
    with transaction(api.services.engine) as session:
        row = session.get_one(JobRow, job_id)
        row.status = JobStatus.SUCCEEDED
        row.result = {"metrics": {"accuracy": 0.9}, "released": released}
        row.epsilon, row.delta = 1.5, 1e-4
        append_event(session, job_id, "evaluated", "info", "Evaluated.", {"accuracy": 0.9}, 1)


def test_the_newest_attempt_wins_behind_the_step_that_it_began_at(api: Api, owner: httpx.Client) -> None:
    job_id = owner.post("/v1/jobs", json=JOB).json()["id"]
    add_metrics(api, job_id, "loss", dict.fromkeys(range(0, 100, 10), 1.0))
    add_metrics(api, job_id, "loss", dict.fromkeys((35, 45), 2.0), attempt=2)
    add_attempt(api, job_id, 1)
    add_attempt(api, job_id, 2, start_step=30)
    add_metrics(api, job_id, "accuracy", {50: 0.1}, released=False)
    add_metrics(api, job_id, "accuracy", {50: None, 60: 0.5}, released=False, attempt=2)
    found = owner.get(f"/v1/jobs/{job_id}/metrics").json()
    assert found["loss"] == {
        "step": [0, 10, 20, 30, 35, 45],
        "value": [1.0, 1.0, 1.0, 1.0, 2.0, 2.0],
        "released": True,
    }
    assert found["accuracy"] == {"step": [50, 60], "value": [None, 0.5], "released": False}
    only = owner.get(f"/v1/jobs/{job_id}/metrics", params={"name": ["loss", "none"], "after_step": 30}).json()
    assert only == {"loss": {"step": [35, 45], "value": [2.0, 2.0], "released": True}}


def test_long_series_are_thinned_out_and_keep_their_extremes(api: Api, owner: httpx.Client) -> None:
    job_id = owner.post("/v1/jobs", json=JOB).json()["id"]
    values: dict[int, float | None] = {step: float(step % 7) for step in range(20_000)}
    values[7_777], values[12_345], values[15_000] = 1e9, -1e9, None
    add_metrics(api, job_id, "loss", values)
    for most in (10, 11, 500, 2000):
        loss = owner.get(f"/v1/jobs/{job_id}/metrics", params={"max_points": most}).json()["loss"]
        assert 2 <= len(loss["step"]) <= most
        assert loss["step"] == sorted(set(loss["step"]))
        assert (loss["step"][0], loss["step"][-1]) == (0, 19_999)
        assert all(values[step] == value for step, value in zip(loss["step"], loss["value"], strict=True))
        assert {7_777, 12_345} <= set(loss["step"])
    assert len(loss["step"]) > 900
    assert 15_000 in loss["step"]
    tail = owner.get(f"/v1/jobs/{job_id}/metrics", params={"after_step": 19_990}).json()["loss"]
    assert tail["step"] == list(range(19_991, 20_000))
    assert owner.get(f"/v1/jobs/{job_id}/metrics", params={"max_points": 2001}).status_code == 422


def test_logs_are_read_forwards_and_from_the_end(api: Api, owner: httpx.Client) -> None:
    job_id = owner.post("/v1/jobs", json=JOB).json()["id"]
    for number in range(1, 8):
        add_line(api, job_id, number, f"line {number}")
    first = owner.get(f"/v1/jobs/{job_id}/logs", params={"limit": 3}).json()
    assert [line["line"] for line in first["data"]] == ["line 1", "line 2", "line 3"]
    assert first["has_more"] is True
    rest = owner.get(f"/v1/jobs/{job_id}/logs", params={"after": first["next_cursor"]}).json()
    assert [line["id"] for line in rest["data"]] == [4, 5, 6, 7]
    assert rest["has_more"] is False
    tail = owner.get(f"/v1/jobs/{job_id}/logs", params={"tail": True, "limit": 2}).json()
    assert [line["id"] for line in tail["data"]] == [6, 7]


def test_logs_of_which_the_oldest_are_gone_begin_later(api: Api, owner: httpx.Client) -> None:
    job_id = owner.post("/v1/jobs", json=JOB).json()["id"]
    for number in (12_001, 12_002, 12_003):
        add_line(api, job_id, number, f"line {number}")
    url = f"/v1/jobs/{job_id}/logs"
    first = owner.get(url, params={"limit": 2}).json()
    assert [line["id"] for line in first["data"]] == [12_001, 12_002]
    rest = owner.get(url, params={"after": first["next_cursor"]}).json()
    assert [line["id"] for line in rest["data"]] == [12_003]
    tail = owner.get(url, params={"tail": True, "limit": 2}).json()
    assert [line["id"] for line in tail["data"]] == [12_002, 12_003]
    assert tail["has_more"] is False


def test_an_artifact_is_downloaded_whole_under_a_safe_name(api: Api, owner: httpx.Client) -> None:
    job_id = owner.post("/v1/jobs", json=JOB).json()["id"]
    add_artifact(api, job_id, "model.safetensors", MODEL_BYTES)
    add_artifact(api, job_id, 'é";\r\nX-Evil: 1.json', b"{}")
    listed = owner.get(f"/v1/jobs/{job_id}/artifacts").json()["data"]
    model = next(a for a in listed if a["name"] == "model.safetensors")
    assert model["sha256"] == hashlib.sha256(MODEL_BYTES).hexdigest()
    url = f"/v1/jobs/{job_id}/artifacts/model.safetensors"
    got = owner.get(url)
    assert got.content == MODEL_BYTES
    assert got.headers["ETag"] == f'"{model["sha256"]}"'
    assert got.headers["Content-Disposition"].startswith('attachment; filename="model.safetensors"')
    assert owner.get(url, headers={"If-None-Match": got.headers["ETag"]}).status_code == 304
    evil = owner.get(f"/v1/jobs/{job_id}/artifacts/%C3%A9%22%3B%0D%0AX-Evil%3A%201.json")
    assert evil.status_code == 200
    assert "x-evil" not in evil.headers
    for name in ("none", "..%2f..%2fapi_key", "%2e%2e"):
        assert owner.get(f"/v1/jobs/{job_id}/artifacts/{name}").status_code == 404
    api.services.artifacts.delete(f"jobs/{job_id}/1/model.safetensors")
    assert owner.get(url).status_code == 503


def test_a_deleted_job_takes_its_files_along(api: Api, owner: httpx.Client) -> None:
    import time

    job_id = owner.post("/v1/jobs", json=JOB).json()["id"]
    add_artifact(api, job_id, "model.safetensors", MODEL_BYTES)
    add_metrics(api, job_id, "loss", {1: 1.0})
    finish(api, job_id, released=True)
    assert owner.delete(f"/v1/jobs/{job_id}").status_code == 200
    deadline = time.monotonic() + 5
    while api.services.artifacts.exists(f"jobs/{job_id}/1/model.safetensors"):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def private_job(api: Api, owner: httpx.Client) -> str:
    """A finished job with a guarantee on private data, with exact and released numbers."""
    files = {"file": ("people.csv", CSV.encode())}
    data = {"name": "people", "schema": json.dumps(SCHEMA), "visibility": "private"}
    assert owner.post("/v1/datasets", data=data, files=files).status_code == 201
    job = {
        **JOB,
        "dataset": "people",
        "model": {"kind": "logistic"},
        "training": {"steps": 3, "batch_size": 8},
        "clipping": {"max_norm": 1.0},
        "privacy": {"noise_multiplier": 2.0, "delta": 1e-4},
    }
    job_id: str = owner.post("/v1/jobs", json=job).json()["id"]
    _fill(api, job_id)
    return job_id


def _fill(api: Api, job_id: str) -> None:
    add_metrics(api, job_id, "accuracy", {1: 0.5}, released=False)
    add_metrics(api, job_id, "noisy_accuracy", {1: 0.6}, released=True)
    add_metrics(api, job_id, "half", {1: 1.0}, released=False)
    add_metrics(api, job_id, "half", {2: 2.0}, released=True)
    add_line(api, job_id, 1, "a row's value")
    add_artifact(api, job_id, "model.safetensors", MODEL_BYTES)
    finish(api, job_id, released=False)


def test_an_analyst_sees_what_is_released_and_an_owner_everything(
    api: Api, owner: httpx.Client, private_job: str
) -> None:
    url = f"/v1/jobs/{private_job}"
    assert owner.get(url).json()["result"]["metrics"] == {"accuracy": 0.9}
    assert set(owner.get(f"{url}/metrics").json()) == {"accuracy", "noisy_accuracy", "half"}
    assert owner.get(f"{url}/logs").status_code == 200
    assert owner.get(f"{url}/events").json()["data"][-1]["data"] == {"accuracy": 0.9}
    with api.client(api.key_of("analyst")) as analyst:
        seen = analyst.get(url).json()
        assert seen["result"] is None
        assert seen["privacy"] == {"epsilon": 1.5, "delta": 1e-4}
        assert analyst.get("/v1/jobs").json()["data"][0]["result"] is None
        released = analyst.get(f"{url}/metrics").json()
        assert released["noisy_accuracy"]["value"] == [0.6]
        assert released["half"] == {"step": [2], "value": [2.0], "released": True}
        assert "accuracy" not in released
        assert analyst.get(f"{url}/logs").status_code == 403
        assert all(event["data"] == {} for event in analyst.get(f"{url}/events").json()["data"])
        stream = analyst.get(f"{url}/events", headers={"Accept": "text/event-stream"})
        sent = [
            json.loads(line.removeprefix("data: ")) for line in stream.text.splitlines() if "data: " in line
        ]
        assert {"evaluated": {}} in [{event["type"]: event["data"]} for event in sent if "type" in event]
        assert all(event.get("data", {}) == {} for event in sent)
        # The model is covered by the guarantee.
        assert analyst.get(f"{url}/artifacts/model.safetensors").content == MODEL_BYTES
        dataset = analyst.get("/v1/datasets/people").json()
        assert (dataset["rows"], dataset["size_bytes"], dataset["sha256"], dataset["notes"]) == (
            None, None, None, [],
        )  # fmt: skip
        assert CSV[:10] not in analyst.get("/v1/datasets").text
        # Only its own jobs are an analyst's to end.
        assert analyst.delete(url).status_code == 403
    assert owner.get("/v1/datasets/people").json()["rows"] == 40


def test_a_proposal_on_private_rows_is_for_its_owner(api: Api, owner: httpx.Client) -> None:
    made = owner.post("/v1/datasets", data={"name": "raw"}, files={"file": ("x", CSV.encode())})
    assert made.status_code == 201
    with api.client(api.key_of("analyst")) as analyst:
        assert analyst.get("/v1/datasets/raw").status_code == 404
        assert analyst.get(f"/v1/datasets/{made.json()['id']}").status_code == 404
        assert "raw" not in analyst.get("/v1/datasets").text
        assert "raw" not in analyst.get("/v1/populations").text
        job = analyst.post("/v1/jobs", json={**JOB, "dataset": "raw"})
        assert job.json()["errors"][0]["code"] == "unknown_dataset"


def test_private_data_without_a_guarantee_is_for_owners(
    api: Api, owner: httpx.Client, private_job: str
) -> None:
    plain = {
        **JOB,
        "dataset": "people",
        "model": {"kind": "logistic"},
        "training": {"steps": 3, "batch_size": 8},
    }
    with api.client(api.key_of("analyst")) as analyst:
        refused = analyst.post("/v1/jobs", json=plain)
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["pointer"] == "/privacy"
        assert analyst.post("/v1/jobs/validate", json=plain).status_code == 422
        allowed = owner.post("/v1/jobs", json=plain)
        assert allowed.status_code == 201, allowed.text
        _fill(api, allowed.json()["id"])
        url = f"/v1/jobs/{allowed.json()['id']}"
        assert analyst.get(f"{url}/artifacts").status_code == 403
        assert analyst.get(f"{url}/artifacts/model.safetensors").status_code == 403
        assert analyst.get(url).json()["result"] is None
        # Without a guarantee, what the runner says of an error can quote a row.
        said = "ValueError: 17.25 is no age"
        with transaction(api.services.engine) as session:
            row = session.get_one(JobRow, allowed.json()["id"])
            row.status, row.reason_code, row.reason_message = JobStatus.FAILED, "internal", said
            append_event(session, row.id, "failed", "error", said, {}, 1)
        stream = analyst.get(f"{url}/events", headers={"Accept": "text/event-stream"})
        assert '"type":"failed"' in stream.text
        for answer in (analyst.get(url), analyst.get("/v1/jobs"), analyst.get(f"{url}/events"), stream):
            assert answer.status_code == 200
            assert "17.25" not in answer.text
        assert owner.get(url).json()["status_reason"]["message"] == said
        assert said in owner.get(f"{url}/events").text
    assert owner.get(f"{url}/artifacts/model.safetensors").status_code == 200


def test_a_kind_that_only_a_worker_has(api: Api, owner: httpx.Client) -> None:
    job = {**JOB, "model": {"kind": "wavelet", "levels": 3}}
    assert owner.post("/v1/jobs", json=job).json()["errors"][0]["code"] == "unknown_kind"
    schema = {
        "title": "Wavelet",
        "type": "object",
        "properties": {"kind": {"const": "wavelet"}, "levels": {"type": "integer", "minimum": 1}},
        "additionalProperties": False,
    }
    now = datetime.now(UTC)
    with transaction(api.services.engine) as session:
        session.add(
            WorkerRow(
                id="wrk_1",
                host="gpu",
                pid=1,
                queues=["cpu"],
                slots=2,
                kinds={"wavelet": schema},
                versions={"torch": "2"},
                started_at=now,
                heartbeat_at=now,
            )
        )
    made = owner.post("/v1/jobs", json=job)
    assert made.status_code == 201, made.text
    assert made.json()["status_reason"] is None
    assert made.json()["plan"]["parameters"] is None
    wrong = owner.post("/v1/jobs", json={**job, "model": {"kind": "wavelet", "levels": 0, "x": 1}})
    assert {e["pointer"] for e in wrong.json()["errors"]} == {"/model/levels", "/model"}
    known = owner.post("/v1/jobs", json=JOB).json()
    assert known["status_reason"]["message"].startswith(
        "no running worker serves the queue 'cpu' and has the model kind 'mlp'; waiting since "
    )
    kinds = {kind["kind"]: kind for kind in owner.get("/v1/models").json()["data"]}
    assert (kinds["wavelet"]["workers"], kinds["mlp"]["workers"]) == (1, 0)
    assert owner.get("/v1/models/wavelet").json()["json_schema"] == schema
    assert owner.get("/v1/models/nothing").status_code == 404
    (worker,) = owner.get("/v1/workers").json()["data"]
    assert (worker["alive"], worker["kinds"], worker["slots"]) == (True, ["wavelet"], 2)
    assert owner.get("/v1/queues").json()["data"] == [
        {"name": "cpu", "object": "queue", "queued": 2, "running": 0, "workers": 1}
    ]
