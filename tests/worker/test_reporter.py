"""Reports on their way to the database, over lines that break."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from clipwise.store import claims
from clipwise.store.claims import Capacity
from clipwise.store.sessions import reading, transaction
from clipwise.store.tables import EventRow, LogLineRow, MetricRow
from clipwise_worker import reporter as module
from clipwise_worker.messages import Measured
from clipwise_worker.reporter import Reporter
from tests.job_rows import job_adder


@contextmanager
def answers_get_lost(engine: Engine) -> Iterator[Session]:
    """What a connection does that breaks behind the commit."""
    with transaction(engine) as session:
        yield session
    raise OperationalError("COMMIT", {}, Exception("the connection was closed"))


def times(broken: int, how: Callable[[Engine], Any]) -> Callable[[Engine], Any]:
    left = [how] * broken
    return lambda engine: (left.pop() if left else transaction)(engine)


def until_told(engine: Engine, line: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        with reading(engine) as session:
            if line in session.scalars(select(LogLineRow.line)).all():
                return
        assert time.monotonic() < deadline, line
        time.sleep(0.05)


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_nothing_is_told_twice_when_an_answer_is_lost(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, broken: int
) -> None:
    job_adder(engine)()
    with transaction(engine) as session:
        claimed = claims.claim(session, Capacity(worker_id="wkr_1", queues=["cpu"], kinds=["mlp"]))
    assert claimed is not None
    monkeypatch.setattr(module, "transaction", times(broken, answers_get_lost))
    wrong: list[str] = []
    reporter = Reporter(engine, claimed.attempt, on_lost=lambda: wrong.append("lost"), on_failed=wrong.append)
    for part in ("one", "two"):
        reporter.phase(f"phase {part}")
        reporter.warning(f"warning {part}")
        reporter.line("stdout", f"line {part}")
        reporter.metrics(Measured(step=len(part), values={part: 1.0}, released=False))
        until_told(engine, f"line {part}")
    reporter.close(10)
    assert wrong == []
    with reading(engine) as session:
        told = [event.message for event in session.scalars(select(EventRow).order_by(EventRow.id))]
        lines = session.scalars(select(LogLineRow.line).order_by(LogLineRow.id)).all()
        points = session.scalars(select(MetricRow.name)).all()
    assert [text for text in told if " " in text and text.split()[0] in {"phase", "warning"}] == [
        "phase one",
        "warning one",
        "phase two",
        "warning two",
    ]
    assert lines == ["line one", "line two"]
    assert sorted(points) == ["one", "two"]
