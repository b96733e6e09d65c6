"""What people do with a job that is there, one at a time."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from clipwise.jobs.states import JobStatus, ReasonCode
from clipwise.store.attempts import Blamed
from clipwise.store.sessions import reading
from clipwise.store.tables import OutboxRow
from tests.api.conftest import CSV, JOB, PRIVATE_JOB, SCHEMA, Api
from tests.api.held_jobs import add_checkpoint, claim, finish, let_time_pass, release
from tests.api.test_jobs import wait_for_status


@pytest.fixture
def analyst(api: Api) -> Iterator[httpx.Client]:
    """A client with an analyst's key."""
    with api.client(api.key_of("analyst")) as client:
        yield client


def submit(client: httpx.Client, **changes: Any) -> str:
    answer = client.post("/v1/jobs", json={**JOB, **changes})
    assert answer.status_code == 201, answer.text
    job_id: str = answer.json()["id"]
    return job_id


def submit_cancelled(client: httpx.Client, **changes: Any) -> str:
    job_id = submit(client, **changes)
    assert client.post(f"/v1/jobs/{job_id}/cancel").status_code == 200
    return job_id


def events(client: httpx.Client, job_id: str) -> list[str]:
    return [event["type"] for event in client.get(f"/v1/jobs/{job_id}/events").json()["data"]]


def test_a_waiting_job_is_paused_and_resumed_at_once(api: Api, owner: httpx.Client) -> None:
    job_id = submit(owner)
    url = f"/v1/jobs/{job_id}"
    paused = owner.post(f"{url}/pause")
    assert paused.status_code == 200, paused.text
    assert (paused.json()["status"], paused.json()["status_reason"]) == ("paused", None)
    assert paused.json()["allowed"] == ["cancel", "clone", "resume"]
    assert owner.post(f"{url}/pause").json()["status"] == "paused"
    resumed = owner.post(f"{url}/resume")
    assert resumed.json()["status"] == "queued"
    assert owner.post(f"{url}/resume").json()["status"] == "queued"
    assert events(owner, job_id) == ["submitted", "queued", "paused", "resumed"]
    owner.post(f"{url}/pause")
    assert owner.post(f"{url}/cancel").json()["status"] == "cancelled"
    for verb in ("pause", "resume"):
        refused = owner.post(f"{url}/{verb}")
        assert (refused.status_code, refused.json()["code"]) == (409, "illegal_transition")
        assert refused.json()["allowed"] == ["clone", "delete", "retry"]


def test_a_running_job_is_asked_to_pause(api: Api, owner: httpx.Client) -> None:
    job_id = submit(owner)
    url = f"/v1/jobs/{job_id}"
    attempt = claim(api, "wrk_1")
    assert owner.get(url).json()["worker_id"] == "wrk_1"
    assert owner.post(f"{url}/pause").json()["status"] == "pausing"
    assert owner.post(f"{url}/resume").status_code == 409
    add_checkpoint(api, attempt, 4, b"weights")
    release(api, attempt, message="paused on request")
    paused = owner.get(url).json()
    assert (paused["status"], paused["checkpoint_step"], paused["worker_id"]) == ("paused", 4, None)
    assert paused["interruptions"] == 0
    assert owner.post(f"{url}/resume").json()["status"] == "queued"
    assert claim(api, "wrk_2").number == 2


def test_a_job_shows_its_interruptions_and_when_it_is_tried_again(api: Api, owner: httpx.Client) -> None:
    job_id = submit(owner, resources={"priority": 7})
    url = f"/v1/jobs/{job_id}"
    fresh = owner.get(url).json()
    assert (fresh["priority"], fresh["interruptions"], fresh["retry_at"], fresh["parent"]) == (
        7,
        0,
        None,
        None,
    )
    release(api, claim(api), message="the worker was lost", blames=Blamed.WORKER)
    interrupted = owner.get(url).json()
    assert (interrupted["status"], interrupted["interruptions"]) == ("queued", 1)
    assert interrupted["retry_at"] > interrupted["created_at"]
    let_time_pass(api, job_id, 60)
    assert owner.get(url).json()["retry_at"] is None
    release(api, claim(api), message="the runner died", blames=Blamed.RUNNER)
    assert owner.get(url).json()["interruptions"] == 2
    assert owner.post(f"{url}/pause").json()["retry_at"] is None


