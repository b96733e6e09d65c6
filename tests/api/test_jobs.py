import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from sqlalchemy import select, update

from clipwise.store import idempotency
from clipwise.store.sessions import reading, transaction
from clipwise.store.tables import IdempotencyRow, JobRow
from tests.api.conftest import JOB, PRIVATE_JOB, Api


def wait_for_status(client: httpx.Client, job_id: str, status: str, seconds: float = 30) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        job: dict[str, Any] = client.get(f"/v1/jobs/{job_id}").json()
        if job["status"] == status:
            return job
        time.sleep(0.05)
    raise AssertionError(f"still {job['status']}: {job['status_reason']}")


def test_a_job_is_submitted_listed_read_cancelled_and_deleted(owner: httpx.Client) -> None:
    created = owner.post("/v1/jobs", json={**JOB, "tags": {"team": "cardiology"}})
    assert created.status_code == 201, created.text
    job = created.json()
    assert created.headers["Location"] == f"/v1/jobs/{job['id']}"
    assert job["status"] == "queued"
    assert job["plan"]["steps"] == 10
    assert job["status_reason"]["code"] == "no_matching_worker"
    assert job["status_reason"]["message"].startswith(
        "no running worker serves the queue 'cpu'; waiting since"
    )
    assert job["allowed"] == ["cancel", "clone", "pause"]
    assert owner.get("/v1/jobs").json()["data"] == [job]
    assert [e["type"] for e in owner.get(f"/v1/jobs/{job['id']}/events").json()["data"]] == [
        "submitted",
        "queued",
    ]
    refused = owner.delete(f"/v1/jobs/{job['id']}")
    assert refused.status_code == 409
    assert refused.json()["allowed"] == ["cancel", "clone", "pause"]
    cancelled = owner.post(f"/v1/jobs/{job['id']}/cancel")
    assert cancelled.status_code == 200
    assert cancelled.json()["status"] == "cancelled"
    assert cancelled.json()["status_reason"]["code"] == "user_cancelled"
    again = owner.post(f"/v1/jobs/{job['id']}/cancel")
    assert again.status_code == 409
    assert again.json()["code"] == "illegal_transition"
    assert again.json()["allowed"] == ["clone", "delete", "retry"]
    assert owner.delete(f"/v1/jobs/{job['id']}").json()["deleted"] is True
    assert owner.get(f"/v1/jobs/{job['id']}").status_code == 404
    assert owner.get(f"/v1/jobs/{job['id']}/events").status_code == 404


def test_a_private_job_waits_for_its_noise_and_is_queued_with_it(owner: httpx.Client) -> None:
    job = owner.post("/v1/jobs", json=PRIVATE_JOB).json()
    assert job["status"] == "validating"
    assert job["plan"] is None
    queued = wait_for_status(owner, job["id"], "queued")
    assert queued["plan"]["noise_multiplier"] == 4.0
    assert queued["plan"]["epsilon"] > 0
    # The calibration is shared: the same noise is known at once, for a plan and for a job.
    started = time.monotonic()
    plan = owner.post("/v1/jobs/validate", json={**PRIVATE_JOB, "name": "another"})
    assert plan.status_code == 200
    assert plan.json() == queued["plan"]
    assert owner.post("/v1/jobs", json=PRIVATE_JOB).json()["status"] == "queued"
    assert time.monotonic() - started < 1


def test_a_plan_creates_nothing(owner: httpx.Client) -> None:
    plan = owner.post("/v1/jobs/validate", json=JOB).json()
    assert plan["sampling_rate"] == 32 / plan["training_size"]
    assert plan["training_size"] == int(1797 * 0.8)
    assert plan["noise_multiplier"] is None
    assert owner.get("/v1/jobs").json()["data"] == []


def test_what_is_wrong_is_named_by_pointers(owner: httpx.Client) -> None:
    def pointers(document: dict[str, Any]) -> set[str]:
        answer = owner.post("/v1/jobs", json=document)
        assert answer.status_code == 422, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["request_id"] == answer.headers["X-Request-Id"]
        return {error["pointer"] for error in answer.json()["errors"]}

    assert pointers({**JOB, "dataset": "nowhere"}) == {"/dataset"}
    assert pointers({**JOB, "model": {"kind": "unheard-of"}}) == {"/model/kind"}
    assert pointers({**JOB, "model": {"kind": "mlp", "hidden_sizes": [-1]}}) == {"/model/hidden_sizes/0"}
    assert pointers({**JOB, "model": {"kind": "linear"}}) == {"/model/kind"}
    assert pointers({**JOB, "training": {"steps": 5, "batch_size": 5000}}) == {"/training/batch_size"}
    assert pointers({**JOB, "surprise": 1}) == {"/surprise"}
    wrong_modules = {"modules": [{"kind": "momentum", "beta": 2.0}, {"kind": "nothing"}]}
    assert pointers({**JOB, "optimizer": wrong_modules}) == {
        "/optimizer/modules/0/beta",
        "/optimizer/modules/1/kind",
    }
    assert owner.get("/v1/jobs").json()["data"] == []


