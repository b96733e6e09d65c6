"""Attempts and checkpoints, and who may see what of them."""

import hashlib
import json
import time

import httpx

from clipwise.jobs.states import JobStatus, ReasonCode
from clipwise.store.attempts import Blamed
from tests.api.conftest import CSV, JOB, SCHEMA, Api
from tests.api.held_jobs import add_checkpoint, claim, finish, let_time_pass, release
from tests.api.test_jobs import wait_for_status

WEIGHTS = bytes(range(256)) * 5_000
PLAIN = {**JOB, "dataset": "people", "model": {"kind": "logistic"}, "training": {"steps": 9, "batch_size": 8}}


def submit_on_private_data(owner: httpx.Client, **changes: object) -> str:
    data = {"name": "people", "schema": json.dumps(SCHEMA), "visibility": "private"}
    assert owner.post("/v1/datasets", data=data, files={"file": ("x", CSV.encode())}).status_code == 201
    job_id: str = owner.post("/v1/jobs", json={**PLAIN, **changes}).json()["id"]
    return job_id


def test_attempts_say_who_had_the_job_and_why_they_ended(api: Api, owner: httpx.Client) -> None:
    job_id = owner.post("/v1/jobs", json=JOB).json()["id"]
    url = f"/v1/jobs/{job_id}/attempts"
    assert owner.get(url).json()["data"] == []
    release(api, claim(api, "wrk_1"), message="the worker was lost", blames=Blamed.WORKER)
    let_time_pass(api, job_id, 60)
    second = claim(api, "wrk_2")
    listed = owner.get(url).json()
    assert [(a["number"], a["worker_id"], a["outcome"]) for a in listed["data"]] == [
        (1, "wrk_1", "interrupted"),
        (2, "wrk_2", None),
    ]
    assert listed["data"][0]["reason"] == "the worker was lost"
    assert listed["data"][0]["finished_at"] is not None
    assert (listed["data"][1]["finished_at"], listed["data"][1]["start_step"]) == (None, 0)
    finish(api, second, status=JobStatus.SUCCEEDED, result={"metrics": {}, "released": True})
    assert owner.get(url).json()["data"][1]["outcome"] == "succeeded"
    first = owner.get(url, params={"limit": 1}).json()
    assert (len(first["data"]), first["has_more"], first["next_cursor"]) == (1, True, "1")
    rest = owner.get(url, params={"after": first["next_cursor"]}).json()
    assert ([a["number"] for a in rest["data"]], rest["has_more"]) == ([2], False)
    assert owner.get("/v1/jobs/job_none/attempts").status_code == 404


def test_checkpoints_are_listed_and_downloaded(api: Api, owner: httpx.Client) -> None:
    job_id = owner.post("/v1/jobs", json=JOB).json()["id"]
    url = f"/v1/jobs/{job_id}/checkpoints"
    assert owner.get(url).json()["data"] == []
    attempt = claim(api)
    for step, loss in ((2, 0.5), (4, 0.1), (6, 0.3), (8, 0.4)):
        add_checkpoint(api, attempt, step, WEIGHTS + bytes([step]), loss)
    listed = owner.get(url).json()["data"]
    # The last two, and the best one.
    assert [(c["step"], c["best"]) for c in listed] == [(8, False), (6, False), (4, True)]
    got = owner.get(f"{url}/4")
    assert got.content == WEIGHTS + bytes([4])
    assert listed[2]["sha256"] == hashlib.sha256(got.content).hexdigest()
    assert got.headers["ETag"] == f'"{listed[2]["sha256"]}"'
    assert got.headers["Content-Length"] == str(listed[2]["size"])
    assert "checkpoint-4.safetensors" in got.headers["Content-Disposition"]
    unchanged = owner.get(f"{url}/4", headers={"If-None-Match": got.headers["ETag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert owner.get(f"{url}/2").status_code == 404
    for wrong in ("x", "-1", "9" * 30):
        assert owner.get(f"{url}/{wrong}").status_code == 422
    api.services.artifacts.delete(f"jobs/{job_id}/checkpoints/1-4.safetensors")
    assert owner.get(f"{url}/4").status_code == 503


def test_none_is_the_best_where_nothing_was_measured(api: Api, owner: httpx.Client) -> None:
    job_id = owner.post("/v1/jobs", json=JOB).json()["id"]
    attempt = claim(api)
    add_checkpoint(api, attempt, 1, WEIGHTS)
    add_checkpoint(api, attempt, 2, WEIGHTS)
    listed = owner.get(f"/v1/jobs/{job_id}/checkpoints").json()["data"]
    assert [(c["step"], c["best"]) for c in listed] == [(2, False), (1, False)]


def test_what_a_sealed_jobs_runner_said_and_made_is_for_owners(api: Api, owner: httpx.Client) -> None:
    job_id = submit_on_private_data(owner)
    url = f"/v1/jobs/{job_id}"
    attempt = claim(api)
    add_checkpoint(api, attempt, 3, WEIGHTS)
    said = "ValueError: seventeen and a quarter is no age"
    release(api, attempt, message=said, blames=Blamed.RUNNER)
    let_time_pass(api, job_id, 60)
    finish(api, claim(api), status=JobStatus.FAILED, reason=ReasonCode.USER_CODE_ERROR, message=said)
    assert [a["reason"] for a in owner.get(f"{url}/attempts").json()["data"]] == [said, said]
    assert owner.get(f"{url}/checkpoints/3").content == WEIGHTS
    with api.client(api.key_of("analyst")) as analyst:
        listed = analyst.get(f"{url}/attempts")
        assert [a["outcome"] for a in listed.json()["data"]] == ["interrupted", "failed"]
        assert "seventeen" not in listed.text
        assert "only owners see why" in listed.text
        for path in ("/checkpoints", "/checkpoints/3"):
            assert analyst.get(f"{url}{path}").status_code == 403


def test_a_checkpoint_under_a_guarantee_is_for_analysts_too(api: Api, owner: httpx.Client) -> None:
    guarded = {"clipping": {"max_norm": 1.0}, "privacy": {"noise_multiplier": 2.0, "delta": 1e-4}}
    job_id = submit_on_private_data(owner, **guarded)
    wait_for_status(owner, job_id, "queued")
    add_checkpoint(api, claim(api), 3, WEIGHTS)
    with api.client(api.key_of("analyst")) as analyst:
        assert [c["step"] for c in analyst.get(f"/v1/jobs/{job_id}/checkpoints").json()["data"]] == [3]
        assert analyst.get(f"/v1/jobs/{job_id}/checkpoints/3").content == WEIGHTS
        assert analyst.get(f"/v1/jobs/{job_id}/attempts").status_code == 200


def test_a_deleted_job_takes_its_checkpoints_along(api: Api, owner: httpx.Client) -> None:
    job_id = owner.post("/v1/jobs", json=JOB).json()["id"]
    attempt = claim(api)
    add_checkpoint(api, attempt, 1, WEIGHTS)
    finish(api, attempt, status=JobStatus.CANCELLED)
    assert owner.delete(f"/v1/jobs/{job_id}").status_code == 200
    deadline = time.monotonic() + 5
    while api.services.artifacts.exists(f"jobs/{job_id}/checkpoints/1-1.safetensors"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
