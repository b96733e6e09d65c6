"""The compose file: valid, closed, and its commands run as separate processes.

There is no Docker engine in the tests. The commands and environments of the file's own services are
started as processes instead, against a real Redis and a real PostgreSQL, with three workers.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from clipwise.client import Client
from tests.conftest import ROOT, free_port

SECRETS = {
    "CLIPWISE_API_KEY": "cw_a-key-that-only-this-test-knows-0123456789",
    "CLIPWISE_POSTGRES_PASSWORD": "postgresword",
    "CLIPWISE_REDIS_PASSWORD": "redisword",
}
VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<rest>[^}]*))?\}")
WORKERS = 3

Compose = dict[str, Any]


def interpolate(value: str, environment: Mapping[str, str]) -> str:
    """Fill `${NAME}`, `${NAME:-default}` and `${NAME:?message}` in, as compose does."""

    def fill(match: re.Match[str]) -> str:
        found = environment.get(match["name"], "")
        if not found and match["kind"] == "?":
            raise KeyError(f"{match['name']}: {match['rest']}")
        return found or (match["rest"] if match["kind"] == "-" else "")

    return VARIABLE.sub(fill, value)


@pytest.fixture(scope="module")
def compose() -> Compose:
    loaded: Compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


def test_the_file_follows_the_compose_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, str(ROOT / "docker-compose.yml")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_is_published_but_the_api(compose: Compose) -> None:
    published = [name for name, service in compose["services"].items() if "ports" in service]
    assert published == ["api"]
    assert interpolate(compose["services"]["api"]["ports"][0], {}) == "127.0.0.1:8470:8470"


def test_every_secret_comes_from_the_environment(compose: Compose) -> None:
    secrets = re.compile(r"(PASSWORD|API_KEY|REDISCLI_AUTH)$")
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            if secrets.search(name):
                with pytest.raises(KeyError):
                    interpolate(value, {})


def test_every_service_that_runs_on_has_a_health_check(compose: Compose) -> None:
    without = [name for name, service in compose["services"].items() if "healthcheck" not in service]
    assert without == ["migrate"]


def test_workers_can_be_scaled_and_have_time_to_stop(compose: Compose) -> None:
    for name in ("worker", "worker-gpu"):
        assert "container_name" not in compose["services"][name]
        assert compose["services"][name]["stop_grace_period"] == "120s"
        assert compose["services"][name]["init"] is True


def test_every_target_of_the_compose_file_is_in_the_dockerfile(compose: Compose) -> None:
    targets = set(re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    built = {service["build"]["target"] for service in compose["services"].values() if "build" in service}
    assert built <= targets


def test_the_api_image_asks_for_no_torch() -> None:
    stages = (ROOT / "Dockerfile").read_text().split("\nFROM ")
    (api,) = [stage for stage in stages if stage.startswith("runtime AS api")]
    assert "clipwise[api]" in api
    assert "torch" not in api


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that a test starts; all are stopped at its end, by process id."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    for process in started:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.mark.redis
@pytest.mark.postgres
def test_its_commands_train_as_separate_processes_with_three_workers(
    compose: Compose,
    redis_url: str,
    postgres_url: str,
    tmp_path: Path,
    processes: list[subprocess.Popen[str]],
) -> None:
    port = free_port()
    here = {
        "CLIPWISE_DATABASE_URL": postgres_url,
        "CLIPWISE_BROKER_URL": redis_url,
        "CLIPWISE_ARTIFACTS_URL": (tmp_path / "artifacts").as_uri(),
        "CLIPWISE_HOST": "127.0.0.1",
        "CLIPWISE_PORT": str(port),
        "CLIPWISE_PUBLIC_URL": f"http://127.0.0.1:{port}",
    }

    def start(service: str, number: int = 0, command: list[str] | None = None) -> subprocess.Popen[str]:
        described = compose["services"][service]
        named = {name: interpolate(value, SECRETS) for name, value in described["environment"].items()}
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("CLIPWISE_")},
            **named,
            **{name: value for name, value in here.items() if name in named},
            "CLIPWISE_DATA_DIR": str(tmp_path / f"{service}-{number}"),
        }
        program, *arguments = command or described["command"]
        with (tmp_path / f"{service}-{number}.log").open("w") as log:
            process = subprocess.Popen(
                [str(Path(sys.executable).with_name(program)), *arguments],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        processes.append(process)
        return process

    def health(service: str) -> subprocess.Popen[str]:
        _, *command = compose["services"][service]["healthcheck"]["test"]
        return start(service, number=99, command=command)

    assert start("migrate").wait(60) == 0, (tmp_path / "migrate-0.log").read_text()
    assert health("worker").wait(30) == 1, "no worker runs yet"
    start("api")
    for number in range(WORKERS):
        start("worker", number)
    url = f"http://127.0.0.1:{port}"
    with Client(url, api_key=SECRETS["CLIPWISE_API_KEY"]) as client:
        _wait_until_ready(url, client, tmp_path)
        jobs = [
            client.submit(
                {
                    "name": f"compose {number}",
                    "dataset": "digits",
                    "model": {"kind": "logistic"},
                    "training": {"steps": 20, "batch_size": 64, "seed": number},
                    "clipping": {"max_norm": 1.0},
                    "privacy": {"noise_multiplier": 2.0, "delta": 1e-4},
                }
            )
            for number in range(2 * WORKERS)
        ]
        finished = [client.wait(job.id, timeout=120) for job in jobs]
        assert [job.status for job in finished] == ["succeeded"] * len(jobs)
        assert all(job.attempt == 1 for job in finished)
        assert {worker.alive for worker in client.workers()} == {True}
        assert health("worker").wait(30) == 0
        served = {worker for job in jobs for worker in _workers_of(client, job.id)}
    assert len(served) >= 2, f"six jobs were served by {served}"


def _wait_until_ready(url: str, client: Client, logs: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/readyz").status_code == 200 and len(list(client.workers())) == WORKERS:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    pytest.fail("\n".join(f"{log.name}: {log.read_text()[-2000:]}" for log in logs.glob("*.log")))


def _workers_of(client: Client, job_id: str) -> set[str]:
    return {str(event.data["worker_id"]) for event in client.events(job_id) if event.type == "started"}