def test_an_unreachable_target_fails_validation(owner: httpx.Client) -> None:
    impossible = {**PRIVATE_JOB, "privacy": {"target_epsilon": 1e-9, "delta": 1e-10}}
    job = owner.post("/v1/jobs", json=impossible).json()
    if "id" in job:
        failed = wait_for_status(owner, job["id"], "failed", 60)
        assert failed["status_reason"]["code"] == "validation_failed"
        assert "target_epsilon" in failed["status_reason"]["message"]
    # Now it is known, so that it is refused at once, with the field.
    again = owner.post("/v1/jobs", json=impossible)
    assert again.status_code == 422
    assert again.json()["errors"][0]["pointer"] == "/privacy/target_epsilon"


def test_an_idempotency_key_submits_once_under_concurrency(api: Api, owner: httpx.Client) -> None:
    def submit(_: int) -> httpx.Response:
        with api.client() as client:
            return client.post("/v1/jobs", json=JOB, headers={"Idempotency-Key": "once"})

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(submit, range(24)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("Idempotent-Replayed" not in answer.headers for answer in answers) == 1
    assert len(owner.get("/v1/jobs").json()["data"]) == 1
    other = owner.post("/v1/jobs", json={**JOB, "name": "x"}, headers={"Idempotency-Key": "once"})
    assert other.status_code == 409
    assert other.json()["code"] == "idempotency_mismatch"
    # The key is of the caller: another caller's is another one.
    with api.client(api.key_of("analyst")) as analyst:
        answer = analyst.post("/v1/jobs", json=JOB, headers={"Idempotency-Key": "once"})
    assert answer.status_code == 201
    assert "Idempotent-Replayed" not in answer.headers


def test_an_idempotency_key_is_kept_for_a_day(api: Api, owner: httpx.Client) -> None:
    headers = {"Idempotency-Key": "yesterday"}
    first = owner.post("/v1/jobs", json=JOB, headers=headers)

    def age(hours: float) -> None:
        with transaction(api.services.engine) as session:
            moment = datetime.now(UTC) - timedelta(hours=hours)
            session.execute(update(IdempotencyRow).values(created_at=moment))

    age(23.9)
    again = owner.post("/v1/jobs", json=JOB, headers=headers)
    assert (again.json()["id"], again.headers["Idempotent-Replayed"]) == (first.json()["id"], "true")
    age(24.1)
    other = owner.post("/v1/jobs", json={**JOB, "name": "another"}, headers=headers)
    assert other.status_code == 201
    assert "Idempotent-Replayed" not in other.headers
    assert other.json()["id"] != first.json()["id"]
    again = owner.post("/v1/jobs", json={**JOB, "name": "another"}, headers=headers)
    assert (again.json()["id"], again.headers["Idempotent-Replayed"]) == (other.json()["id"], "true")
    with transaction(api.services.engine) as session:
        idempotency.remove_expired(session)
        assert session.scalars(select(IdempotencyRow.key)).all() == ["yesterday"]
    age(24.1)
    with transaction(api.services.engine) as session:
        idempotency.remove_expired(session)
        assert session.scalars(select(IdempotencyRow.key)).all() == []


def test_a_replay_of_a_job_that_was_deleted_says_so(owner: httpx.Client) -> None:
    headers = {"Idempotency-Key": "gone"}
    job_id = owner.post("/v1/jobs", json=JOB, headers=headers).json()["id"]
    owner.post(f"/v1/jobs/{job_id}/cancel")
    owner.delete(f"/v1/jobs/{job_id}")
    again = owner.post("/v1/jobs", json=JOB, headers=headers)
    assert again.status_code == 409
    assert "new Idempotency-Key" in again.json()["detail"]


def test_a_job_knows_the_request_that_submitted_it(api: Api, owner: httpx.Client) -> None:
    made = owner.post("/v1/jobs", json=JOB)
    with reading(api.services.engine) as session:
        assert session.get_one(JobRow, made.json()["id"]).request_id == made.headers["X-Request-Id"]


def test_pages_are_stable_while_jobs_are_added_and_removed(owner: httpx.Client) -> None:
    first = [owner.post("/v1/jobs", json={**JOB, "name": f"job {n}"}).json()["id"] for n in range(7)]
    for sort, expected in (("-created_at", first[::-1]), ("created_at", first), ("name", first)):
        seen: list[str] = []
        after = None
        while True:
            params: dict[str, Any] = {"limit": 3, "sort": sort, **({"after": after} if after else {})}
            page = owner.get("/v1/jobs", params=params).json()
            seen += [job["id"] for job in page["data"]]
            if not page["has_more"]:
                assert page["next_cursor"] is None
                break
            after = page["next_cursor"]
            if sort == "-created_at":
                owner.post("/v1/jobs", json={**JOB, "name": "newer", "tags": {"new": "yes"}})
        assert [job_id for job_id in seen if job_id in expected] == expected
        for job in owner.get("/v1/jobs", params={"tag": "new:yes", "limit": 100}).json()["data"]:
            owner.post(f"/v1/jobs/{job['id']}/cancel")
            owner.delete(f"/v1/jobs/{job['id']}")
    wrong_order = owner.get("/v1/jobs", params={"after": after, "sort": "-name"})
    assert wrong_order.status_code == 422
    assert owner.get("/v1/jobs", params={"after": "nonsense"}).status_code == 422


def test_pages_by_name_whatever_the_names_are(owner: httpx.Client) -> None:
    names = {
        "\u4e2d" * 200,
        "\U0001f600" * 200,
        "a\u200dzero-width joiner",
        "a\u00a0space",
        "a\nline",
        '"' * 200,
    }
    for name in names:
        assert owner.post("/v1/jobs", json={**JOB, "name": name}).status_code == 201
    for sort in ("name", "-name"):
        seen, after = [], None
        while True:
            params = {"limit": 1, "sort": sort, **({"after": after} if after else {})}
            answer = owner.get("/v1/jobs", params=params)
            assert answer.status_code == 200, answer.text
            seen += [job["name"] for job in answer.json()["data"]]
            after = answer.json()["next_cursor"]
            if after is None:
                break
        assert len(seen) == len(names)
        assert set(seen) == names


def test_filters(api: Api, owner: httpx.Client) -> None:
    plain = owner.post(
        "/v1/jobs", json={**JOB, "name": "100% plain_one", "tags": {"a": "1", "b": "2"}}
    ).json()
    wine = {**JOB, "dataset": "wine", "model": {"kind": "logistic"}, "tags": {"a": "1"}, "name": "other"}
    other = owner.post("/v1/jobs", json=wine).json()
    owner.post(f"/v1/jobs/{other['id']}/cancel")

    def found(**params: Any) -> list[str]:
        answer = owner.get("/v1/jobs", params={**params, "sort": "created_at"})
        assert answer.status_code == 200, answer.text
        return [job["id"] for job in answer.json()["data"]]

    assert found(status="queued") == [plain["id"]]
    assert found(status=["queued", "cancelled"]) == [plain["id"], other["id"]]
    assert found(dataset="wine") == [other["id"]]
    assert found(dataset=plain["dataset_id"]) == [plain["id"]]
    assert found(model="logistic") == [other["id"]]
    assert found(tag="a:1") == [plain["id"], other["id"]]
    assert found(tag=["a:1", "b:2"]) == [plain["id"]]
    assert found(q="PLAIN_") == [plain["id"]]
    assert found(q="0% p") == [plain["id"]]
    assert found(q="%") == [plain["id"]]
    gpu = owner.post("/v1/jobs", json={**JOB, "resources": {"gpus": 1}}).json()
    assert found(queue="gpu") == [gpu["id"]]
    retried = owner.post(f"/v1/jobs/{other['id']}/retry").json()
    assert found(parent=other["id"]) == [retried["id"]]
    with api.client(api.key_of("analyst")) as analyst:
        mine = analyst.post("/v1/jobs", json=JOB).json()
        listed = analyst.get("/v1/jobs", params={"created_by": "me"}).json()["data"]
    assert [job["id"] for job in listed] == [mine["id"]]
    assert found(created_by="me") == [plain["id"], other["id"], gpu["id"], retried["id"]]
    key = next(k for k in owner.get("/v1/api_keys").json()["data"] if k["role"] == "analyst")
    assert found(created_by=key["id"]) == [mine["id"]]
    assert owner.get("/v1/jobs", params={"tag": "no colon"}).status_code == 422
    assert owner.get("/v1/jobs", params={"limit": 101}).json()["errors"][0]["pointer"] == "/query/limit"


def test_etags_tell_versions_apart(owner: httpx.Client) -> None:
    job = owner.post("/v1/jobs", json=JOB).json()
    url = f"/v1/jobs/{job['id']}"
    tag = owner.get(url).headers["ETag"]
    made = owner.post("/v1/jobs", json=JOB)
    assert made.headers["ETag"] == owner.get(made.headers["Location"]).headers["ETag"]
    unchanged = owner.get(url, headers={"If-None-Match": tag})
    assert (unchanged.status_code, unchanged.content, unchanged.headers["ETag"]) == (304, b"", tag)
    stale = owner.post(f"{url}/cancel", headers={"If-Match": '"something else"'})
    assert stale.status_code == 412
    assert owner.get(url).json()["status"] == "queued"
    assert owner.post(f"{url}/cancel", headers={"If-Match": tag}).status_code == 200
    changed = owner.get(url, headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert owner.delete(url, headers={"If-Match": changed.headers["ETag"]}).status_code == 200
