"""Five hundred event streams, each of a job of its own, and GETs beside them."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine

from clipwise.store import reports
from clipwise.store.attempts import Attempt
from clipwise.store.sessions import transaction
from tests.benchmarks.load import arrivals, claiming, seeding
from tests.benchmarks.load.arrivals import ROOT
from tests.benchmarks.load.stack import Served, Stack, api, migrated

EVENTS_A_SECOND = 25.0
GETS_A_SECOND = 20.0
SETTLE_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Streamed:
    """What was seen.

    Attributes:
        opened_in: seconds until all streams were open.
        lost: what did not come, or came twice, in words; "" if every event came once.
        delays: seconds from the writing of an event to its arrival.
        alone: GETs without streams.
        beside: GETs beside the streams, while events come.
    """

    opened_in: float
    lost: str
    delays: Sequence[float]
    alone: arrivals.Outcome
    beside: arrivals.Outcome


def measure(stack: Stack, streams: int, events_each: int) -> Streamed:
    """Open the streams, let every job have events, and count what comes."""
    with migrated(stack, "streams") as engine, api(stack, engine) as running:
        seeding.add_workers(engine)
        attempts = claiming.owned(engine, streams)
        seconds = streams * events_each / EVENTS_A_SECOND
        alone = _gets(running, attempts, seconds)
        with holding(running, attempts) as held:
            with _beside(running, attempts, seconds) as gets:
                for _ in range(events_each):
                    _tell(engine, attempts)
            time.sleep(SETTLE_SECONDS)
            said = held.end()
        beside = gets.outcome()
    return Streamed(
        opened_in=held.opened_in,
        lost=_lost(said, streams, events_each),
        delays=[delay for delays in said["seen"].values() for delay in delays],
        alone=alone,
        beside=beside,
    )


class Held:
    """The process that holds the streams."""

    def __init__(self, process: subprocess.Popen[str], opened_in: float) -> None:
        self._process = process
        self.opened_in = opened_in

    def end(self) -> dict[str, Any]:
        """Close the streams and return what came."""
        out, _ = self._process.communicate("end\n", timeout=60)
        said: dict[str, Any] = json.loads(out)
        return said


@contextmanager
def holding(server: Served, attempts: Sequence[Attempt]) -> Iterator[Held]:
    """Hold one stream of each attempt's job open."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.load.holding"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        jobs = [attempt.job_id for attempt in attempts]
        process.stdin.write(json.dumps({"url": server.url, "jobs": jobs}) + "\n")
        process.stdin.flush()
        yield Held(process, json.loads(process.stdout.readline())["seconds"])
    finally:
        process.kill()
        process.wait()


class _Gets:
    """GETs in a process of their own."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def outcome(self) -> arrivals.Outcome:
        assert self._process.stdout is not None
        return arrivals.Outcome(**json.loads(self._process.stdout.read()))


@contextmanager
def _beside(server: Served, attempts: Sequence[Attempt], seconds: float) -> Iterator[_Gets]:
    process = arrivals.start(_plan(server, attempts, seconds))
    try:
        yield _Gets(process)
        process.wait(seconds + 120)
    finally:
        process.kill()


def _gets(server: Served, attempts: Sequence[Attempt], seconds: float) -> arrivals.Outcome:
    return arrivals.run(_plan(server, attempts, seconds))


def _plan(server: Served, attempts: Sequence[Attempt], seconds: float) -> arrivals.Plan:
    return arrivals.Plan(
        url=server.url,
        requests=[("GET", f"/v1/jobs/{attempt.job_id}", None) for attempt in attempts],
        rate=GETS_A_SECOND,
        seconds=seconds,
    )


def _tell(engine: Engine, attempts: Sequence[Attempt]) -> None:
    begun = time.monotonic()
    for number, attempt in enumerate(attempts):
        time.sleep(max(0.0, begun + number / EVENTS_A_SECOND - time.monotonic()))
        with transaction(engine) as session:
            reports.add_event(session, attempt, "measured", "info", "An event.", {"at": time.time()})


def _lost(said: dict[str, Any], streams: int, events_each: int) -> str:
    wrong = []
    if said["closed"]:
        wrong.append(f"{said['closed']} streams ended early")
    missing = sum(len(delays) < events_each for delays in said["seen"].values())
    doubled = sum(len(delays) > events_each for delays in said["seen"].values())
    if missing or len(said["seen"]) != streams:
        wrong.append(f"{missing} streams missed an event")
    if doubled:
        wrong.append(f"{doubled} streams were sent an event twice")
    return "; ".join(wrong)
