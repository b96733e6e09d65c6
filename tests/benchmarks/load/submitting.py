"""A hundred submissions a second, beside a bare application that only inserts a row."""

import sys
import time
from dataclasses import dataclass

from sqlalchemy import Engine, func, select

from clipwise.jobs.states import JobStatus
from clipwise.store.sessions import reading
from clipwise.store.tables import EventRow, JobRow, OutboxRow
from tests.benchmarks.load import arrivals, seeding
from tests.benchmarks.load.stack import Served, Stack, api, migrated, served

RATE = 100.0
DRAIN_SECONDS = 30


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of the load.

    Attributes:
        outcome: what the load saw.
        cpu_milliseconds: what the server's process used for each request.
        lost: what is missing or doubled afterwards, in words; "" if all is there once.
    """

    outcome: arrivals.Outcome
    cpu_milliseconds: float
    lost: str = ""


def measure(stack: Stack, runs: int, seconds: float) -> tuple[list[Run], list[Run]]:
    """Return the runs of the api and those of the bare application, taken in turns."""
    ours: list[Run] = []
    bare: list[Run] = []
    bare_url = stack.database("bare")
    command = [sys.executable, "-m", "tests.benchmarks.load.bare"]
    with (
        migrated(stack, "submissions") as engine,
        api(stack, engine) as running,
        served(
            command, {"BARE_DATABASE_URL": bare_url}, "BARE_PORT", "/healthz", stack.folder / "bare.log"
        ) as peer,
    ):
        seeding.add_workers(engine)
        _calibrate(running, engine)
        for _ in range(runs):
            bare.append(_run(peer, "/jobs", seconds))
            before = _written(engine)
            run = _run(running, "/v1/jobs", seconds)
            ours.append(Run(**{**vars(run), "lost": _lost(engine, before, run.outcome)}))
    return ours, bare


def _run(server: Served, target: str, seconds: float) -> Run:
    bodies = [seeding.PRIVATE, seeding.PLAIN]
    used = server.cpu_seconds()
    outcome = arrivals.run(
        arrivals.Plan(
            url=server.url,
            requests=[("POST", target, body) for body in bodies],
            rate=RATE,
            seconds=seconds,
        )
    )
    requests = len(outcome.latencies) + 20
    return Run(outcome=outcome, cpu_milliseconds=1e3 * (server.cpu_seconds() - used) / requests)


def _calibrate(server: Served, engine: Engine) -> None:
    """Submit the private job once, and wait until its noise is known."""
    arrivals.run(
        arrivals.Plan(
            url=server.url,
            requests=[("POST", "/v1/jobs", seeding.PRIVATE)],
            rate=1.0,
            seconds=0.0,
            warm_up=1,
        )
    )
    deadline = time.monotonic() + 60
    while _written(engine)[JobStatus.VALIDATING]:
        if time.monotonic() > deadline:
            raise RuntimeError("the noise was not calibrated in time")
        time.sleep(0.1)


def _written(engine: Engine) -> dict[JobStatus, int]:
    with reading(engine) as session:
        found = dict(session.execute(select(JobRow.status, func.count()).group_by(JobRow.status)).all())
    return {status: found.get(status, 0) for status in JobStatus}


def _lost(engine: Engine, before: dict[JobStatus, int], outcome: arrivals.Outcome) -> str:
    """Say what of the answered submissions is not there exactly once, or still waits to be delivered."""
    deadline = time.monotonic() + DRAIN_SECONDS
    while _outbox(engine) and time.monotonic() < deadline:
        time.sleep(0.1)
    wrong = []
    ids = set(outcome.ids)
    if len(ids) != len(outcome.ids):
        wrong.append("an id was given twice")
    with reading(engine) as session:
        queued = select(JobRow.id).where(JobRow.status == JobStatus.QUEUED)
        missing = ids - set(session.scalars(queued))
        events = session.execute(
            select(func.count()).select_from(EventRow).where(EventRow.job_id.in_(ids))
        ).scalar_one()
    if missing:
        wrong.append(f"{len(missing)} submissions are not queued")
    if events != 2 * len(ids):
        wrong.append(f"{events} events of {len(ids)} jobs instead of two each")
    after = _written(engine)
    if (new := sum(after.values()) - sum(before.values())) != len(ids):
        wrong.append(f"{new} new jobs for {len(ids)} answers")
    if waiting := _outbox(engine):
        wrong.append(f"{waiting} messages were not delivered")
    return "; ".join(wrong)


def _outbox(engine: Engine) -> int:
    with reading(engine) as session:
        return session.execute(select(func.count()).select_from(OutboxRow)).scalar_one()
