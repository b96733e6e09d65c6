import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute, iter_route_contexts

from clipwise.settings import Settings
from clipwise.store import keys, migration
from clipwise.store.sessions import connect, reading
from clipwise_api.app import create_app
from clipwise_api.gate import needs_key
from clipwise_api.principals import PERMISSIONS
from tests.api.conftest import JOB, KEY, Api

CALLS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "get_session": ("GET", "/v1/session", {}),
    "delete_session": ("DELETE", "/v1/session", {}),
    "create_sign_in_link": ("POST", "/v1/sign_in_links", {}),
    "create_api_key": ("POST", "/v1/api_keys", {"json": {"name": "x", "role": "operator"}}),
    "list_api_keys": ("GET", "/v1/api_keys", {}),
    "delete_api_key": ("DELETE", "/v1/api_keys/none", {}),
    "create_job": ("POST", "/v1/jobs", {"json": JOB}),
    "list_jobs": ("GET", "/v1/jobs", {}),
    "validate_job": ("POST", "/v1/jobs/validate", {"json": JOB}),
    "get_job": ("GET", "/v1/jobs/none", {}),
    "cancel_job": ("POST", "/v1/jobs/none/cancel", {}),
    "bulk_jobs": ("POST", "/v1/jobs/bulk", {"json": {"verb": "cancel", "filter": {"ids": ["none"]}}}),
    "pause_job": ("POST", "/v1/jobs/none/pause", {}),
    "resume_job": ("POST", "/v1/jobs/none/resume", {}),
    "retry_job": ("POST", "/v1/jobs/none/retry", {}),
    "clone_job": ("POST", "/v1/jobs/none/clone", {"json": {}}),
    "delete_job": ("DELETE", "/v1/jobs/none", {}),
    "list_events": ("GET", "/v1/jobs/none/events", {}),
    "get_metrics": ("GET", "/v1/jobs/none/metrics", {}),
    "list_logs": ("GET", "/v1/jobs/none/logs", {}),
    "list_attempts": ("GET", "/v1/jobs/none/attempts", {}),
    "list_checkpoints": ("GET", "/v1/jobs/none/checkpoints", {}),
    "download_checkpoint": ("GET", "/v1/jobs/none/checkpoints/1", {}),
    "list_artifacts": ("GET", "/v1/jobs/none/artifacts", {}),
    "download_artifact": ("GET", "/v1/jobs/none/artifacts/x", {}),
    "create_dataset": ("POST", "/v1/datasets", {"files": {"file": b"a\n"}, "data": {"name": ""}}),
    "list_datasets": ("GET", "/v1/datasets", {}),
    "get_dataset": ("GET", "/v1/datasets/none", {}),
    "confirm_dataset_schema": ("PUT", "/v1/datasets/none/schema", {"json": {}}),
    "delete_dataset": ("DELETE", "/v1/datasets/none", {}),
    "list_populations": ("GET", "/v1/populations", {}),
    "list_models": ("GET", "/v1/models", {}),
    "get_model": ("GET", "/v1/models/mlp", {}),
    "list_optimizer_modules": ("GET", "/v1/optimizer_modules", {}),
    "list_workers": ("GET", "/v1/workers", {}),
    "drain_worker": ("POST", "/v1/workers/none/drain", {}),
    "undrain_worker": ("POST", "/v1/workers/none/undrain", {}),
    "list_queues": ("GET", "/v1/queues", {}),
    "get_openapi": ("GET", "/openapi.json", {}),
    "scrape": ("GET", "/metrics", {}),
}
OPEN = {"healthz", "readyz", "create_session"}


def test_every_route_has_a_line_in_the_table_of_permissions(settings: Settings) -> None:
    routes = [c.route for c in iter_route_contexts(create_app(settings).routes)]
    names = {route.name for route in routes if isinstance(route, APIRoute)}
    assert names == set(PERMISSIONS)
    assert len(names) > 30
    assert set(CALLS) | OPEN == names
    assert {name for name, roles in PERMISSIONS.items() if roles is None} == OPEN


def test_no_key_no_data(api: Api) -> None:
    with api.client(key=None) as nobody:
        for operation, (method, path, options) in CALLS.items():
            answer = nobody.request(method, path, **options)
            assert answer.status_code == 401, operation
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert answer.headers["content-type"] == "application/problem+json"
        for path in ("/v1", "/v1/", "/v1/nothing", "/v1/jobs/", "/v1//jobs", "/v1/../v1/jobs", "/v1/%6aobs"):
            assert nobody.get(path).status_code == 401, path
        for key in ("wrong", "cw_" + "x" * 43, KEY[:-1], "é"):
            answer = nobody.get("/v1/jobs", headers={b"Authorization": f"Bearer {key}".encode()})
            assert answer.status_code == 401
        for header in (KEY, f"Basic {KEY}", "Bearer"):
            assert nobody.get("/v1/jobs", headers={"Authorization": header}).status_code == 401
        for path in ("/healthz", "/readyz"):
            assert nobody.get(path).json()["status"] == "ok"


