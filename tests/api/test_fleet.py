"""Workers as people see them, draining them, and what a job waits for."""

from datetime import timedelta
from typing import Any

import httpx

from clipwise.jobs.states import JobStatus
from clipwise.store import workers
from clipwise.store.sessions import transaction
from clipwise.store.tables import WorkerRow
from tests.api.conftest import JOB, Api
from tests.api.held_jobs import GPU, claim, finish, register

GPU_JOB: dict[str, Any] = {**JOB, "resources": {"gpus": 1}}


def reason(client: httpx.Client, job_id: str) -> str | None:
    found = client.get(f"/v1/jobs/{job_id}").json()["status_reason"]
    if found is None:
        return None
    assert found["code"] == "no_matching_worker"
    message: str = found["message"]
    return message


def test_a_worker_shows_its_devices_and_who_has_them(api: Api, owner: httpx.Client) -> None:
    register(api, "wrk_gpu", queues=["gpu"], devices=[GPU])
    job_id = owner.post("/v1/jobs", json=GPU_JOB).json()["id"]
    device = {"uuid": "GPU-1", "name": "H200", "memory_bytes": 2**37, "job_id": None}

    def worker() -> dict[str, Any]:
        (found,) = owner.get("/v1/workers").json()["data"]
        return dict(found)

    fresh = worker()
    assert (fresh["devices"], fresh["draining"], fresh["alive"]) == ([device], False, True)
    assert 0 <= fresh["heartbeat_age_seconds"] < 30
    attempt = claim(api, "wrk_gpu", queues=["gpu"], devices=["GPU-1"])
    assert worker()["devices"] == [{**device, "job_id": job_id}]
    assert worker()["current_jobs"] == [job_id]
    finish(api, attempt, status=JobStatus.CANCELLED)
    assert worker()["devices"] == [device]


def test_the_age_of_a_heartbeat_is_by_the_databases_clock(api: Api, owner: httpx.Client) -> None:
    register(api, "wrk_1")
    with transaction(api.services.engine) as session:
        row = session.get_one(WorkerRow, "wrk_1")
        row.heartbeat_at -= timedelta(seconds=100)
    (worker,) = owner.get("/v1/workers").json()["data"]
    assert 100 <= worker["heartbeat_age_seconds"] < 130
    assert worker["alive"] is False


def test_a_worker_is_drained_and_takes_jobs_again(api: Api, owner: httpx.Client) -> None:
    register(api, "wrk_1")
    job_id = owner.post("/v1/jobs", json=JOB).json()["id"]
    assert reason(owner, job_id) is None
    assert owner.get("/v1/queues").json()["data"][0]["workers"] == 1
    for _ in range(2):
        drained = owner.post("/v1/workers/wrk_1/drain")
        assert (drained.status_code, drained.json()["draining"]) == (200, True)
    assert owner.get("/v1/workers").json()["data"][0]["draining"] is True
    waits = reason(owner, job_id)
    assert waits is not None
    assert waits.startswith("each worker that could run it is draining (wrk_1); waiting since ")
    assert owner.get("/v1/queues").json()["data"] == [
        {"name": "cpu", "object": "queue", "queued": 1, "running": 0, "workers": 0}
    ]
    register(api, "wrk_2")
    assert reason(owner, job_id) is None
    assert owner.post("/v1/workers/wrk_1/undrain").json()["draining"] is False
    assert owner.post("/v1/workers/wrk_none/drain").status_code == 404
    with transaction(api.services.engine) as session:
        workers.stop(session, "wrk_1")
    stopped = owner.post("/v1/workers/wrk_1/drain")
    assert (stopped.status_code, stopped.json()["code"]) == (409, "conflict")
    with api.client(api.key_of("operator")) as operator:
        assert operator.post("/v1/workers/wrk_2/drain").status_code == 200
    with api.client(api.key_of("analyst")) as analyst:
        assert analyst.post("/v1/workers/wrk_2/undrain").status_code == 403


def test_a_job_says_what_its_worker_would_need(api: Api, owner: httpx.Client) -> None:
    job = owner.post("/v1/jobs", json=GPU_JOB).json()
    tag = owner.get(f"/v1/jobs/{job['id']}").headers["ETag"]

    def lacks() -> str:
        message = reason(owner, job["id"])
        assert message is not None
        lacking, waiting = message.split("; ")
        # A moment, and not how long ago it was: a job that did not change has the same ETag.
        assert waiting == f"waiting since {job['created_at'][:19]}Z for one that does"
        return lacking

    assert lacks() == "no running worker serves the queue 'gpu'"
    assert owner.get(f"/v1/jobs/{job['id']}", headers={"If-None-Match": tag}).status_code == 304
    register(api, "wrk_1", queues=["gpu"], kinds={"wavelet": {}}, devices=[GPU])
    assert lacks() == "no running worker serves the queue 'gpu' and has the model kind 'mlp'"
    # It has the kind, but no device; the other one has a device, but not the kind.
    register(api, "wrk_2", queues=["gpu"])
    assert lacks() == "no running worker serves the queue 'gpu' and has the model kind 'mlp' and has a GPU"
    register(api, "wrk_3", queues=["gpu"], devices=[GPU])
    assert reason(owner, job["id"]) is None
    owner.post("/v1/workers/wrk_3/drain")
    assert "is draining (wrk_3)" in str(reason(owner, job["id"]))
