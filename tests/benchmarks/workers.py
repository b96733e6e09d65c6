"""Four workers beside one: `python -m tests.benchmarks.workers`, or `make bench-workers`.

Forty equal jobs go through the api to real workers over PostgreSQL and Redis. Those of one kind take a fixed
time and no CPU, so that what four workers cannot share out is the service's own; those of the other kind
compute all the time, and scale as far as the cores do. Writes `docs/benchmarks/workers.md`.
"""

import argparse
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
from sqlalchemy import Engine, func, select

from clipwise.jobs.states import TERMINAL, JobStatus
from clipwise.store import workers
from clipwise.store.sessions import reading
from clipwise.store.tables import AttemptRow, JobRow
from tests.benchmarks.load.arrivals import ROOT
from tests.benchmarks.load.figures import table
from tests.benchmarks.load.stack import ALL_CORES, KEY, Stack, api, migrated, stack

PAGE = ROOT / "docs" / "benchmarks" / "workers.md"
BAR = 3.6
MANY = 4
READY_SECONDS = 10.0
"""In which idle workers get their next runners ready."""
PATIENCE_SECONDS = 1800.0
JOB: dict[str, Any] = {
    "dataset": "digits",
    "optimizer": {"learning_rate": 0.1},
    "clipping": {"max_norm": 1.0},
}
ASLEEP, BUSY = "of a fixed time without CPU", "CPU-bound"
KINDS: Mapping[str, dict[str, Any]] = {
    ASLEEP: {
        **JOB,
        "model": {"kind": "sleeping", "seconds": 0.1},
        "training": {"steps": 100, "batch_size": 32},
    },
    BUSY: {
        **JOB,
        "model": {"kind": "mlp", "hidden_sizes": [256, 256]},
        "training": {"steps": 400, "batch_size": 128},
    },
}
METHOD = """\
# Four workers beside one

`make bench-workers` measures this and writes it: equal jobs, submitted at once to one api process over
PostgreSQL and Redis on the same machine, to workers of one slot each that had a runner ready. The time is
from before the first submission until the last job is finished. The jobs of one kind sleep in each step and
hardly compute, so that what is lost is the service's own: delivery, claims, starts, ends, and for each job a
fresh process that imports torch beside the job before it. Those of the other kind compute all the time, on
one thread each, and share the cores with the api, the database and the next runners' imports.
"""


@dataclass(frozen=True, kw_only=True)
class Series:
    """One pass of all jobs.

    Attributes:
        workers: how many there were.
        seconds: from the first submission to the last job's end.
        job_seconds: the median time of an attempt.
    """

    workers: int
    seconds: float
    job_seconds: float


def main() -> None:
    """Measure, print, and write the page of a whole run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=40)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    found: dict[str, list[Series]] = {}
    with stack() as servers, _plugin(servers.folder):
        for kind, job in KINDS.items():
            found[kind] = [_measure(servers, job, options.jobs, count) for count in (1, MANY)]
            print(kind, found[kind], file=sys.stderr, flush=True)
    tables = _tables(found, options.jobs, load)
    print(tables)
    if options.jobs == parser.get_default("jobs"):
        PAGE.write_text(f"{METHOD}\n{tables}\n")


@contextmanager
def _plugin(folder: Path) -> Iterator[None]:
    """Install the sleeping model as a package does it, for the processes that are started here."""
    package = folder / "plugin" / "clipwise_sleeping-1.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: clipwise-sleeping\nVersion: 1\n")
    (package / "entry_points.txt").write_text(
        "[clipwise.architectures]\nsleeping = tests.benchmarks.sleeping:Sleeping\n"
    )
    path = os.pathsep.join([str(package.parent), str(ROOT)])
    with mock.patch.dict(os.environ, {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}):
        yield


def _measure(servers: Stack, job: Mapping[str, Any], jobs: int, count: int) -> Series:
    with (
        migrated(servers, "scaling") as engine,
        api(servers, engine, cores=ALL_CORES) as running,
        _workers(servers, engine, count),
        httpx.Client(
            base_url=running.url, headers={"Authorization": f"Bearer {KEY}"}, trust_env=False
        ) as http,
    ):
        time.sleep(READY_SECONDS)
        begun = datetime.now(UTC)
        for number in range(jobs):
            body = {**job, "name": f"job {number}", "training": {**job["training"], "seed": 7}}
            http.post("/v1/jobs", json=body).raise_for_status()
        ended = _all_ended(engine, jobs)
        with reading(engine) as session:
            attempts = session.scalars(select(AttemptRow)).all()
        if len(attempts) != jobs:
            raise RuntimeError(f"{jobs} jobs took {len(attempts)} attempts")
        taken = [
            (attempt.finished_at - attempt.started_at).total_seconds()
            for attempt in attempts
            if attempt.finished_at is not None
        ]
        return Series(
            workers=count,
            seconds=(ended - begun).total_seconds(),
            job_seconds=statistics.median(taken),
        )


def _all_ended(engine: Engine, jobs: int) -> datetime:
    """Wait until every job is over, and return when the last one was; all must have succeeded."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    over = select(func.count(), func.max(JobRow.finished_at)).where(JobRow.status.in_(TERMINAL))
    while True:
        with reading(engine) as session:
            ended, at = session.execute(over).one()
            if ended == jobs and at is not None:
                statuses = set(session.scalars(select(JobRow.status)))
                break
        if time.monotonic() > deadline:
            raise RuntimeError(f"{ended} of {jobs} jobs ended in time")
        time.sleep(0.5)
    if statuses != {JobStatus.SUCCEEDED}:
        raise RuntimeError(f"jobs ended as {sorted(statuses)}")
    return at


@contextmanager
def _workers(servers: Stack, engine: Engine, count: int) -> Iterator[None]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("CLIPWISE_")}
    settings = {
        "CLIPWISE_DATA_DIR": str(servers.folder / "data"),
        "CLIPWISE_DATABASE_URL": engine.url.render_as_string(hide_password=False),
        "CLIPWISE_BROKER_URL": f"{servers.redis_url}/0",
    }
    with (servers.folder / "workers.log").open("ab") as log:
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "clipwise_worker"], env=plain | settings, stdout=log, stderr=log
            )
            for _ in range(count)
        ]
    try:
        _until_alive(engine, count)
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait(30)


def _until_alive(engine: Engine, count: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        with reading(engine) as session:
            if len(workers.alive(session)) == count:
                return
        if time.monotonic() > deadline:
            raise RuntimeError("the workers did not start")
        time.sleep(0.1)


def _tables(found: Mapping[str, Sequence[Series]], jobs: int, load: float) -> str:
    rows = []
    for kind, (one, many) in found.items():
        bar = f"at least {BAR:g}" if kind == ASLEEP else "none: as far as the cores go"
        rows.append(
            (
                f"{jobs} jobs, {kind}",
                f"{one.seconds:.1f} s ({one.job_seconds:.1f} s each)",
                f"{many.seconds:.1f} s ({many.job_seconds:.1f} s each)",
                f"{one.seconds / many.seconds:.2f}",
                bar,
            )
        )
    head = ("what", "one worker", f"{MANY} workers", "times as fast", "bar")
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {platform.machine()}, "
        f"Python {platform.python_version()}; load {load:.1f} before\n\n{table(head, rows)}"
    )


if __name__ == "__main__":
    main()