def test_a_retry_is_a_new_job_with_the_same_specification(api: Api, owner: httpx.Client) -> None:
    job_id = submit(owner, tags={"team": "x"}, resources={"priority": 3})
    refused = owner.post(f"/v1/jobs/{job_id}/retry")
    assert (refused.status_code, refused.json()["allowed"]) == (409, ["cancel", "clone", "pause"])
    finish(api, claim(api), status=JobStatus.FAILED, reason=ReasonCode.OUT_OF_MEMORY, message="no memory")
    old = owner.get(f"/v1/jobs/{job_id}").json()
    made = owner.post(f"/v1/jobs/{job_id}/retry")
    assert made.status_code == 201, made.text
    new = made.json()
    assert made.headers["Location"] == f"/v1/jobs/{new['id']}"
    assert made.headers["ETag"] == owner.get(made.headers["Location"]).headers["ETag"]
    assert new["parent"] == {"id": job_id, "verb": "retry"}
    assert (new["status"], new["attempt"], new["priority"]) == ("queued", 0, 3)
    assert (new["spec"], new["tags"]) == (old["spec"], {"team": "x"})
    submitted = owner.get(f"/v1/jobs/{new['id']}/events").json()["data"][0]
    assert submitted["data"] == {"status": "queued", "parent": job_id, "verb": "retry"}
    # Terminal is terminal: the one that failed is as it was.
    assert owner.get(f"/v1/jobs/{job_id}").json() == old
    assert owner.post("/v1/jobs/job_none/retry").status_code == 404


def test_a_retry_happens_once_under_its_idempotency_key(owner: httpx.Client) -> None:
    first, second = submit_cancelled(owner), submit_cancelled(owner)
    headers = {"Idempotency-Key": "again"}
    made = owner.post(f"/v1/jobs/{first}/retry", headers=headers)
    assert "Idempotent-Replayed" not in made.headers
    repeated = owner.post(f"/v1/jobs/{first}/retry", headers=headers)
    assert (repeated.status_code, repeated.json()["id"]) == (201, made.json()["id"])
    assert repeated.headers["Idempotent-Replayed"] == "true"
    assert repeated.headers["Location"] == made.headers["Location"]
    for path in (f"/v1/jobs/{second}/retry", f"/v1/jobs/{first}/clone"):
        mixed_up = owner.post(path, headers=headers, json={})
        assert (mixed_up.status_code, mixed_up.json()["code"]) == (409, "idempotency_mismatch")
    # What was made stays the answer, also when there is nothing left to retry.
    owner.delete(f"/v1/jobs/{first}")
    assert owner.post(f"/v1/jobs/{first}/retry", headers=headers).json()["id"] == made.json()["id"]
    assert owner.post(f"/v1/jobs/{first}/retry").status_code == 404


