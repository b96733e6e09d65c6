"""The embedded service as users start it, for the tests that go through it from outside."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from clipwise.client import Client
from tests.conftest import free_port

START_SECONDS = 60


@dataclass(frozen=True)
class Service:
    """A running `clipwise up`.

    Attributes:
        url: where its api and dashboard are.
        api_key: its owner's key.
        data_dir: its data folder.
        process: the `clipwise up` process.
    """

    url: str
    api_key: str
    data_dir: Path
    process: subprocess.Popen[str]

    @property
    def environment(self) -> dict[str, str]:
        """Environment in which `clipwise` finds this service."""
        return {**os.environ, "CLIPWISE_DATA_DIR": str(self.data_dir)}

    def client(self) -> Client:
        """Return a client that signs in as the owner."""
        return Client(self.url, api_key=self.api_key)


def start_service(data_dir: Path) -> Service:
    """Start `clipwise up` on a spare port and wait until it serves."""
    environment = {**os.environ, "CLIPWISE_DATA_DIR": str(data_dir), "CLIPWISE_PORT": str(free_port())}
    log = data_dir.parent / f"{data_dir.name}-up.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "clipwise.cli", "up"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    state = data_dir / "service.json"
    deadline = time.monotonic() + START_SECONDS
    while not (state.exists() and json.loads(state.read_text())["pid"] == process.pid):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"clipwise up did not start: {log.read_text()}")
        time.sleep(0.05)
    url = json.loads(state.read_text())["url"]
    return Service(url, (data_dir / "api_key").read_text().strip(), data_dir, process)


def stop_service(service: Service) -> None:
    """Stop the service as Ctrl-C does, and fail if it takes longer than it may."""
    if service.process.poll() is None:
        service.process.send_signal(signal.SIGINT)
        service.process.wait(10)


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One embedded service for the session: api, dashboard, one worker, SQLite, files as broker."""
    running = start_service(tmp_path_factory.mktemp("service") / "data")
    try:
        yield running
    finally:
        stop_service(running)
