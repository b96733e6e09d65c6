"""Requests that nobody should send: no 5xx, a problem document for each, and nothing left behind."""

import base64
import json
import random
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
from sqlalchemy import func, select

from clipwise.store import cursors
from clipwise.store.sessions import reading
from clipwise.store.tables import Table
from tests.api.conftest import JOB, Api

JSON = {"Content-Type": "application/json"}
NUL, HALF = "\x00", "\ud800"


def raw_bodies() -> Iterator[tuple[bytes, int]]:
    yield b"{", 400
    yield b"\xff\xfe", 400
    yield b"[" * 100_000, 400
    yield b'{"a":' * 50_000 + b"1" + b"}" * 50_000, 400
    # A kind that no package here has is looked at by workers: nothing else limits what it holds.
    yield b'{"dataset": "digits", "model": {"kind": "x", "y": ' + b"[" * 300 + b"]" * 300 + b"}}", 422
    yield b'{"name": NaN}', 400
    yield b'{"training": {"steps": -Infinity}}', 400
    yield b'{"training": {"steps": ' + b"9" * 5000 + b"}}", 400
    yield b"null", 422
    yield b'"text"', 422
    yield b"[]", 422
    yield b"1", 422
    yield b"", 422
    yield b'{"name": "a\\u0000b"}', 422
    yield b'{"a\\u0000b": 1}', 422
    yield b'{"name": "\\ud800"}', 422
    yield b" " * (2**20 + 1), 413


def broken_jobs(number: int) -> Iterator[dict[str, Any]]:
    """Yield jobs with one value replaced by something else, somewhere."""
    chance = random.Random(7)
    values: list[Any] = [
        None, True, -1, 0, 2**63, 10**30, 1e308, -1e308, 5e-324, 0.1, "", "x" * 5000, "a'--", NUL,
        HALF, "\u202e", [], {}, [None], {"kind": "mlp"}, {"": {}}, [[[[]]]], {"kind": 1}, {"kind": None}, "1",
    ]  # fmt: skip
    full: dict[str, Any] = {
        **JOB,
        "optimizer": {
            "learning_rate": 0.1,
            "modules": [{"kind": "momentum", "beta": 0.9}],
            "regularizers": [],
        },
        "clipping": {"kind": "flat", "max_norm": 1.0, "schedule": {"kind": "constant"}},
        "privacy": {"target_epsilon": 3.0, "delta": 1e-4},
        "evaluation": {"fraction": 0.2, "every_steps": 5},
        "resources": {"queue": "cpu", "gpus": 0},
        "limits": {"max_runtime_seconds": 60},
        "tags": {"team": "x"},
    }

    def places(value: Any) -> Iterator[tuple[Any, Any]]:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield value, key
            if isinstance(item, dict | list):
                yield from places(item)

    for _ in range(number):
        job = json.loads(json.dumps(full))
        container, key = chance.choice(list(places(job)))
        if isinstance(container, dict) and chance.random() < 0.3:
            container[chance.choice(["extra", "", NUL, HALF, "kind"])] = chance.choice(values)
        else:
            container[key] = chance.choice(values)
        yield job


def count_rows(api: Api) -> dict[str, int]:
    """Count what there is, once nothing waits for the relay any more."""
    deadline = time.monotonic() + 10
    while True:
        with reading(api.services.engine) as session:
            found = {
                name: session.execute(select(func.count()).select_from(table)).scalar_one()
                for name, table in Table.metadata.tables.items()
                if name != "duties"  # what the api does beside the requests
            }
        if found["outbox"] == 0 or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def assert_refused(answer: httpx.Response, *statuses: int) -> None:
    assert answer.status_code in (statuses or (400, 404, 405, 409, 413, 415, 422)), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == answer.status_code
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert problem["detail"]


