"""How many statements a request costs: as many for much as for little. No milliseconds here."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, event, func, select

from clipwise.store import claims, reports
from clipwise.store.attempts import Attempt
from clipwise.store.claims import Capacity
from clipwise.store.sessions import reading, transaction
from clipwise.store.spans import Point
from clipwise.store.tables import EventRow, JobRow, JobTagRow, MetricRow
from tests.api.conftest import JOB, Api

OWN_THREADS = ("upkeep", "planner", "streams")
"""Threads of the api that work beside the requests."""


@dataclass
class Statements:
    """What was asked of the database, in the order in which it was asked."""

    texts: list[str] = field(default_factory=list)
    commits: int = 0

    @property
    def verbs(self) -> list[str]:
        """Each statement's verb, with the table that it writes to."""
        return [
            " ".join(text.split()[:3]) if text.startswith("INSERT") else text.split()[0]
            for text in self.texts
        ]

    def __len__(self) -> int:
        return len(self.texts)


@contextmanager
def counted(engine: Engine) -> Iterator[Statements]:
    """Note every statement of a request, or of the test itself; one for many rows is one."""
    found = Statements()

    def mine() -> bool:
        return not threading.current_thread().name.startswith(OWN_THREADS)

    def execute(_connection: Any, _cursor: Any, text: str, *_rest: Any) -> None:
        if mine() and not text.startswith(("BEGIN", "PRAGMA")):
            found.texts.append(text)

    def commit(_connection: Any) -> None:
        found.commits += mine()

    event.listen(engine, "before_cursor_execute", execute)
    event.listen(engine, "commit", commit)
    try:
        yield found
    finally:
        event.remove(engine, "before_cursor_execute", execute)
        event.remove(engine, "commit", commit)


def submitted(api: Api, owner: httpx.Client, **changes: Any) -> tuple[Statements, str]:
    with counted(api.services.engine) as found:
        answer = owner.post("/v1/jobs", json={**JOB, **changes})
    assert answer.status_code == 201, answer.text
    return found, answer.json()["id"]


def test_a_submission_is_eight_statements_and_writes_each_row_once(api: Api, owner: httpx.Client) -> None:
    submitted(api, owner)  # the first one of a process may look things up that stay
    few, _ = submitted(api, owner, tags={"a": "1"})
    many, job_id = submitted(api, owner, tags={f"key {number}": "value" for number in range(32)})
    assert many.verbs == few.verbs
    assert many.verbs == [
        *("SELECT", "SELECT", "SELECT"),  # the key, the workers, the data set
        *("INSERT INTO jobs", "INSERT INTO job_tags", "INSERT INTO job_events", "INSERT INTO job_events"),
        "INSERT INTO outbox",
    ]
    assert many.commits == few.commits
    with reading(api.services.engine) as session:
        counts = [
            session.execute(select(func.count()).select_from(table).where(column == job_id)).scalar_one()
            for table, column in (
                (JobRow, JobRow.id),
                (JobTagRow, JobTagRow.job_id),
                (EventRow, EventRow.job_id),
            )
        ]
        assert session.get_one(JobRow, job_id).last_event_id == 2
    assert counts == [1, 32, 2]


def test_a_submission_with_a_key_is_one_more_and_its_replay_is_less(api: Api, owner: httpx.Client) -> None:
    plain, _ = submitted(api, owner)
    headers = {"Idempotency-Key": "once"}
    with counted(api.services.engine) as first:
        made = owner.post("/v1/jobs", json=JOB, headers=headers)
    with counted(api.services.engine) as again:
        replayed = owner.post("/v1/jobs", json=JOB, headers=headers)
    assert made.json()["id"] == replayed.json()["id"]
    assert len(first) == len(plain) + 1
    assert not [verb for verb in again.verbs if verb.startswith("INSERT") and "idempotency" not in verb]


def test_a_page_costs_the_same_for_a_hundred_jobs_as_for_one(api: Api, owner: httpx.Client) -> None:
    for number in range(30):
        submitted(api, owner, name=f"job {number}", tags={"run": str(number)})

    def listed(**params: Any) -> tuple[int, int]:
        with counted(api.services.engine) as found:
            page = owner.get("/v1/jobs", params=params).json()["data"]
        return len(found), len(page)

    assert listed(limit=1) == (3, 1)  # the key, the page, the workers
    assert listed(limit=100) == (3, 30)
    assert listed(limit=100, tag="run:7") == (3, 1)
    assert listed(limit=100, status=["queued", "running"], q="job", sort="name") == (3, 30)
    assert listed(limit=100, dataset="digits") == (4, 30)  # and the data set


@pytest.fixture
def attempt(api: Api, owner: httpx.Client) -> Attempt:
    """The attempt that a worker would have of a submitted job."""
    submitted(api, owner)
    with transaction(api.services.engine) as session:
        claimed = claims.claim(session, Capacity(worker_id="wkr_1", queues=["cpu"], kinds=["mlp"]))
    assert claimed is not None
    return claimed.attempt


def told(name: str, steps: range) -> list[Point]:
    return [Point(name=name, step=step, value=float(step % 11), released=True) for step in steps]


def test_a_batch_of_metrics_costs_the_same_for_many_points_as_for_one(api: Api, attempt: Attempt) -> None:
    def written(points: list[Point]) -> Statements:
        with counted(api.services.engine) as found, transaction(api.services.engine) as session:
            reports.add_metrics(session, attempt, points)
        return found

    one, many = written(told("loss", range(1))), written(told("loss", range(1, 5000)))
    assert one.verbs == many.verbs == ["UPDATE", "INSERT INTO metrics", "INSERT INTO metric_spans"]
    with reading(api.services.engine) as session:
        assert session.execute(select(func.count()).select_from(MetricRow)).scalar_one() == 5000


@pytest.fixture
def charted(api: Api, owner: httpx.Client, attempt: Attempt) -> Callable[[str], int]:
    """How many statements the chart of a metric is."""

    def ask(name: str) -> int:
        with counted(api.services.engine) as found:
            answer = owner.get(f"/v1/jobs/{attempt.job_id}/metrics", params={"name": name, "max_points": 100})
        assert answer.json()[name]["step"]
        return len(found)

    return ask


def test_a_chart_costs_the_same_for_many_points_as_for_some(
    api: Api, attempt: Attempt, charted: Callable[[str], int]
) -> None:
    for name, points in (("short", 50), ("long", 200), ("longer", 20_000)):
        with transaction(api.services.engine) as session:
            reports.add_metrics(session, attempt, told(name, range(points)))
    assert charted("short") == 5  # the key, the job, its attempts, what there is of the metric, the points
    assert charted("long") == charted("longer") == 7  # and where it ends, and its extremes