@pytest.mark.parametrize("role", ["owner", "analyst", "operator"])
def test_each_role_may_use_its_routes_and_no_other(api: Api, role: str) -> None:
    with api.client(api.key_of(role)) as client:
        for operation, (method, path, options) in CALLS.items():
            answer = client.request(method, path, **options)
            allowed = PERMISSIONS[operation]
            assert allowed is not None
            assert (answer.status_code != 403) == (role in allowed), (operation, answer.text)
            assert answer.status_code < 500
            assert answer.status_code != 401


def test_a_route_that_is_in_no_table_is_refused(settings: Settings, api: Api) -> None:
    from clipwise.errors import Forbidden
    from clipwise_api.principals import Principal, require_permission

    with pytest.raises(Forbidden):
        require_permission(Principal(key_id="k", name="n", role="owner"), "added_without_thinking")
    with pytest.raises(Forbidden):
        require_permission(None, "list_jobs")


def test_a_key_is_shown_once_listed_without_its_secret_and_revoked(api: Api, owner: httpx.Client) -> None:
    made = owner.post("/v1/api_keys", json={"name": "ci", "role": "analyst"})
    key = made.json()
    assert key["secret"].startswith("cw_")
    assert key["secret"].startswith(key["prefix"])
    listed = {k["id"]: k for k in owner.get("/v1/api_keys").json()["data"]}
    assert listed[key["id"]]["secret"] is None
    assert key["secret"] not in owner.get("/v1/api_keys").text
    with reading(connect(api.services.settings.database)) as session:
        rows = keys.list_keys(session)
    assert all(key["secret"] not in str(vars(row)) for row in rows)
    with api.client(key["secret"]) as client:
        assert client.get("/v1/jobs").status_code == 200
        assert owner.delete(f"/v1/api_keys/{key['id']}").status_code == 200
        assert client.get("/v1/jobs").status_code == 401
    assert owner.delete(f"/v1/api_keys/{key['id']}").status_code == 404
    (last,) = [k["id"] for k in owner.get("/v1/api_keys").json()["data"]]
    assert owner.delete(f"/v1/api_keys/{last}").status_code == 409
    assert owner.get("/v1/jobs").status_code == 200


def test_a_key_is_made_once_under_its_idempotency_key(owner: httpx.Client) -> None:
    headers, new = {"Idempotency-Key": "k"}, {"name": "ci", "role": "analyst"}
    made = owner.post("/v1/api_keys", json=new, headers=headers)
    again = owner.post("/v1/api_keys", json=new, headers=headers)
    assert (again.status_code, again.json()["id"]) == (201, made.json()["id"])
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.json()["secret"] is None
    assert len(owner.get("/v1/api_keys").json()["data"]) == 2
    for path, body in (("/v1/api_keys", {**new, "role": "owner"}), ("/v1/jobs", JOB)):
        other = owner.post(path, json=body, headers=headers)
        assert (other.status_code, other.json()["code"]) == (409, "idempotency_mismatch")


@pytest.fixture
def browser(api: Api, owner: httpx.Client) -> Iterator[httpx.Client]:
    """A browser that was signed in by a link."""
    url = owner.post("/v1/sign_in_links").json()["url"]
    with api.client(key=None) as client:
        token = url.partition("#sign-in=")[2]
        answer = client.post("/v1/session", json={"token": token})
        assert answer.status_code == 201, answer.text
        client.headers["X-CSRF-Token"] = answer.json()["csrf_token"]
        yield client


def test_a_link_signs_one_browser_in_once(api: Api, owner: httpx.Client) -> None:
    link = owner.post("/v1/sign_in_links").json()
    base, _, token = link["url"].partition("/#sign-in=")
    assert base == api.url
    with api.client(key=None) as browser:
        answer = browser.post("/v1/session", json={"token": token})
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert answer.json()["role"] == "owner"
        assert browser.get("/v1/session").json()["csrf_token"] == answer.json()["csrf_token"]
        assert browser.get("/v1/jobs").status_code == 200
    with api.client(key=None) as other:
        assert other.post("/v1/session", json={"token": token}).status_code == 401
        assert other.post("/v1/session", json={"token": "guess"}).status_code == 401
        assert other.post("/v1/session", json={"api_key": "guess"}).status_code == 401
        assert other.post("/v1/session", json={}).status_code == 422
        assert other.post("/v1/session", json={"api_key": KEY}).status_code == 201
        assert other.get("/v1/jobs").status_code == 200


def test_a_change_from_a_browser_needs_its_csrf_token(browser: httpx.Client) -> None:
    token = browser.headers.pop("X-CSRF-Token")
    for headers in ({}, {"X-CSRF-Token": ""}, {"X-CSRF-Token": "x" * len(token)}, {"X-CSRF-Token": "é"}):
        encoded = {name.encode(): value.encode() for name, value in headers.items()}
        refused = browser.post("/v1/jobs", json=JOB, headers=encoded)
        assert refused.status_code == 403, refused.text
    assert browser.get("/v1/jobs").json()["data"] == []
    assert browser.post("/v1/jobs", json=JOB, headers={"X-CSRF-Token": token}).status_code == 201


