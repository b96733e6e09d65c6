"""`clipwise up` from outside: it starts, mends itself, and stops, and leaves nothing behind."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from tests.integration.conftest import Service, start_service
from tests.integration.processes import all_gone, command_of, named, processes_of

LONG_JOB: dict[str, Any] = {
    "dataset": "digits",
    "model": {"kind": "mlp", "hidden_sizes": [32]},
    "training": {"steps": 1_000_000, "batch_size": 64},
    "clipping": {"max_norm": 1.0},
    "evaluation": {"fraction": 0.2},
}
STOPPED_WITHIN_SECONDS = 5.0
STREAMS = 50


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Service]:
    """A service of the test's own, to be stopped, killed and broken."""
    running = start_service(tmp_path / "data")
    yield running
    for process in processes_of(running.data_dir):
        process.kill()
    running.process.wait(10)


def stop(service: Service, number: signal.Signals) -> float:
    """Send a signal and return the seconds until the process has ended."""
    begun = time.monotonic()
    service.process.send_signal(number)
    service.process.wait(20)
    return time.monotonic() - begun


def wait_until(condition: Any, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def train(service: Service) -> str:
    """Submit a job that does not end, and return its id once it trains."""
    with service.client() as client:
        job_id = client.submit(LONG_JOB).id
        wait_until(lambda: client.job(job_id).phase == "training", 60)
        return job_id


def open_stream(service: Service, job_id: str) -> socket.socket:
    parts = urlsplit(service.url)
    connection = socket.create_connection((parts.hostname, parts.port), timeout=10)
    connection.sendall(
        f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: text/event-stream\r\n"
        f"Authorization: Bearer {service.api_key}\r\n\r\n".encode()
    )
    assert connection.recv(12) == b"HTTP/1.1 200"
    return connection


def output_of(service: Service) -> str:
    return (service.data_dir.parent / f"{service.data_dir.name}-up.log").read_text()


def test_it_serves_and_says_where(service: Service) -> None:
    assert httpx.get(f"{service.url}/readyz", trust_env=False).status_code == 200
    assert httpx.get(f"{service.url}/v1/jobs", trust_env=False).status_code == 401
    with service.client() as client:
        assert [worker.alive for worker in client.workers()].count(True) == 1
    wait_until(lambda: "#" in output_of(service))
    said = output_of(service)
    assert service.url in said
    assert str(service.data_dir) in said
    assert service.api_key not in said


def test_what_it_keeps_is_its_owners_alone(service: Service) -> None:
    assert stat.S_IMODE(service.data_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE((service.data_dir / "api_key").stat().st_mode) == 0o600
    for process in processes_of(service.data_dir):
        assert service.api_key not in command_of(process)
    for log in (service.data_dir / "logs").iterdir():
        assert service.api_key not in log.read_text()


def test_a_second_one_is_told_where_the_first_is(service: Service) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "clipwise.cli", "up"],
        env=service.environment,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 1
    assert service.url in done.stderr
    assert done.stderr.count("\n") == 1
    assert httpx.get(f"{service.url}/readyz", trust_env=False).status_code == 200


def test_ctrl_c_with_streams_open_and_a_job_training(own: Service) -> None:
    job_id = train(own)
    streams = [open_stream(own, job_id) for _ in range(STREAMS)]
    assert len(processes_of(own.data_dir)) >= 4
    assert stop(own, signal.SIGINT) < STOPPED_WITHIN_SECONDS
    assert own.process.returncode == 0
    assert all_gone(own.data_dir)
    assert not (own.data_dir / "service.json").exists()
    for connection in streams:
        connection.close()


def test_sigterm_and_a_second_start(own: Service) -> None:
    assert stop(own, signal.SIGTERM) < STOPPED_WITHIN_SECONDS
    assert own.process.returncode == 0
    assert all_gone(own.data_dir)
    again = start_service(own.data_dir)
    try:
        assert again.api_key == own.api_key
    finally:
        stop(again, signal.SIGINT)
    assert all_gone(own.data_dir)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends the children on Linux")
def test_a_kill_leaves_no_orphan(own: Service) -> None:
    train(own)
    own.process.kill()
    own.process.wait(10)
    assert all_gone(own.data_dir, 5.0)
    again = start_service(own.data_dir)
    assert httpx.get(f"{again.url}/readyz", trust_env=False).status_code == 200
    assert stop(again, signal.SIGTERM) < STOPPED_WITHIN_SECONDS


def test_what_dies_is_started_again(own: Service) -> None:
    for module in ("clipwise_worker", "clipwise_api"):
        before = min(named(own.data_dir, f"-m {module}"), key=psutil.Process.create_time)
        before.kill()

        def is_back(module: str = module, pid: int = before.pid) -> bool:
            return any(process.pid != pid for process in named(own.data_dir, f"-m {module}"))

        wait_until(is_back)

    def is_ready() -> bool:
        try:
            return httpx.get(f"{own.url}/readyz", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    wait_until(is_ready)
    with own.client() as client:
        wait_until(lambda: len(client.workers()) >= 2)
        job = client.submit({**LONG_JOB, "training": {"steps": 2}})
        assert client.wait(job.id, timeout=60).status == "succeeded"
    assert "starts again" in output_of(own)


def test_an_api_that_keeps_dying_stops_the_service(own: Service) -> None:
    def kill_api() -> bool:
        for process in named(own.data_dir, "-m clipwise_api"):
            process.kill()
        return own.process.poll() is not None

    wait_until(kill_api, 60)
    assert own.process.returncode == 1
    assert "4 times in a minute" in output_of(own)
    assert all_gone(own.data_dir)


def up_with_port(tmp_path: Path, port: str | None) -> "subprocess.Popen[str]":
    environment = {**os.environ, "CLIPWISE_DATA_DIR": str(tmp_path / "data")}
    environment.pop("CLIPWISE_PORT", None)
    if port is not None:
        environment["CLIPWISE_PORT"] = port
    return subprocess.Popen(
        [sys.executable, "-m", "clipwise.cli", "up", "--json"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_a_port_that_was_asked_for_and_is_busy(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        process = up_with_port(tmp_path, str(port))
        said, error = process.communicate(timeout=30)
    assert (process.returncode, said) == (1, "")
    assert f"CLIPWISE_PORT is {port}" in json.loads(error)["detail"]
    assert all_gone(tmp_path / "data")


def test_the_usual_port_when_busy_is_left_for_another(tmp_path: Path) -> None:
    try:
        busy: Any = socket.create_server(("127.0.0.1", 8470))
    except OSError:
        busy = socket.socket()  # another program has it already, which is as good
    with busy:
        process = up_with_port(tmp_path, None)
        try:
            assert process.stdout is not None
            started = json.loads(process.stdout.readline())
            assert urlsplit(started["url"]).port not in (8470, None)
            assert httpx.get(f"{started['url']}/readyz", trust_env=False).status_code == 200
        finally:
            process.terminate()
            said, error = process.communicate(timeout=20)
    assert said == ""
    assert "8470 is in use" in error
    assert all_gone(tmp_path / "data")
