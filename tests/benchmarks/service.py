"""What the embedded service costs: `python -m tests.benchmarks.service`, or `make bench`.

Every figure is taken on the real thing: `clipwise up` with its api, worker and runners. A GET is timed
alone and beside 200 open event streams of a job that moves, in turns. Prints the table that
`docs/benchmarks/service.md` keeps.
"""

import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from clipwise.client import Client
from clipwise.wire.jobs import Job
from tests.integration.conftest import Service, start_service

STREAMS, STREAMS_AT_STOP = 200, 50
ROUNDS, GETS = 5, 200
READY_SECONDS = 6.0
"""In which a worker that is idle gets the next runner ready."""
SHORT: dict[str, Any] = {
    "dataset": "digits",
    "model": {"kind": "logistic"},
    "training": {"steps": 20, "batch_size": 64},
    "clipping": {"max_norm": 1.0},
    "evaluation": {"fraction": 0.2},
}
LONG = {**SHORT, "training": {"steps": 5_000_000, "batch_size": 64}}


def main() -> None:
    """Measure, and print the table."""
    with tempfile.TemporaryDirectory(prefix="clipwise-bench-") as folder:
        data_dir = Path(folder) / "data"
        stop(start_service(data_dir))
        starts, stops = [], []
        for _ in range(ROUNDS):
            begun = time.monotonic()
            service = start_service(data_dir)
            starts.append(time.monotonic() - begun)
            if len(starts) < ROUNDS:
                stops.append(stop(service))
        with service.client() as client:
            first_steps = [first_step(client) for _ in range(ROUNDS)]
            cancels = [cancel(client) for _ in range(ROUNDS)]
            alone, beside = gets(service, client)
            job_id = training(client).id
            with streams(service, job_id, STREAMS_AT_STOP):
                loaded_stop = stop(service)
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {platform.machine()}, ", end="")
    print(f"Python {platform.python_version()}; load {os.getloadavg()[0]:.1f} at the end\n")
    print("| what | median | worst |\n|---|---|---|")
    for name, seconds in (
        ("second start of `clipwise up`, until it serves", starts),
        ("stop, idle", stops),
        (f"stop with a job training and {STREAMS_AT_STOP} streams open", [loaded_stop]),
        ("submitted to first step, on a warm worker", first_steps),
        ("cancel while training, until cancelled", cancels),
    ):
        print(f"| {name} | {statistics.median(seconds):.2f} s | {max(seconds):.2f} s |")
    for name, seconds in (("GET of a job, alone", alone), (f"GET beside {STREAMS} streams", beside)):
        quantiles = statistics.quantiles(seconds, n=100)
        print(f"| {name} | {1e3 * quantiles[49]:.1f} ms | p99 {1e3 * quantiles[98]:.1f} ms |")


def stop(service: Service) -> float:
    """Return the seconds from SIGTERM to the end."""
    begun = time.monotonic()
    service.process.send_signal(signal.SIGTERM)
    service.process.wait(20)
    return time.monotonic() - begun


def until(client: Client, job_id: str, done: Any) -> Job:
    """Poll a job until `done` says so of it."""
    while not done(job := client.job(job_id)):
        time.sleep(0.01)
    return job


def training(client: Client) -> Job:
    """Submit a job that goes on for long, and return once it trains."""
    return until(client, client.submit(LONG).id, lambda job: job.progress is not None and job.progress.step)


def first_step(client: Client) -> float:
    """Return the seconds from a submission until its first step is seen."""
    time.sleep(READY_SECONDS)
    begun = time.monotonic()
    job = until(client, client.submit(SHORT).id, lambda job: job.progress is not None and job.progress.step)
    seconds = time.monotonic() - begun
    client.wait(job.id)
    return seconds


def cancel(client: Client) -> float:
    """Return the seconds from a cancellation until the job is cancelled."""
    job = training(client)
    begun = time.monotonic()
    client.cancel(job.id)
    until(client, job.id, lambda job: job.status == "cancelled")
    return time.monotonic() - begun


def gets(service: Service, client: Client) -> tuple[list[float], list[float]]:
    """Return the seconds of GETs, alone and beside open streams, taken in turns."""
    job_id = training(client).id
    alone: list[float] = []
    beside: list[float] = []
    headers = {"Authorization": f"Bearer {service.api_key}"}
    with httpx.Client(base_url=service.url, headers=headers, trust_env=False) as http:
        for _ in range(ROUNDS):
            alone += timed(http, job_id)
            with streams(service, job_id, STREAMS):
                beside += timed(http, job_id)
    client.cancel(job_id)
    client.wait(job_id)
    return alone, beside


def timed(http: httpx.Client, job_id: str) -> list[float]:
    """Return the seconds of each of many GETs."""
    seconds = []
    for _ in range(GETS):
        begun = time.perf_counter()
        http.get(f"/v1/jobs/{job_id}").raise_for_status()
        seconds.append(time.perf_counter() - begun)
    return seconds


@contextmanager
def streams(service: Service, job_id: str, count: int) -> Iterator[None]:
    """Hold so many event streams of a job open, in another process."""
    command = [sys.executable, "-m", "tests.benchmarks.streams", service.url, job_id, str(count)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(f"{service.api_key}\n")
        process.stdin.flush()
        assert process.stdout.readline() == "open\n"
        yield
    finally:
        process.stdin.close()
        process.wait(10)


if __name__ == "__main__":
    main()
