"""What the measured database holds beforehand: workers that live, and jobs of last year."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, insert, select, text

from clipwise import architectures, plugins
from clipwise.data.builtin import BUILTINS
from clipwise.ids import new_id
from clipwise.jobs.planning import plan_job
from clipwise.jobs.spec import parse
from clipwise.jobs.states import JobStatus
from clipwise.store.sessions import transaction
from clipwise.store.tables import ApiKeyRow, DatasetRow, EventRow, JobRow, JobTagRow, WorkerRow, searchable

WORKERS = 8
PLAIN: dict[str, Any] = {
    "name": "digits, plain",
    "dataset": "digits",
    "model": {"kind": "mlp", "hidden_sizes": [128]},
    "training": {"steps": 300, "batch_size": 128, "seed": 7},
    "optimizer": {"learning_rate": 0.1, "modules": [{"kind": "momentum", "beta": 0.9}]},
    "clipping": {"max_norm": 1.0},
    "evaluation": {"fraction": 0.2, "every_steps": 50},
    "tags": {"team": "cardiology", "series": "load"},
}
PRIVATE: dict[str, Any] = {
    **PLAIN,
    "name": "digits, epsilon 3",
    "privacy": {"target_epsilon": 3.0, "delta": 1e-4},
}
STATUSES = {"succeeded": 70, "failed": 12, "cancelled": 8, "queued": 6, "paused": 2, "running": 2}
"""How many in a hundred of the jobs that are there already have which status."""
TEAMS = ("cardiology", "oncology", "radiology", "genetics", "fraud", "ads", "search", "speech")
WORDS = ("baseline", "wide", "deep", "ablation", "sweep", "final", "retry", "small", "large", "noisy")
AT_ONCE = 2_000


def add_workers(engine: Engine) -> None:
    """Write workers that stay alive for as long as anything is measured."""
    later = datetime.now(UTC) + timedelta(days=1)
    kinds = {kind: plugins.json_schema(cls) for kind, cls in architectures.kinds().items()}
    with transaction(engine) as session:
        session.add_all(
            WorkerRow(
                id=new_id("wrk"),
                host=f"gpu-{number}",
                pid=1,
                queues=["cpu"],
                slots=1,
                kinds=kinds,
                versions={"torch": "2.13.0"},
                started_at=datetime.now(UTC),
                heartbeat_at=later,
            )
            for number in range(WORKERS)
        )


def add_jobs(engine: Engine, count: int) -> None:
    """Write jobs as they are after a year of use: over all data sets, eight teams and ten words.

    The api has been started before, so that its first key and the built-in data sets are there.
    """
    draw = random.Random(7)
    schema = BUILTINS["digits"].schema
    specs = [parse(document) for document in (PLAIN, PRIVATE)]
    drawn = [(spec.as_json(), plan_job(spec, schema).model_dump(mode="json")) for spec in specs]
    with transaction(engine) as session:
        datasets = {row.name: row.id for row in session.scalars(select(DatasetRow))}
        key_id = session.scalars(select(ApiKeyRow.id)).first()
        rows = _jobs(draw, count, drawn, sorted(datasets.items()), key_id)
        while batch := [row for row, _ in zip(rows, range(AT_ONCE), strict=False)]:
            session.execute(insert(JobRow), batch)
            session.execute(
                insert(JobTagRow),
                [
                    {"job_id": row["id"], "key": key, "value": value}
                    for row in batch
                    for key, value in row["spec"]["tags"].items()
                ],
            )
            session.execute(insert(EventRow), [_event(row) for row in batch])
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


def _jobs(
    draw: random.Random,
    count: int,
    drawn: list[tuple[dict[str, Any], dict[str, Any]]],
    datasets: list[tuple[str, str]],
    key_id: str | None,
) -> Iterator[dict[str, Any]]:
    begun = datetime.now(UTC) - timedelta(days=365)
    for number in range(count):
        name, dataset_id = draw.choices(datasets, weights=range(len(datasets), 0, -1))[0]
        status = draw.choices(list(STATUSES), weights=list(STATUSES.values()))[0]
        at = begun + timedelta(seconds=number * 300)
        spec, plan = drawn[number % 2]
        title = f"{name} {draw.choice(WORDS)} {draw.choice(WORDS)} {number}"
        tags = {"team": draw.choice(TEAMS), "run": str(number), "series": str(number // 100)}
        yield {
            "id": new_id("job"),
            "name": title,
            "search_name": searchable(title),
            "status": JobStatus(status),
            "spec": {**spec, "name": title, "dataset": name, "tags": tags},
            "plan": plan,
            "dataset_id": dataset_id,
            "model_kind": draw.choice(("mlp", "mlp", "cnn", "logistic")),
            "queue": "cpu",
            "steps": 300,
            "last_event_id": 1,
            "created_by": key_id,
            "created_at": at,
            "queued_at": at,
            "finished_at": at + timedelta(seconds=60) if status in {"succeeded", "failed"} else None,
        }


def _event(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "job_id": row["id"],
        "id": 1,
        "type": "submitted",
        "level": "info",
        "message": "The job was submitted.",
        "data": {"status": row["status"]},
        "created_at": row["created_at"],
    }
