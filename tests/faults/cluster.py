"""The service as it runs on a server, with real parts that can be hurt: apis, workers, Redis, PostgreSQL."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
from sqlalchemy import Engine

from clipwise.store import migration
from clipwise.store.sessions import connect
from tests.conftest import free_port, redis_binary, start_postgres

APIS, WORKERS = 2, 3
DISK_BYTES = 256 * 2**20
API_KEY = "owner-key-of-the-fault-suite-0123456789"
QUICK = {
    "CLIPWISE_HEARTBEAT_SECONDS": "0.5",
    "CLIPWISE_LEASE_SECONDS": "3",
    "CLIPWISE_LEASE_WAIT_SECONDS": "60",
    "CLIPWISE_RETRY_SECONDS": "0.2",
    "CLIPWISE_DRAIN_SECONDS": "3",
}
"""The short suite's times; a lease of three seconds in place of 45."""


class Disk:
    """A small disk of its own under the artifacts, which can be filled; needs root, else it is a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
        self.is_real = subprocess.run(command, capture_output=True, check=False).returncode == 0

    def fill(self) -> None:
        """Leave no room."""
        with suppress(OSError), (self.folder / "ballast").open("wb") as file:
            while True:
                file.write(b"\0" * 2**20)
                file.flush()

    def empty(self) -> None:
        """Give the room back."""
        (self.folder / "ballast").unlink(missing_ok=True)

    def close(self) -> None:
        """Take the disk away."""
        if self.is_real:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=False)


class Cluster:
    """Every process of the service, each startable and stoppable by itself."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.data.mkdir(parents=True)
        self.disk = Disk(folder / "artifacts")
        self.postgres = start_postgres(folder / "postgres")
        self.database: str = self.postgres.get_uri(driver="psycopg")
        migration.upgrade(self.database)
        self.engine: Engine = connect(self.database)
        self.redis_port = free_port()
        self.redis: subprocess.Popen[bytes] | None = None
        self.start_redis()
        self.ports = [free_port() for _ in range(APIS)]
        self.apis: list[subprocess.Popen[bytes] | None] = [None] * APIS
        self.workers: list[subprocess.Popen[bytes] | None] = [None] * WORKERS
        for index in range(APIS):
            self.start_api(index)
        for index in range(WORKERS):
            self.start_worker(index)

    @property
    def environment(self) -> dict[str, str]:
        """What api and worker are configured with."""
        return {
            **os.environ,
            "CLIPWISE_DATA_DIR": str(self.data),
            "CLIPWISE_DATABASE_URL": self.database,
            "CLIPWISE_BROKER_URL": f"redis://127.0.0.1:{self.redis_port}/0",
            "CLIPWISE_ARTIFACTS_URL": self.disk.folder.as_uri(),
            "CLIPWISE_API_KEY": API_KEY,
            **QUICK,
        }

    def start_redis(self) -> None:
        """Start an empty Redis: what was in it is lost."""
        command = [redis_binary(), "--port", str(self.redis_port), "--bind", "127.0.0.1", "--save", ""]
        self.redis = self._start([*command, "--dir", str(self.folder)], "redis")

    def start_api(self, index: int) -> None:
        """Start one of the apis."""
        environment = {**self.environment, "CLIPWISE_PORT": str(self.ports[index])}
        self.apis[index] = self._start([sys.executable, "-m", "clipwise_api"], f"api-{index}", environment)

    def start_worker(self, index: int) -> None:
        """Start one of the workers."""
        command = [sys.executable, "-m", "clipwise_worker"]
        self.workers[index] = self._start(command, f"worker-{index}", self.environment)

    def tend(self) -> None:
        """Start again what has ended by itself, as compose does: a database that is away ends a start."""
        for index, process in enumerate(self.apis):
            if process is not None and process.poll() is not None:
                self.start_api(index)
        for index, process in enumerate(self.workers):
            if process is not None and process.poll() is not None:
                self.start_worker(index)

    def restart_postgres(self) -> None:
        """Crash PostgreSQL, as a power cut does to it, and start it again."""
        pid = self.postgres.get_pid()
        if pid is not None:
            os.kill(pid, signal.SIGQUIT)
            until(lambda: not psutil.pid_exists(pid), 20)
        self.postgres.ensure_postgres_running()

    def client(self, index: int) -> httpx.Client:
        """Return a client of one api."""
        return httpx.Client(
            base_url=f"http://127.0.0.1:{self.ports[index]}",
            headers={"Authorization": f"Bearer {API_KEY}"},
            timeout=20,
        )

    def runners_of(self, worker: subprocess.Popen[bytes]) -> dict[str, psutil.Process]:
        """Return the runners of a worker that have an attempt, by the id of its job."""
        found = {}
        with suppress(psutil.Error):
            for child in psutil.Process(worker.pid).children(recursive=True):
                with suppress(psutil.Error):
                    folder = Path(child.cwd()).name
                    if "clipwise_worker.runner" in " ".join(child.cmdline()) and folder.startswith("job_"):
                        found[folder.rpartition("-")[0]] = child
        return found

    def stop(self) -> list[str]:
        """Stop everything, the workers as people do; return what is left of their processes."""
        family = []
        for process in [*self.workers, *self.apis]:
            if process is not None:
                with suppress(psutil.Error):
                    family += psutil.Process(process.pid).children(recursive=True)
                    family.append(psutil.Process(process.pid))
                process.send_signal(signal.SIGCONT)
                process.send_signal(signal.SIGTERM)
        for process in [*self.workers, *self.apis]:
            if process is not None:
                try:
                    process.wait(15)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        _, alive = psutil.wait_procs(family, timeout=3)
        return [f"{process.pid} {process.name()}" for process in alive if process.status() != "zombie"]

    def close(self, *, keep: bool = False) -> None:
        """Stop what the service needs, and remove the folder unless it is to be looked at."""
        if self.redis is not None:
            self.redis.kill()
            self.redis.wait()
        self.engine.dispose()
        self.postgres.cleanup()
        if not keep:
            self.disk.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _start(
        self, command: list[str], name: str, environment: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )


def until(condition: Callable[[], Any], seconds: float) -> None:
    """Wait until something is so.

    Raises:
        TimeoutError: if it is not within so many seconds.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"it did not happen within {seconds:g} s")
        time.sleep(0.05)
