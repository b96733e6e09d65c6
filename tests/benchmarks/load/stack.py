"""The servers of a measurement, started as users start them: PostgreSQL, Redis, the api, and peers."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from sqlalchemy import Engine, create_engine, make_url, text

from clipwise.store import migration
from clipwise.store.sessions import connect
from tests.conftest import free_port, redis_binary, start_postgres

KEY = "cw_the-key-of-the-benchmark-and-of-nothing-else"
START_SECONDS = 240
ALL_CORES = sorted(os.sched_getaffinity(0))
LOAD_CORE, SERVER_CORES = ALL_CORES[-1], ALL_CORES[:-1] or ALL_CORES
"""Who asks has a core of its own; who answers has the others."""


@dataclass(frozen=True, kw_only=True)
class Served:
    """A server that answers HTTP.

    Attributes:
        url: where it is.
        process: the process that was started.
    """

    url: str
    process: subprocess.Popen[bytes]

    def cpu_seconds(self) -> float:
        """Return what the process and its children have used so far."""
        root = psutil.Process(self.process.pid)
        times = [process.cpu_times() for process in (root, *root.children(recursive=True))]
        return sum(spent.user + spent.system for spent in times)


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Where everything is.

    Attributes:
        folder: a temporary folder.
        admin_url: the SQLAlchemy URL of PostgreSQL's own database.
        redis_url: the broker's URL.
    """

    folder: Path
    admin_url: str
    redis_url: str

    def database(self, name: str) -> str:
        """Make a database anew and return its URL."""
        admin = create_engine(self.admin_url, isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
            connection.execute(text(f"CREATE DATABASE {name}"))
        admin.dispose()
        return make_url(self.admin_url).set(database=name).render_as_string(hide_password=False)

    def versions(self) -> dict[str, str]:
        """Return the versions of the servers."""
        admin = create_engine(self.admin_url)
        with admin.connect() as connection:
            postgres = str(connection.execute(text("SHOW server_version")).scalar_one())
        admin.dispose()
        return {"PostgreSQL": postgres}


@contextmanager
def stack() -> Iterator[Stack]:
    """Start PostgreSQL and Redis on the servers' cores, in a temporary folder."""
    with ExitStack() as scope:
        folder = Path(tempfile.mkdtemp(prefix="clipwise-load-"))
        scope.callback(shutil.rmtree, folder, ignore_errors=True)
        with pinned(SERVER_CORES):
            admin_url = scope.enter_context(_postgres(folder))
            redis_url = scope.enter_context(_redis(folder))
        yield Stack(folder=folder, admin_url=admin_url, redis_url=redis_url)


@contextmanager
def pinned(cores: Sequence[int]) -> Iterator[None]:
    """Keep this thread, and the processes that it starts meanwhile, on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def migrated(stack: Stack, name: str) -> Iterator[Engine]:
    """Make a database with Clipwise's tables and give an engine for it."""
    url = stack.database(name)
    migration.upgrade(url)
    engine = connect(url)
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def api(stack: Stack, engine: Engine, cores: Sequence[int] = SERVER_CORES) -> Iterator[Served]:
    """Start one api process over a migrated database, with nothing but environment variables."""
    settings = {
        "CLIPWISE_DATA_DIR": str(stack.folder / "data"),
        "CLIPWISE_DATABASE_URL": engine.url.render_as_string(hide_password=False),
        "CLIPWISE_BROKER_URL": f"{stack.redis_url}/0",
        "CLIPWISE_API_KEY": KEY,
    }
    command = [sys.executable, "-m", "clipwise_api"]
    log = stack.folder / "api.log"
    with served(command, settings, "CLIPWISE_PORT", "/healthz", log, cores=cores) as running:
        yield running


@contextmanager
def served(
    command: Sequence[str],
    settings: Mapping[str, str],
    port_name: str,
    probe: str,
    log: Path,
    *,
    cores: Sequence[int] = SERVER_CORES,
) -> Iterator[Served]:
    """Start a server on a spare port of the loopback interface, wait until it answers, and stop it.

    Args:
        command: its command line; `{port}` stands for the port.
        settings: its environment beside what every process needs.
        port_name: the variable that tells it its port.
        probe: a path that answers 200 once it serves.
        log: where its output goes.
        cores: where it runs.
    """
    port = free_port()
    plain = {name: value for name, value in os.environ.items() if not name.startswith("CLIPWISE_")}
    with log.open("wb") as output, pinned(cores):
        process = subprocess.Popen(
            [part.replace("{port}", str(port)) for part in command],
            env={**plain, **settings, port_name: str(port)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    running = Served(url=f"http://127.0.0.1:{port}", process=process)
    try:
        _wait(running, probe, log)
        yield running
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(running: Served, probe: str, log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with opener.open(f"{running.url}{probe}", timeout=5):
                return
        except OSError as error:
            if running.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"a server did not start: {log.read_text()[-4000:]}") from error
        time.sleep(0.05)


@contextmanager
def _postgres(folder: Path) -> Iterator[str]:
    server = start_postgres(folder / "postgres")
    try:
        yield server.get_uri(driver="psycopg")
    finally:
        server.cleanup()


@contextmanager
def _redis(folder: Path) -> Iterator[str]:
    port = free_port()
    command = [redis_binary(), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield f"redis://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)
