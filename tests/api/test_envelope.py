"""What every request gets: an id that its logs and its answer agree on, and one line in the log."""

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from clipwise.logs import LineFormatter
from clipwise.settings import Settings
from clipwise.store import migration
from tests.api.conftest import JOB, KEY, Api

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """Return a function that gives what the api has logged, as it would be written as JSON."""
    written: list[str] = []

    class Written(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(self.format(record))

    handler = Written()
    handler.addFilter(logging.Filter("clipwise_api"))  # not what the client of the tests logs
    handler.setFormatter(LineFormatter("json", "api"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield lambda: [json.loads(line) for line in written]
    root.removeHandler(handler)
    root.setLevel(level)


def requests(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in found if line["logger"] == "clipwise_api.traffic"]


def test_a_request_is_one_line_with_the_template_of_its_route(owner: httpx.Client, lines: Lines) -> None:
    answer = owner.get("/v1/jobs/job_0000?secret=in-the-query")
    (line,) = requests(lines())
    assert (line["method"], line["route"], line["status"]) == ("GET", "/v1/jobs/{job_id}", 404)
    assert line["request_id"] == answer.headers["x-request-id"]
    assert line["job_id"] == "job_0000"
    assert line["key_id"].startswith("key_")
    assert line["duration_ms"] > 0
    assert "in-the-query" not in json.dumps(lines())
    assert KEY not in json.dumps(lines())


def test_a_refused_request_is_a_line_without_a_key(api: Api, lines: Lines) -> None:
    with api.client(key="cw_not-a-key-that-anybody-has-ever-made-here") as nobody:
        assert nobody.get("/v1/jobs").status_code == 401
    (line,) = requests(lines())
    assert (line["status"], line["key_id"], line["route"]) == (401, None, "(none)")
    assert "not-a-key" not in json.dumps(lines())


def test_probes_and_files_of_the_dashboard_are_no_lines(owner: httpx.Client, lines: Lines) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/", "/nothing.js"):
        owner.get(path)
    assert requests(lines()) == []


@pytest.mark.parametrize("given", ["a", "trace-7.x_Y", "0" * 64])
def test_an_id_that_the_client_gives_is_kept(owner: httpx.Client, lines: Lines, given: str) -> None:
    answer = owner.get("/v1/jobs/none", headers={"X-Request-Id": given})
    assert answer.headers["x-request-id"] == given
    assert answer.json()["request_id"] == given
    assert requests(lines())[0]["request_id"] == given


@pytest.mark.parametrize("given", ["", "0" * 65, "a b", "a\tb", "<script>", 'a"b', "é", KEY])
def test_an_id_that_is_none_is_replaced(owner: httpx.Client, lines: Lines, given: str) -> None:
    answer = owner.get("/v1/jobs/none", headers={b"X-Request-Id": given.encode()})
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_a_fault_of_ours_is_logged_with_its_traceback_and_the_id_of_its_request(
    owner: httpx.Client, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("broken at postgresql://u:S3cr3t@db/x")

    monkeypatch.setattr("clipwise_api.views.fleet.queues", broken)
    answer = owner.get("/v1/queues")
    assert answer.status_code == 500
    assert "broken" not in answer.text
    (fault,) = (line for line in lines() if line["level"] == "ERROR")
    assert "RuntimeError: broken at postgresql://u:***@db/x" in fault["exception"]
    assert fault["request_id"] == answer.json()["request_id"]
    assert requests(lines())[-1]["status"] == 500


def test_an_error_of_the_database_is_logged_without_the_values_of_its_statement(
    owner: httpx.Client, api: Api, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = "-".join(("of", "a", "person"))  # a traceback repeats the lines of the source

    def broken(*_: object, **__: object) -> None:
        with api.services.engine.connect() as connection:
            connection.execute(text("INSERT INTO populations (id) VALUES (:value)"), {"value": value})

    monkeypatch.setattr("clipwise_api.views.fleet.queues", broken)
    assert owner.get("/v1/queues").status_code in {500, 503}
    assert "INSERT" in json.dumps(lines())
    assert value not in json.dumps(lines())


def test_a_submitted_job_keeps_the_id_of_its_request(owner: httpx.Client, api: Api) -> None:
    job_id = owner.post("/v1/jobs", json=JOB, headers={"X-Request-Id": "mine-1"}).json()["id"]
    with api.services.engine.connect() as connection:
        query = text("SELECT request_id FROM jobs WHERE id = :id")
        assert connection.execute(query, {"id": job_id}).scalar_one() == "mine-1"


def serve_once(settings: Settings, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the api as its process until it ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "clipwise_api"],
        capture_output=True,
        text=True,
        timeout=60,
        env={
            "PATH": "",
            "HOME": "/nowhere",
            "CLIPWISE_DATA_DIR": str(settings.data_dir),
            "CLIPWISE_DATABASE_URL": settings.database,
            "CLIPWISE_API_KEY": KEY,
            "CLIPWISE_PORT": "0",
        }
        | environment,
    )


@pytest.mark.parametrize(
    ("found", "advice"), [("0001", "run: clipwise migrate"), ("9999", "install the version that wrote it")]
)
def test_a_foreign_revision_is_refused_with_what_helps(settings: Settings, found: str, advice: str) -> None:
    from clipwise.store.sessions import connect

    engine = connect(settings.database)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :found"), {"found": found})
    engine.dispose()
    ended = serve_once(settings)
    assert ended.returncode not in {0, None}
    assert f"the database is at revision {found}" in ended.stderr
    assert advice in ended.stderr
    assert KEY not in ended.stderr


def test_a_setting_that_is_wrong_is_named_and_not_repeated(tmp_path: Any) -> None:
    settings = Settings(data_dir=tmp_path)
    migration.upgrade(settings.database)
    ended = serve_once(settings, CLIPWISE_PORT="hunter2hunter2")
    assert ended.returncode not in {0, None}
    assert "CLIPWISE_PORT" in ended.stderr
    assert "hunter2hunter2" not in ended.stderr