def test_malformed_requests_are_refused_and_leave_no_row(api: Api, owner: httpx.Client) -> None:
    parent = owner.post("/v1/jobs", json=JOB).json()["id"]
    clone = f"/v1/jobs/{parent}/clone"
    before = count_rows(api)
    for body, status in raw_bodies():
        for path in ("/v1/jobs", "/v1/jobs/bulk", clone):
            assert_refused(owner.post(path, content=body, headers=JSON), status)
    for kind in ("text/plain", "application/xml", "multipart/form-data", "", "application/", "json"):
        answer = owner.post("/v1/jobs", content=json.dumps(JOB), headers={"Content-Type": kind})
        assert_refused(answer, 415)
    created = 0
    submitted = [("/v1/jobs", job) for job in broken_jobs(150)]
    for path, document in submitted + [(clone, {"changes": job}) for job in broken_jobs(50)]:
        answer = owner.post(path, content=json.dumps(document), headers=JSON)
        if answer.status_code == 201:  # some replacements are fine
            created += 1
            job_id = answer.json()["id"]
            assert owner.get(f"/v1/jobs/{job_id}").status_code == 200
            assert owner.post(f"/v1/jobs/{job_id}/cancel").status_code == 200
            assert owner.delete(f"/v1/jobs/{job_id}").status_code == 200
        else:
            assert_refused(answer, 422)
    assert created < 80
    paths = [
        "/v1/jobs/%00", "/v1/jobs/a%00b/events", "/v1/jobs?q=%00", "/v1/jobs?dataset=a%00",
        "/v1/datasets/%00",
        "/v1/jobs?limit=0", "/v1/jobs?limit=x", "/v1/jobs?status=flying", "/v1/jobs?sort=sideways",
        "/v1/jobs?after=%F0%9F%92%A9", "/v1/jobs?after=W10", "/v1/jobs?after=" + "A" * 400,
        "/v1/jobs/" + "x" * 5000, "/v1/models/..", "/v1/jobs/x/artifacts/..%2f..%2f..%2fetc%2fpasswd",
        "/v1/jobs/x/metrics?max_points=-1", "/v1/jobs/x/logs?after=99999999999999999999",
        "/v1/jobs/x/checkpoints/x", "/v1/jobs/x/checkpoints/-1", "/v1/jobs/x/checkpoints/" + "9" * 20,
        "/v1/jobs/x/attempts?limit=0", "/v1/jobs?parent=" + "x" * 500, "/v1/jobs/bulk",
        "/v1/nothing", "/v1/jobs/x/nothing", "/v1/jobs/", "/v1/Jobs",
    ]  # fmt: skip
    moments = ("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "0001-01-01", "x")
    paths += [f"/v1/jobs?after={cursors.encode('-created_at', moment, 'x')}" for moment in moments]
    texts = [f'["name", "{text}", "x"]'.encode() for text in ("\\ud800", "\\u0000")]
    paths += [f"/v1/jobs?sort=name&after={base64.urlsafe_b64encode(text).decode()}" for text in texts]
    for path in paths:
        assert_refused(owner.get(path), 404, 422)
    # What is strange but says something gets an answer.
    for path in ("/v1/jobs?q=%ED%A0%80", "/v1/jobs?q=%FF", "/v1/jobs?tag=%25:_", "/v1/jobs?q=%5C"):
        assert owner.get(path).json()["data"] == []
    for method, path in (
        ("PUT", "/v1/jobs"),
        ("PATCH", "/v1/jobs/x"),
        ("DELETE", "/v1/jobs"),
    ):
        answer = owner.request(method, path)
        assert_refused(answer, 405)
        assert answer.headers["allow"]
    assert owner.put("/v1/session").headers["allow"] == "DELETE, GET, POST"
    assert owner.patch("/v1/jobs/x").headers["allow"] == "DELETE, GET"
    assert owner.put("/openapi.json").headers["allow"] == "GET"
    for headers in ({"Idempotency-Key": ""}, {"Idempotency-Key": "x" * 201}):
        assert_refused(owner.post("/v1/jobs", json=JOB, headers=headers), 422)
    for path in ("pause", "resume", "retry", "cancel", "clone"):
        answer = owner.post(f"/v1/jobs/{'x' * 101}/{path}", json={})
        assert_refused(answer, 422)
        assert_refused(owner.post(f"/v1/jobs/x%00/{path}", json={}), 422)
    for path in ("drain", "undrain"):
        assert_refused(owner.post(f"/v1/workers/{'x' * 101}/{path}"), 422)
    for chosen in ({"ids": [NUL]}, {"ids": [HALF]}, {"ids": [1]}, {"tag": "x:y"}, {"q": "x" * 201}):
        body = json.dumps({"verb": "cancel", "filter": chosen})
        assert_refused(owner.post("/v1/jobs/bulk", content=body, headers=JSON), 422)
    assert_refused(owner.post("/v1/api_keys", json={"name": "x", "role": "root"}), 422)
    assert_refused(owner.post("/v1/api_keys", json={"name": "x\x00", "role": "owner"}), 422)
    assert_refused(owner.post("/v1/session", content=b'{"token": "\\ud800"}', headers=JSON), 422)
    after = count_rows(api)
    assert after == before


def test_what_is_no_http_does_no_harm(api: Api, owner: httpx.Client) -> None:
    port = api.services.settings.port
    for payload in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /v1/jobs HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{",
        b"GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer \xff\r\nX: \xff\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(payload)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(4096)
        assert b"HTTP/1.1 5" not in answer
    assert owner.get("/v1/jobs").status_code == 200


def test_a_database_that_is_away_is_503_and_comes_back(
    api: Api, owner: httpx.Client, monkeypatch: Any
) -> None:
    from sqlalchemy.exc import OperationalError

    from clipwise.store import jobs

    def away(*_: Any, **__: Any) -> Any:
        raise OperationalError("SELECT secret", {}, Exception("host=db password=hunter2"))

    with monkeypatch.context() as patched:
        patched.setattr(jobs, "page", away)
        answer = owner.get("/v1/jobs")
        assert_refused(answer, 503)
        assert "hunter2" not in answer.text
        patched.setattr(jobs, "page", lambda *_, **__: 1 / 0)
        broken = owner.get("/v1/jobs")
        assert_refused(broken, 500)
        assert "ZeroDivision" not in broken.text
    assert owner.get("/v1/jobs").status_code == 200
