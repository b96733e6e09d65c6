import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import Connection, Engine, inspect, select, text, update

from clipwise.errors import ConfigurationError
from clipwise.store import claims, migration, reaper
from clipwise.store.claims import Capacity
from clipwise.store.sessions import connect, reading, transaction
from clipwise.store.spans import WIDTHS
from clipwise.store.tables import (
    ApiKeyRow,
    ArtifactRow,
    AttemptRow,
    CheckpointRow,
    DatasetRow,
    EventRow,
    JobRow,
    JobTagRow,
    LogLineRow,
    MetricRow,
    MetricSpanRow,
    OutboxRow,
    PopulationRow,
    Table,
    WorkerRow,
)


def test_the_migrations_make_exactly_the_tables(database_url: str) -> None:
    assert migration.upgrade(database_url) == migration.expected_revision()
    assert migration.differences(database_url) == []


def test_a_missing_column_would_be_seen(database_url: str) -> None:
    migration.upgrade(database_url)
    with connect(database_url).begin() as connection:
        connection.execute(text("ALTER TABLE jobs DROP COLUMN eta_seconds"))
    assert [change[0] for change in migration.differences(database_url)] == ["add_column"]


def test_an_empty_database_is_refused_with_the_command_that_helps(database_url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"none .*expects 0002; run: clipwise migrate"):
        migration.require_current(connect(database_url))


def test_a_migrated_database_is_accepted_and_migrating_again_changes_nothing(database_url: str) -> None:
    migration.upgrade(database_url)
    migration.upgrade(database_url)
    migration.require_current(connect(database_url))