def test_signing_out_ends_the_session(api: Api, browser: httpx.Client) -> None:
    cookies = dict(browser.cookies)
    assert browser.delete("/v1/session").status_code == 200
    with api.client(key=None, cookies=cookies) as copy:
        assert copy.get("/v1/jobs").status_code == 401


def test_another_sites_page_cannot_use_the_session(api: Api, browser: httpx.Client) -> None:
    for origin in ("https://evil.example", "http://127.0.0.1:1", "null", "http://[", f"{api.url}.evil"):
        assert browser.get("/v1/jobs", headers={"Origin": origin}).status_code == 403, origin
    assert browser.get("/v1/jobs", headers={"Origin": api.url}).status_code == 200


def test_a_rebound_name_is_not_served(api: Api, browser: httpx.Client, owner: httpx.Client) -> None:
    for host in ("evil.example", "evil.example:8470", "127.0.0.1.evil.example", "", "[::1", "localhost:x"):
        for client in (browser, owner):
            for path in ("/v1/jobs", "/", "/openapi.json"):
                assert client.get(path, headers={"Host": host}).status_code in {400, 421}, host
    port = api.services.settings.port
    for host in (f"localhost:{port}", "LOCALHOST", f"[::1]:{port}"):
        assert owner.get("/v1/jobs", headers={"Host": host}).status_code == 200, host
    # Probes of an orchestrator come by address.
    assert owner.get("/healthz", headers={"Host": "10.0.0.7:8470"}).status_code == 200


def test_the_public_url_is_served(settings: Settings) -> None:
    from tests.api.conftest import start

    running = start(settings.model_copy(update={"public_url": "https://clipwise.example/"}))
    try:
        with running.client() as client:
            headers = {"Host": "clipwise.example", "Origin": "https://clipwise.example"}
            assert client.get("/v1/jobs", headers=headers).status_code == 200
            link = client.post("/v1/sign_in_links", headers=headers).json()["url"]
            assert link.startswith("https://clipwise.example/#sign-in=")
            token = link.partition("#sign-in=")[2]
            signed_in = client.post("/v1/session", json={"token": token}, headers=headers)
            assert "secure" in signed_in.headers["set-cookie"].lower()
            assert client.get("/v1/jobs", headers={"Origin": "https://other.example"}).status_code == 403
    finally:
        running.stop()


def test_every_answer_carries_the_headers_that_protect_it(owner: httpx.Client) -> None:
    for path in ("/", "/v1/jobs", "/v1/nothing", "/nothing.js", "/healthz"):
        headers = owner.get(path).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-request-id"].startswith("req_")
        assert "server" not in headers
    assert owner.get("/v1/jobs").headers["cache-control"] == "no-store"


def test_the_first_key_is_made_once_by_several_processes(database_url: str, tmp_path: Path) -> None:
    migration.upgrade(database_url)
    file = tmp_path / "data" / "api_key"
    barrier, failures = threading.Barrier(8), []

    def begin() -> None:
        engine = connect(database_url)
        barrier.wait()
        try:
            keys.ensure_first_key(engine, None, file)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with reading(connect(database_url)) as session:
        (row,) = keys.list_keys(session)
        assert keys.find_key(session, file.read_text().strip()) is not None
    assert row.role == "owner"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_given_first_key_works_beside_others_and_stays_revoked(database_url: str, tmp_path: Path) -> None:
    migration.upgrade(database_url)
    engine = connect(database_url)
    keys.ensure_first_key(engine, None, tmp_path / "api_key")
    keys.ensure_first_key(engine, KEY, tmp_path / "api_key")
    keys.ensure_first_key(engine, KEY, tmp_path / "api_key")
    from clipwise.store.sessions import transaction

    with transaction(engine) as session:
        assert len(keys.list_keys(session)) == 2
        given = keys.find_key(session, KEY)
        assert given is not None
        keys.revoke_key(session, given.id)
    keys.ensure_first_key(engine, KEY, tmp_path / "api_key")
    with reading(engine) as session:
        assert keys.find_key(session, KEY) is None


def test_only_v1_and_the_document_need_a_key() -> None:
    assert needs_key("GET", "/v1/jobs")
    assert needs_key("GET", "/v1/session")
    assert needs_key("GET", "/openapi.json")
    assert not needs_key("POST", "/v1/session")
    assert not needs_key("GET", "/jobs/job_1")


def test_the_api_starts_without_torch() -> None:
    code = (
        "import sys, clipwise_api.app, clipwise_api.server, clipwise_api.openapi\n"
        "print(sorted({'torch', 'jax', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert done.stdout.strip() == "[]", done.stderr
