"""What /healthz and /readyz say while something is away, hangs, or is busy."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import create_engine, make_url, text

from clipwise.settings import Settings
from clipwise.store import migration
from clipwise.store.sessions import transaction
from clipwise.store.tables import WorkerRow
from clipwise_api.app import REQUEST_THREADS
from tests.api.conftest import JOB, KEY, Api, start

FINE = {"database": "ok", "revision": "ok", "broker": "ok", "artifacts": "ok", "workers": "none"}


@contextmanager
def serving(settings: Settings) -> Iterator[Api]:
    running = start(settings)
    try:
        yield running
    finally:
        running.stop()


def ready(api: Api) -> tuple[int, str, dict[str, str]]:
    with api.client(key=None) as nobody:
        answer = nobody.get("/readyz")
    document = answer.json()
    return answer.status_code, document["status"], document["checks"]


def until_ready(api: Api, status: str) -> tuple[int, str, dict[str, str]]:
    """Ask until the status is this one; an answer is kept for a moment."""
    deadline = time.monotonic() + 60
    while (found := ready(api))[1] != status and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def add_worker(api: Api, **changes: Any) -> None:
    now = datetime.now(UTC)
    row: dict[str, Any] = {
        "id": "wkr_1",
        "host": "h",
        "pid": 1,
        "queues": ["cpu"],
        "slots": 1,
        "kinds": {},
        "versions": {},
        "devices": [],
        "started_at": now,
        "heartbeat_at": now,
    }
    with transaction(api.services.engine) as session:
        session.add(WorkerRow(**row | changes))


def test_everything_is_there_and_nobody_works(api: Api) -> None:
    assert ready(api) == (200, "ok", FINE)


def test_a_worker_that_takes_jobs_is_seen(api: Api) -> None:
    add_worker(api, id="wkr_draining", draining_at=datetime.now(UTC))
    add_worker(api, id="wkr_stopped", stopped_at=datetime.now(UTC))
    assert ready(api)[2]["workers"] == "none"
    add_worker(api)
    time.sleep(0.6)  # the answer before is given again for half a second
    assert ready(api) == (200, "ok", {**FINE, "workers": "ok"})


def test_a_foreign_revision_is_no_service(api: Api) -> None:
    with api.services.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    assert until_ready(api, "unavailable") == (503, "unavailable", {**FINE, "revision": "unavailable"})


def test_an_artifact_store_that_is_away_is_no_service(api: Api) -> None:
    folder = api.services.settings.data_dir / "artifacts"
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("a file where the folder should be")
    assert until_ready(api, "unavailable") == (503, "unavailable", {**FINE, "artifacts": "unavailable"})
    folder.unlink()
    assert until_ready(api, "ok")[0] == 200


def test_without_its_broker_the_service_takes_jobs(settings: Settings) -> None:
    with serving(settings.model_copy(update={"broker_url": "redis://:S3cr3t@127.0.0.1:1/0"})) as api:
        assert ready(api) == (200, "degraded", {**FINE, "broker": "unavailable"})
        with api.client() as owner:
            assert owner.post("/v1/jobs", json=JOB).status_code == 201
        with api.client(key=None) as nobody:
            assert nobody.get("/healthz").json()["status"] == "ok"
            assert "S3cr3t" not in nobody.get("/readyz").text


def test_a_broker_that_hangs_holds_up_nothing_and_no_try_piles_up(settings: Settings) -> None:
    # It takes connections, by its backlog, and never says a word.
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        broker = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        with serving(settings.model_copy(update={"broker_url": broker})) as api:
            with ThreadPoolExecutor(20) as pool:
                answers = list(pool.map(lambda _: ready(api), range(40)))
            assert answers == [(200, "degraded", {**FINE, "broker": "unavailable"})] * 40
            names = [thread.name for thread in threading.enumerate()]
            assert names.count("ready-broker") == 1


def test_a_database_file_that_is_gone_is_no_service_and_is_not_made_anew(tmp_path: Path) -> None:
    file = tmp_path / "clipwise.db"
    settings = Settings(data_dir=tmp_path / "data", database_url=f"sqlite:///{file}", api_key=KEY)
    migration.upgrade(settings.database)
    with serving(settings) as api:
        assert ready(api)[0] == 200
        aside = file.rename(tmp_path / "aside.db")
        found = until_ready(api, "unavailable")
        assert (found[0], found[2]["database"], found[2]["revision"]) == (503, "unavailable", "unavailable")
        assert not file.exists()
        aside.rename(file)
        assert until_ready(api, "ok")[0] == 200


def test_a_database_that_takes_no_connections_is_no_service(postgres_url: str, tmp_path: Path) -> None:
    migration.upgrade(postgres_url)
    url = make_url(postgres_url)
    admin = create_engine(url.set(database="postgres"), isolation_level="AUTOCOMMIT")

    def allow(allowed: bool) -> None:
        with admin.connect() as connection:
            connection.execute(text(f"ALTER DATABASE {url.database} ALLOW_CONNECTIONS {allowed}"))
            if not allowed:
                everyone = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"
                connection.execute(text(everyone), {"name": url.database})

    with serving(Settings(data_dir=tmp_path, database_url=postgres_url, api_key=KEY)) as api:
        allow(False)
        found = until_ready(api, "unavailable")
        assert (found[0], found[2]["database"], found[2]["broker"]) == (503, "unavailable", "ok")
        with api.client(key=None) as nobody:
            assert nobody.get("/healthz").status_code == 200
        allow(True)
        assert until_ready(api, "ok")[0] == 200
    admin.dispose()


class Wire:
    """Carries bytes between clients and a server on a Unix socket, until it is told to stand still."""

    def __init__(self, target: str) -> None:
        self._target = target
        self.flows = threading.Event()
        self.flows.set()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.flows.set()
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._target)
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65_536):
                self.flows.wait()
                sink.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, sink):
                end.close()


def test_a_database_that_hangs_is_no_service_and_comes_back(postgres_url: str, tmp_path: Path) -> None:
    migration.upgrade(postgres_url)
    url = make_url(postgres_url)
    wire = Wire(f"{url.query['host']}/.s.PGSQL.{url.port or 5432}")
    through = url.set(host="127.0.0.1", port=wire.port, query={}).render_as_string(hide_password=False)
    try:
        with serving(Settings(data_dir=tmp_path, database_url=through, api_key=KEY)) as api:
            assert ready(api)[0] == 200
            wire.flows.clear()
            with ThreadPoolExecutor(10) as pool:
                list(pool.map(lambda _: ready(api), range(20)))
            # First answers may be from before; none waited for the database.
            status, state, checks = until_ready(api, "unavailable")
            assert (status, state, checks["database"]) == (503, "unavailable", "unavailable")
            names = [thread.name for thread in threading.enumerate()]
            assert names.count("ready-database") <= 1
            with api.client(key=None) as nobody:
                assert nobody.get("/healthz").json()["status"] == "ok"
            wire.flows.set()
            assert until_ready(api, "ok")[0] == 200
    finally:
        wire.close()


def test_probes_are_answered_while_every_thread_of_requests_is_busy(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy, let_go = threading.Semaphore(0), threading.Event()

    def wait(*_: object) -> list[Any]:
        busy.release()
        let_go.wait(60)
        return []

    monkeypatch.setattr("clipwise_api.views.fleet.queues", wait)
    with ThreadPoolExecutor(REQUEST_THREADS) as pool:
        waiting = [pool.submit(_get, api, "/v1/queues") for _ in range(REQUEST_THREADS)]
        try:
            for _ in range(REQUEST_THREADS):
                assert busy.acquire(timeout=60)
            late = threading.Thread(target=_get, args=(api, "/v1/jobs"))
            late.start()
            assert _get(api, "/healthz") == 200
            assert ready(api)[0] == 200
            late.join(0.2)
            assert late.is_alive()  # it waits for a thread, and so would probes that needed one
        finally:
            let_go.set()
        late.join(60)
        assert {one.result() for one in waiting} == {200}


def _get(api: Api, path: str) -> int:
    with httpx.Client(base_url=api.url, trust_env=False, timeout=90) as client:
        return client.get(path, headers={"Authorization": f"Bearer {KEY}"}).status_code


def test_the_process_stops_while_its_broker_hangs(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        process = subprocess.Popen(
            [sys.executable, "-m", "clipwise_api"],
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "CLIPWISE_DATA_DIR": str(settings.data_dir),
                "CLIPWISE_DATABASE_URL": settings.database,
                "CLIPWISE_BROKER_URL": f"redis://127.0.0.1:{silent.getsockname()[1]}/0",
                "CLIPWISE_API_KEY": KEY,
                "CLIPWISE_PORT": "0",
            },
        )
        try:
            assert process.stderr is not None
            line = next(line for line in process.stderr if "listening on" in line)
            url = f"http://127.0.0.1:{line.split()[-1]}"
            with httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
                # The job's message is what hangs.
                headers = {"Authorization": f"Bearer {KEY}"}
                assert client.post("/v1/jobs", json=JOB, headers=headers).status_code == 201
                assert client.get("/readyz").json()["status"] == "degraded"
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait()
