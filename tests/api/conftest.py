"""The api as it is served: a real uvicorn on a spare port, over each database."""

import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import create_engine, make_url, text

from clipwise.settings import Settings
from clipwise.store import migration
from clipwise_api.app import create_app
from clipwise_api.server import Server, listen
from clipwise_api.services import ServiceSet

KEY = "cw_the-first-key-that-only-the-tests-know"
SCHEMA: dict[str, Any] = {
    "features": [
        {"name": "age", "type": "number", "bounds": [0, 120]},
        {"name": "sex", "type": "category", "categories": ["f", "m"]},
    ],
    "target": "label",
    "task": "classification",
    "classes": ["0", "1"],
    "unit": {"column": None, "max_rows": 1},
    "size": {"value": 40},
}
CSV = "age,sex,label\n" + "".join(f"{20 + i},{'fm'[i % 2]},{i % 2}\n" for i in range(40))
JOB: dict[str, Any] = {
    "name": "digits, plain",
    "dataset": "digits",
    "model": {"kind": "mlp", "hidden_sizes": [16]},
    "training": {"steps": 10, "batch_size": 32},
}
PRIVATE_JOB: dict[str, Any] = {
    **JOB,
    "clipping": {"max_norm": 1.0},
    "privacy": {"noise_multiplier": 4.0, "delta": 1e-4},
}


@dataclass(frozen=True)
class Api:
    """A running api."""

    url: str
    app: FastAPI
    server: Server
    thread: threading.Thread

    @property
    def services(self) -> ServiceSet:
        """What the running api works with."""
        services: ServiceSet = self.app.state.services
        return services

    def client(self, key: str | None = KEY, **options: Any) -> httpx.Client:
        """Return a client; without a key, as a browser would be."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=30, **options)

    def key_of(self, role: str) -> str:
        """Make a key of this role."""
        with self.client() as owner:
            answer = owner.post("/v1/api_keys", json={"name": role, "role": role})
        assert answer.status_code == 201, answer.text
        secret: str = answer.json()["secret"]
        return secret

    def stop(self) -> None:
        """Stop as a signal does."""
        self.server.should_exit = True
        self.thread.join(20)
        assert not self.thread.is_alive()


def start(settings: Settings) -> Api:
    """Serve these settings on a spare port in a thread."""
    listening = listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    app = create_app(settings.model_copy(update={"port": port}))
    server = Server(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started and thread.is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.started
    return Api(f"http://127.0.0.1:{port}", app, server, thread)


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """Settings over a fresh, migrated database."""
    migration.upgrade(database_url)
    return Settings(
        data_dir=tmp_path / "data",
        database_url=database_url,
        api_key=KEY,
        port=0,
        max_upload_bytes=1_000_000,
    )


@pytest.fixture
def api(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """A running api over each database, which does its upkeep more often than it has to."""
    monkeypatch.setattr("clipwise_api.upkeep.FILES_SECONDS", 0.2)
    running = start(settings)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def postgres_api(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """One api for a whole module, over PostgreSQL: it refuses text and numbers that SQLite takes."""
    name = f"test_{uuid.uuid4().hex}"
    admin = create_engine(postgres_server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    url = make_url(postgres_server).set(database=name).render_as_string(hide_password=False)
    migration.upgrade(url)
    folder = tmp_path_factory.mktemp("postgres_api")
    running = start(Settings(data_dir=folder, database_url=url, api_key=KEY, max_upload_bytes=100_000))
    yield running
    running.stop()
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture
def owner(api: Api) -> Iterator[httpx.Client]:
    """A client with the first key."""
    with api.client() as client:
        yield client