def test_a_database_of_a_newer_version_is_refused_and_left_alone(database_url: str) -> None:
    migration.upgrade(database_url)
    engine = connect(database_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for act in (lambda: migration.upgrade(database_url), lambda: migration.require_current(engine)):
        with pytest.raises(ConfigurationError, match=r"revision 9999.*does not know"):
            act()


def test_several_processes_may_migrate_at_once(database_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(migration.upgrade, [database_url] * 4)) == {migration.expected_revision()}
    assert migration.differences(database_url) == []


def test_downgrading_takes_everything_away(database_url: str) -> None:
    migration.upgrade(database_url)
    engine = connect(database_url)
    with engine.begin() as connection:
        command.downgrade(migration.configuration(connection=connection), "base")
    assert set(inspect(engine).get_table_names()) == {"alembic_version"}
    assert Table.metadata.tables


def test_the_folder_of_a_sqlite_database_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    migration.upgrade(f"sqlite:///{folder / 'clipwise.db'}")
    assert folder.stat().st_mode & 0o777 == 0o700


JOBS_OF_0001 = {
    # id: status, phase, attempt, step, started, finished
    "job_validating": ("validating", None, 0, None, False, False),
    "job_queued": ("queued", None, 0, None, False, False),
    "job_running": ("running", "training", 1, 40, True, False),
    "job_starting": ("running", "starting", 1, None, True, False),
    "job_cancelling": ("cancelling", "training", 1, 7, True, False),
    "job_succeeded": ("succeeded", None, 1, 100, True, True),
    "job_failed": ("failed", None, 2, 3, True, True),
    "job_cancelled": ("cancelled", None, 0, None, False, True),
}
AT = "2026-02-03 04:05:06.789000"


def fill_0001(connection: Connection) -> None:
    """Write rows into every table that mattered, as version 0001 wrote them: by plain SQL."""

    def insert(table: str, **values: Any) -> None:
        names = ", ".join(f'"{name}"' for name in values)
        marks = ", ".join(f":{name}" for name in values)
        connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({marks})"), values)

    zone = "+00" if connection.dialect.name == "postgresql" else ""
    at = AT + zone
    insert(
        "api_keys", id="key_1", name="first", role="owner", prefix="cw_12345", secret_hash="h", created_at=at
    )
    insert("populations", id="pop_1", name="people", visibility="private", created_at=at)
    insert(
        "datasets",
        id="ds_1",
        name="patients",
        population_id="pop_1",
        status="ready",
        source="upload",
        format="csv",
        schema=json.dumps({"target": "label", "classes": ["é", "0"]}),
        notes=json.dumps(["a note"]),
        source_key="datasets/ds_1/source.csv",
        rows_key="datasets/ds_1/rows.arrow",
        rows=40,
        size_bytes=5_000_000_000,
        version=3,
        created_by="key_1",
        created_at=at,
    )
    insert(
        "workers",
        id="wkr_1",
        host="h1",
        pid=7,
        queues=json.dumps(["cpu"]),
        slots=2,
        kinds=json.dumps({"mlp": {"type": "object"}}),
        versions=json.dumps({"torch": "2.9"}),
        started_at=at,
        heartbeat_at=at,
    )
    for number, (job_id, (status, phase, attempt, step, started, finished)) in enumerate(
        JOBS_OF_0001.items()
    ):
        insert(
            "jobs",
            id=job_id,
            name=f"number {number}",
            status=status,
            phase=phase,
            reason_code="out_of_memory" if status == "failed" else None,
            spec=json.dumps({"model": {"kind": "mlp"}, "limits": {"max_runtime_seconds": 3600}}),
            plan=None if status == "validating" else json.dumps({"steps": 100, "epsilon": 2.5}),
            steps=100,
            delta=1e-5 if job_id == "job_running" else None,
            result=json.dumps({"metrics": {"loss": 0.5}}) if status == "succeeded" else None,
            dataset_id="ds_1",
            model_kind="mlp",
            queue="cpu",
            priority=number,
            attempt=attempt,
            token=attempt,
            worker_id="wkr_1" if started and not finished else None,
            step=step,
            epsilon=None if step is None else 0.25,
            last_event_id=1,
            last_log_id=1,
            cancel_requested_at=at if status == "cancelling" else None,
            created_by="key_1",
            created_at=at,
            started_at=at if started else None,
            finished_at=at if finished else None,
            version=2,
        )
        insert("job_tags", job_id=job_id, key="team", value="cardiology")
        insert(
            "job_events",
            job_id=job_id,
            id=1,
            type="submitted",
            level="info",
            message="The job was submitted.",
            data=json.dumps({"status": status}),
            created_at=at,
        )
        insert("job_logs", job_id=job_id, id=1, stream="stdout", line="hello", attempt=1, created_at=at)
        for tried in range(1, attempt + 1):
            insert(
                "attempts",
                job_id=job_id,
                number=tried,
                token=tried,
                worker_id="wkr_1",
                started_at=at,
                heartbeat_at=at,
                finished_at=at if finished else None,
                outcome=status if finished else None,
            )
            value = {"job_id": job_id, "name": "loss", "step": 2**40, "attempt": tried, "released": False}
            insert("metrics", **value, value=0.1 + 0.2)
    insert(
        "artifacts",
        job_id="job_succeeded",
        name="model.safetensors",
        key="jobs/job_succeeded/model.safetensors",
        size=9,
        sha256="0" * 64,
        attempt=1,
        created_at=at,
    )
    insert(
        "idempotency_keys",
        api_key_id="key_1",
        key="k",
        route="r",
        body_hash="b",
        resource_id="x",
        created_at=at,
    )
    insert("outbox", queue="cpu", job_id="job_queued", created_at=at)
    insert("orphan_files", key="jobs/gone", created_at=at)


@pytest.fixture
def filled_0001(database_url: str) -> Iterator[Engine]:
    """A database of revision 0001 with data in it."""
    engine = connect(database_url)
    with engine.begin() as connection:
        command.upgrade(migration.configuration(connection=connection), "0001")
        fill_0001(connection)
    yield engine
    engine.dispose()


def contents(engine: Engine) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row of the columns that both revisions have."""
    with engine.connect() as connection:
        found: dict[str, list[tuple[Any, ...]]] = {}
        for table in sorted(set(inspect(connection).get_table_names()) - {"alembic_version"}):
            columns = [c["name"] for c in inspect(connection).get_columns(table) if c["name"] not in OF_0002]
            names = ", ".join(f'"{name}"' for name in sorted(columns))
            rows = connection.execute(text(f"SELECT {names} FROM {table}"))
            found[table] = sorted(tuple(map(str, row)) for row in rows)
        return found


OF_0002 = {
    *(
        "draining_at",
        "devices",
        "start_step",
        "waited_seconds",
        "reason",
        "reports",
        "gpus",
        "lease_expires_at",
    ),
    "search_name",
    *("not_before", "wait_until", "pause_requested_at", "runner_deaths", "worker_losses", "ran_seconds"),
    *("charged_steps", "checkpoint_step", "parent_id", "parent_verb", "request_id", "queued_at"),
    "epsilon",  # of a job that was running it becomes what its plan says
    "heartbeat_at",  # an attempt's own goes with 0002; a worker's is looked at below
}
TABLES_OF_0002 = {"checkpoints", "devices", "duties", "metric_spans"}


def test_everything_of_0001_is_still_there_after_the_upgrade(filled_0001: Engine, database_url: str) -> None:
    before = contents(filled_0001)
    migration.upgrade(database_url)
    after = contents(filled_0001)
    assert {table: rows for table, rows in after.items() if table not in TABLES_OF_0002} == before
    assert all(after[table] == [] for table in TABLES_OF_0002 - {"metric_spans"})
    assert migration.differences(database_url) == []


def test_rows_of_0001_are_read_as_rows_of_now(filled_0001: Engine, database_url: str) -> None:
    migration.upgrade(database_url)
    at = datetime(2026, 2, 3, 4, 5, 6, 789_000, tzinfo=UTC)
    with reading(filled_0001) as session:
        jobs = {row.id: row for row in session.scalars(select(JobRow))}
        assert {job_id: row.status for job_id, row in jobs.items()} == {
            job_id: values[0] for job_id, values in JOBS_OF_0001.items()
        }
        assert {row.queued_at for row in jobs.values() if row.status != "validating"} == {at}
        assert jobs["job_validating"].queued_at is None
        assert jobs["job_running"].lease_expires_at == at
        # Forty steps were told of; how many more ran is not known, so all are paid for.
        assert (jobs["job_running"].charged_steps, jobs["job_running"].epsilon) == (100, 2.5)
        assert (jobs["job_starting"].charged_steps, jobs["job_succeeded"].epsilon) == (0, 0.25)
        assert {row.charged_steps for row in jobs.values() if row.finished_at} == {0}
        assert jobs["job_succeeded"].result == {"metrics": {"loss": 0.5}}
        assert {(row.gpus, row.worker_losses, row.ran_seconds) for row in jobs.values()} == {(0, 0, 0.0)}
        (worker,) = session.scalars(select(WorkerRow))
        assert (worker.queues, worker.devices, worker.draining_at) == (["cpu"], [], None)
        assert worker.heartbeat_at == at
        attempts = session.scalars(select(AttemptRow)).all()
        assert len(attempts) == sum(values[2] for values in JOBS_OF_0001.values())
        assert {(row.start_step, row.waited_seconds, row.reason) for row in attempts} == {(0, None, None)}
        (dataset,) = session.scalars(select(DatasetRow))
        assert dataset.dataset_schema == {"target": "label", "classes": ["é", "0"]}
        assert dataset.size_bytes == 5_000_000_000
        assert {(row.step, row.value) for row in session.scalars(select(MetricRow))} == {(2**40, 0.1 + 0.2)}
        value, step = 0.1 + 0.2, 2**40
        assert {
            (s.width, s.number, s.lowest, s.lowest_step, s.highest, s.highest_step, s.first_null, s.released)
            for s in session.scalars(select(MetricSpanRow))
        } == {(width, step // width, value, step, value, step, None, False) for width in WIDTHS}
        assert {row.search_name for row in jobs.values()} == {row.name for row in jobs.values()}
        for table in (ArtifactRow, EventRow, JobTagRow, LogLineRow, OutboxRow, PopulationRow, ApiKeyRow):
            assert session.scalars(select(table)).all()


def test_what_ran_under_0001_is_taken_up_again(filled_0001: Engine, database_url: str) -> None:
    migration.upgrade(database_url)
    with transaction(filled_0001) as session:
        reaped = reaper.reap(session)
    assert sorted(reaped.interrupted) == ["job_running", "job_starting"]
    assert reaped.ended == ["job_cancelling"]
    with transaction(filled_0001) as session:
        session.execute(update(JobRow).values(not_before=None))
        capacity = Capacity(worker_id="wkr_2", queues=["cpu"], kinds=["mlp"])
        claimed = [claims.claim(session, capacity) for _ in range(3)]
    taken = {one.attempt.job_id: one for one in claimed if one is not None}
    assert set(taken) == {"job_queued", "job_running", "job_starting"}
    assert (taken["job_running"].attempt.number, taken["job_running"].charged_steps) == (2, 100)


def test_going_back_to_0001_and_up_again_keeps_the_data(filled_0001: Engine, database_url: str) -> None:
    before = contents(filled_0001)
    migration.upgrade(database_url)
    with transaction(filled_0001) as session:
        session.execute(update(JobRow).values(worker_losses=1, parent_id="job_0", checkpoint_step=5))
        checkpoint = {"key": "k", "size": 1, "sha256": "0", "created_at": datetime.now(UTC)}
        session.add(CheckpointRow(job_id="job_running", step=5, attempt=1, **checkpoint))
    with filled_0001.begin() as connection:
        command.downgrade(migration.configuration(connection=connection), "0001")
    assert contents(filled_0001) == before
    with filled_0001.connect() as connection:
        columns = {column["name"] for column in inspect(connection).get_columns("attempts")}
        assert connection.execute(text("SELECT count(heartbeat_at) FROM attempts")).scalar_one() == 6
    assert "heartbeat_at" in columns
    with pytest.raises(ConfigurationError, match=r"revision 0001, .*expects 0002; run: clipwise migrate"):
        migration.require_current(filled_0001)
    migration.upgrade(database_url)
    assert migration.differences(database_url) == []
    with reading(filled_0001) as session:
        assert len(session.scalars(select(JobRow)).all()) == len(JOBS_OF_0001)