def test_a_clone_is_the_specification_changed_by_a_merge_patch(owner: httpx.Client) -> None:
    job_id = submit(owner, tags={"team": "x", "try": "1"}, clipping={"max_norm": 2.0})
    changes = {
        "name": None,
        "training": {"steps": None, "epochs": 2, "seed": 9},
        "clipping": None,
        "tags": {"try": "2"},
        "optimizer": {"modules": [{"kind": "momentum", "beta": 0.5}]},
    }
    made = owner.post(f"/v1/jobs/{job_id}/clone", json={"changes": changes})
    assert made.status_code == 201, made.text
    new = made.json()
    assert made.headers["Location"] == f"/v1/jobs/{new['id']}"
    assert new["parent"] == {"id": job_id, "verb": "clone"}
    assert (new["name"], new["spec"]["clipping"]) == (None, None)
    assert (new["spec"]["training"]["steps"], new["spec"]["training"]["epochs"]) == (None, 2)
    assert (new["spec"]["training"]["seed"], new["spec"]["training"]["batch_size"]) == (9, 32)
    assert new["tags"] == {"team": "x", "try": "2"}
    assert new["spec"]["optimizer"]["modules"][0]["beta"] == 0.5
    assert new["plan"]["steps"] != 10
    same = owner.post(f"/v1/jobs/{job_id}/clone", json={}).json()
    assert same["spec"] == owner.get(f"/v1/jobs/{job_id}").json()["spec"]
    back = owner.post(
        f"/v1/jobs/{new['id']}/clone", json={"changes": {"training": {"epochs": None, "steps": 4}}}
    )
    assert (back.json()["plan"]["steps"], back.json()["parent"]["id"]) == (4, new["id"])


def test_a_clone_is_checked_like_any_submission(owner: httpx.Client) -> None:
    job_id = submit(owner)

    def pointers(changes: Any) -> set[str]:
        answer = owner.post(f"/v1/jobs/{job_id}/clone", json={"changes": changes})
        assert answer.status_code == 422, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        return {error["pointer"] for error in answer.json()["errors"]}

    assert pointers({"training": {"steps": -1}}) == {"/training/steps"}
    assert pointers({"training": {"epochs": 2}}) == {"/training/steps"}
    assert pointers({"training": None}) == {"/training"}
    assert pointers({"dataset": "nowhere"}) == {"/dataset"}
    logistic = {"kind": "logistic", "hidden_sizes": None, "activation": None}
    assert pointers({"model": logistic}) == {"/model/dropout"}
    assert pointers({"model": {**logistic, "kind": "linear", "dropout": None}}) == {"/model/kind"}
    assert pointers({"training": {"batch_size": 5000}}) == {"/training/batch_size"}
    assert pointers({"privacy": {"noise_multiplier": 4.0, "delta": 1e-4}}) == {"/clipping"}
    assert pointers({"surprise": 1, "tags": {"a": 1}}) == {"/surprise", "/tags/a"}
    assert pointers([]) == {"/changes"}
    assert len(owner.get("/v1/jobs").json()["data"]) == 1


def test_a_clone_with_a_guarantee_waits_for_its_noise(owner: httpx.Client) -> None:
    job_id = submit(owner)
    changes = {"privacy": PRIVATE_JOB["privacy"], "clipping": PRIVATE_JOB["clipping"]}
    made = owner.post(f"/v1/jobs/{job_id}/clone", json={"changes": changes}).json()
    assert made["status"] == "validating"
    assert wait_for_status(owner, made["id"], "queued")["plan"]["noise_multiplier"] == 4.0
    # The other strength takes the place of the first one.
    changes = {"privacy": {"noise_multiplier": None, "target_epsilon": 5.0}}
    other = owner.post(f"/v1/jobs/{made['id']}/clone", json={"changes": changes})
    assert other.status_code == 201, other.text
    assert other.json()["spec"]["privacy"]["noise_multiplier"] is None


def test_a_clone_happens_once_under_its_idempotency_key(owner: httpx.Client) -> None:
    job_id = submit(owner)
    headers, body = {"Idempotency-Key": "copy"}, {"changes": {"name": "copy"}}
    made = owner.post(f"/v1/jobs/{job_id}/clone", headers=headers, json=body)
    again = owner.post(f"/v1/jobs/{job_id}/clone", headers=headers, json=body)
    assert (again.json()["id"], again.headers["Idempotent-Replayed"]) == (made.json()["id"], "true")
    other = owner.post(f"/v1/jobs/{job_id}/clone", headers=headers, json={"changes": {"name": "other"}})
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_mismatch")
    assert len(owner.get("/v1/jobs").json()["data"]) == 2


