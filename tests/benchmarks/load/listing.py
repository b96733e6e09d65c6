"""Lists over a hundred thousand jobs: pages, filters, searches and orders, at a modest rate."""

from dataclasses import dataclass
from urllib.parse import quote, urlencode

from sqlalchemy import Engine, func, select

from clipwise.store import cursors
from clipwise.store.sessions import reading
from clipwise.store.tables import DatasetRow, JobRow, JobTagRow
from tests.benchmarks.load import arrivals, seeding
from tests.benchmarks.load.stack import Stack, api, migrated

RATE = 20.0


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One kind of list, and what the load saw of it."""

    title: str
    outcome: arrivals.Outcome


def measure(stack: Stack, jobs: int, seconds: float, rounds: int) -> list[Listed]:
    """Return the latencies of each kind of list, taken in turns."""
    with migrated(stack, "lists") as engine:
        with api(stack, engine):
            pass  # its first start makes the key and the data sets
        seeding.add_jobs(engine, jobs)
        seeding.add_workers(engine)
        with api(stack, engine) as running:
            kinds = queries(engine)
            seen: dict[str, list[float]] = {title: [] for title in kinds}
            statuses: dict[str, dict[str, int]] = {title: {} for title in kinds}
            for _ in range(rounds):
                for title, target in kinds.items():
                    outcome = arrivals.run(
                        arrivals.Plan(
                            url=running.url,
                            requests=[("GET", target, None)],
                            rate=RATE,
                            seconds=seconds / rounds,
                        )
                    )
                    seen[title] += outcome.latencies
                    for status, number in outcome.statuses.items():
                        statuses[title][status] = statuses[title].get(status, 0) + number
    return [
        Listed(
            title=title,
            outcome=arrivals.Outcome(latencies=seen[title], statuses=statuses[title], ids=[], lateness=0.0),
        )
        for title in kinds
    ]


def queries(engine: Engine) -> dict[str, str]:
    """Return what is asked for, by its title in the table."""
    with reading(engine) as session:
        recent = select(JobRow.created_at, JobRow.id).order_by(JobRow.created_at.desc(), JobRow.id.desc())
        count = session.execute(select(func.count()).select_from(JobRow)).scalar_one()
        at, job_id = session.execute(recent.offset(count * 9 // 10).limit(1)).one()
        deep = cursors.encode("-created_at", at, job_id)
        named = select(JobRow.search_name, JobRow.id).order_by(JobRow.search_name, JobRow.id)
        name, named_id = session.execute(named.offset(count * 9 // 10).limit(1)).one()
        by_name = cursors.encode("name", name, named_id)
        used = (
            select(DatasetRow.name)
            .join(JobRow, JobRow.dataset_id == DatasetRow.id)
            .group_by(DatasetRow.name)
            .order_by(func.count())
        )
        rare, *_, common = session.scalars(used).all()
        run = session.execute(
            select(JobTagRow.value)
            .where(JobTagRow.key == "run")
            .order_by(JobTagRow.job_id)
            .offset(count // 3)
        ).first()
    assert run is not None
    return {
        "first page": "/v1/jobs",
        "page behind nine tenths of them": _target(after=deep),
        "100 at once": _target(limit="100"),
        "`status=failed` (12%)": _target(status="failed"),
        "`status=running` (2%)": _target(status="running"),
        "`status=queued&status=running`": "/v1/jobs?status=queued&status=running",
        f"`dataset={common}` (the most used)": _target(dataset=common),
        f"`dataset={rare}` (the least used)": _target(dataset=rare),
        "`tag=team:ads` (an eighth)": _target(tag="team:ads"),
        "`tag=run:...` (one job)": _target(tag=f"run:{run.value}"),
        "`status=failed`, `tag=team:ads`, deep": _target(status="failed", tag="team:ads", after=deep),
        "`q=ablation` (a fifth)": _target(q="ablation"),
        "`q=...` (one job, an old one)": _target(q=f" {count // 50}"),
        "`q=...` (none)": _target(q="no job is called this"),
        "`sort=name`": _target(sort="name"),
        "`sort=name`, behind nine tenths": _target(sort="name", after=by_name),
    }


def _target(**parameters: str) -> str:
    return f"/v1/jobs?{urlencode(parameters, quote_via=quote)}"
