"""One chart of a million points, thinned out on the server."""

import math
from dataclasses import dataclass

from sqlalchemy import Engine

from clipwise.store import reports
from clipwise.store.attempts import Attempt
from clipwise.store.sessions import transaction
from clipwise.store.spans import Point
from tests.benchmarks.load import arrivals, claiming
from tests.benchmarks.load.stack import Stack, api, migrated

AT_ONCE = 10_000
RATE = 4.0


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart of so many points, and what the load saw of it."""

    title: str
    outcome: arrivals.Outcome


def measure(stack: Stack, points: int, seconds: float) -> list[Chart]:
    """Return the latencies of whole charts and of parts of them."""
    with migrated(stack, "charts") as engine:
        with api(stack, engine):
            pass  # its first start makes the key and the data sets
        (attempt,) = claiming.owned(engine, 1)
        fill(engine, attempt, points)
        path = f"/v1/jobs/{attempt.job_id}/metrics?name=train%2Floss&max_points"
        kinds = {
            f"all {points:,} points, `max_points=1000`": f"{path}=1000",
            f"all {points:,} points, `max_points=2000`": f"{path}=2000",
            "the last tenth, `max_points=1000`": f"{path}=1000&after_step={points * 9 // 10}",
            "the last hundredth, `max_points=1000`": f"{path}=1000&after_step={points * 99 // 100}",
        }
        with api(stack, engine) as running:
            return [
                Chart(
                    title=title,
                    outcome=arrivals.run(
                        arrivals.Plan(
                            url=running.url,
                            requests=[("GET", target, None)],
                            rate=RATE,
                            seconds=seconds,
                            warm_up=1,
                        )
                    ),
                )
                for title, target in kinds.items()
            ]


def fill(engine: Engine, attempt: Attempt, points: int) -> None:
    """Write a loss that falls and trembles, as a worker does."""
    for first in range(0, points, AT_ONCE):
        batch = [
            Point(name="train/loss", step=step, value=_loss(step), released=False)
            for step in range(first + 1, min(first + AT_ONCE, points) + 1)
        ]
        with transaction(engine) as session:
            reports.add_metrics(session, attempt, batch)


def _loss(step: int) -> float:
    return 2.0 / math.sqrt(1 + step / 1000) + 0.1 * math.sin(step * 12.9898) * math.sin(step * 0.37)