@pytest.mark.parametrize("verb", ["cancel", "pause", "resume", "delete", "retry", "clone"])
def test_every_verb_takes_if_match_and_gives_the_new_etag(owner: httpx.Client, verb: str) -> None:
    job_id = submit(owner)
    url = f"/v1/jobs/{job_id}"
    stale = owner.get(url).headers["ETag"]
    before = {"resume": "pause", "delete": "cancel", "retry": "cancel"}.get(verb)
    if before:
        owner.post(f"{url}/{before}")
    else:
        stale = '"another"'

    def use(tag: str) -> httpx.Response:
        method, path = ("DELETE", url) if verb == "delete" else ("POST", f"{url}/{verb}")
        body = {"json": {}} if verb == "clone" else {}
        return owner.request(method, path, headers={"If-Match": tag}, **body)

    refused = use(stale)
    assert (refused.status_code, refused.json()["code"]) == (412, "precondition_failed")
    assert len(owner.get("/v1/jobs").json()["data"]) == 1
    current = owner.get(url).headers["ETag"]
    assert current != stale
    done = use(f'"x", {current}')
    assert done.is_success, done.text
    if verb == "delete":
        assert owner.get(url).status_code == 404
    else:
        assert done.headers["ETag"] == owner.get(f"/v1/jobs/{done.json()['id']}").headers["ETag"]
        assert done.headers["ETag"] != current


def test_an_analyst_changes_only_jobs_of_its_own(
    api: Api, owner: httpx.Client, analyst: httpx.Client
) -> None:
    theirs = submit(owner)
    for verb in ("cancel", "pause", "resume", "retry"):
        assert analyst.post(f"/v1/jobs/{theirs}/{verb}").status_code == 403, verb
    owner.post(f"/v1/jobs/{theirs}/cancel")
    for method, path in (("POST", "/retry"), ("DELETE", "")):
        refused = analyst.request(method, f"/v1/jobs/{theirs}{path}")
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    # Its specification can be seen, and so be submitted.
    cloned = analyst.post(f"/v1/jobs/{theirs}/clone", json={})
    assert cloned.status_code == 201
    mine = f"/v1/jobs/{cloned.json()['id']}"
    assert analyst.post(f"{mine}/pause").json()["status"] == "paused"
    assert analyst.post(f"{mine}/resume").json()["status"] == "queued"
    assert analyst.post(f"{mine}/cancel").json()["status"] == "cancelled"
    assert analyst.post(f"{mine}/retry").status_code == 201
    assert analyst.delete(mine).status_code == 200
    # An owner may do it to anyone's.
    assert owner.post(f"/v1/jobs/{submit(analyst)}/pause").status_code == 200


def test_a_clone_of_a_sealed_job_is_admitted_as_any_submission(
    api: Api, owner: httpx.Client, analyst: httpx.Client
) -> None:
    data = {"name": "people", "schema": json.dumps(SCHEMA), "visibility": "private"}
    assert owner.post("/v1/datasets", data=data, files={"file": ("x", CSV.encode())}).status_code == 201
    plain = {"dataset": "people", "model": {"kind": "logistic"}, "training": {"steps": 3, "batch_size": 8}}
    sealed = submit(owner, **plain)
    refused = analyst.post(f"/v1/jobs/{sealed}/clone", json={})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/privacy"
    changes = {"clipping": {"max_norm": 1.0}, "privacy": {"noise_multiplier": 2.0, "delta": 1e-4}}
    assert analyst.post(f"/v1/jobs/{sealed}/clone", json={"changes": changes}).status_code == 201


def test_a_resumed_jobs_queue_is_woken(
    api: Api, owner: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.services.delivery, "relay", lambda: 0)  # what is to be sent stays where it is
    job_id = submit(owner)

    def waiting() -> int:
        with reading(api.services.engine) as session:
            return len(session.scalars(select(OutboxRow.queue).where(OutboxRow.job_id == job_id)).all())

    owner.post(f"/v1/jobs/{job_id}/pause")
    before = waiting()
    owner.post(f"/v1/jobs/{job_id}/resume")
    assert waiting() == before + 1
