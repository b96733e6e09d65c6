"""Real worker processes and real runners, over a real Redis and PostgreSQL, and over files and SQLite."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import Engine, func, select, text, update

from clipwise.artifacts import ArtifactStore
from clipwise.data.builtin import BUILTINS
from clipwise.jobs import spec as job_spec
from clipwise.jobs.delivery import make_celery, wake
from clipwise.jobs.planning import plan_job
from clipwise.jobs.states import JobStatus
from clipwise.store import migration, outbox, workers
from clipwise.store.sessions import connect, reading, transaction
from clipwise.store.tables import ArtifactRow, AttemptRow, EventRow, JobRow, MetricRow, WorkerRow
from tests.conftest import free_port
from tests.integration.processes import command_of
from tests.job_rows import AddJob, job_adder

STOP_SECONDS = 5.0


@cache
def described(steps: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the specification and the plan of a private job on digits, both as JSON."""
    spec = job_spec.parse(
        {
            "dataset": "digits",
            "model": {"kind": "mlp", "hidden_sizes": [16]},
            "training": {"steps": steps, "batch_size": 32},
            "clipping": {"max_norm": 1.0},
            "privacy": {"noise_multiplier": 5.0, "delta": 1e-4},
        }
    )
    return spec.as_json(), plan_job(spec, BUILTINS["digits"].schema).model_dump(mode="json")


@dataclass
class Fleet:
    """Worker processes over one database and one broker."""

    database: str
    broker: str
    data_dir: Path
    engine: Engine
    add: AddJob
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, count: int = 1, **environment: str) -> None:
        settings = {
            "CLIPWISE_DATA_DIR": str(self.data_dir),
            "CLIPWISE_DATABASE_URL": self.database,
            "CLIPWISE_BROKER_URL": self.broker,
        }
        for _ in range(count):
            log = (self.data_dir / f"worker-{len(self.processes)}.log").open("wb")
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "clipwise_worker"],
                    env={**os.environ, **settings, **environment},
                    stdout=log,
                    stderr=log,
                )
            )
        self.until(lambda: self.alive() >= count, 30)

    def alive(self) -> int:
        with reading(self.engine) as session:
            return len(workers.alive(session))

    def submit(self, steps: int, *, bell: bool = True) -> str:
        spec, plan = described(steps)
        job_id = self.add(spec=spec, plan=plan)
        if bell:
            with transaction(self.engine) as session:
                outbox.add(session, "cpu", job_id)
            app = make_celery(self.broker, self.data_dir)
            assert outbox.relay(self.engine, lambda queue: wake(app, queue)) == 1
        return job_id

    def job(self, job_id: str) -> JobRow:
        with reading(self.engine) as session:
            return session.execute(select(JobRow).where(JobRow.id == job_id)).scalar_one()

    def until(self, condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds} s\n{self.logs()}"
            time.sleep(0.02)

    def until_training(self, job_id: str) -> None:
        self.until(lambda: self.job(job_id).phase == "training" and bool(self.job(job_id).step), 60)

    def logs(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.data_dir.glob("worker-*.log")))

    def runners(self) -> list[psutil.Process]:
        children = [child for p in self.processes for child in _children(p.pid)]
        return [child for child in children if "clipwise_worker.runner" in command_of(child)]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> float:
        """Stop every worker, and return how long that took; nothing may be left of them."""
        family = [child for p in self.processes for child in _children(p.pid)]
        started = time.monotonic()
        for process in self.processes:
            process.send_signal(number)
        for process in self.processes:
            process.wait(30)
        took = time.monotonic() - started
        deadline = time.monotonic() + 0.5
        while (left := [child for child in family if _lives(child)]) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert left == [], f"left behind: {left}"
        self.processes.clear()
        return took


def _lives(process: psutil.Process) -> bool:
    # In a container without an init, nobody reaps what has lost its parent.
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


@pytest.fixture(params=["redis and postgres", "files and sqlite"])
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fleet]:
    if request.param == "redis and postgres":
        database, broker = request.getfixturevalue("postgres_url"), request.getfixturevalue("redis_url")
    else:
        database, broker = f"sqlite:///{tmp_path / 'clipwise.db'}", "filesystem://"
    migration.upgrade(database)
    engine = connect(database)
    add = job_adder(engine, BUILTINS["digits"].schema.as_json())
    fleet = Fleet(database, broker, tmp_path, engine, add)
    try:
        yield fleet
    finally:
        for process in fleet.processes:
            process.kill()
            process.wait()
        engine.dispose()


only_redis = pytest.mark.parametrize("fleet", ["redis and postgres"], indirect=True)


def test_three_workers_finish_every_job_in_one_attempt_each(fleet: Fleet) -> None:
    fleet.start(3)
    jobs = [fleet.submit(20) for _ in range(6)]
    fleet.until(lambda: bool(fleet.runners()), 30)
    for process in fleet.processes:
        assert "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text()
    assert any("libtorch" in Path(f"/proc/{p.pid}/maps").read_text() for p in _loaded(fleet))
    fleet.until(lambda: all(fleet.job(job).status in {"succeeded", "failed"} for job in jobs), 120)
    with reading(fleet.engine) as session:
        attempts = session.execute(select(AttemptRow.number, AttemptRow.outcome)).all()
        by = session.scalars(select(AttemptRow.worker_id).distinct()).all()
        artifacts = session.execute(select(ArtifactRow)).scalars().all()
        losses = session.scalar(select(func.count()).select_from(MetricRow).where(MetricRow.attempt == 1))
    assert attempts == [(1, "succeeded")] * 6
    assert len(by) == 3
    for job_id in jobs:
        job = fleet.job(job_id)
        assert (job.step, job.steps, job.phase, job.reason_code) == (20, 20, None, None)
        assert job.epsilon == pytest.approx(described(20)[1]["epsilon"], abs=1e-9)
    assert losses
    names = {"model.safetensors", "config.json", "privacy.json"}
    assert {(artifact.job_id, artifact.name) for artifact in artifacts} == {
        (j, n) for j in jobs for n in names
    }
    store = ArtifactStore((fleet.data_dir / "artifacts").as_uri())
    assert all(store.exists(artifact.key) for artifact in artifacts)
    assert fleet.stop() < STOP_SECONDS
    assert fleet.alive() == 0
    assert list((fleet.data_dir / "attempts").iterdir()) == []


def _loaded(fleet: Fleet) -> list[psutil.Process]:
    """Return the runners, once one of them has loaded something."""
    fleet.until(lambda: any("libtorch" in _maps(runner.pid) for runner in fleet.runners()), 30)
    return [runner for runner in fleet.runners() if runner.is_running() and _maps(runner.pid)]


def _maps(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return ""


def test_a_job_that_trains_is_cancelled_in_under_two_seconds(fleet: Fleet) -> None:
    fleet.start()
    job_id = fleet.submit(1_000_000)
    fleet.until_training(job_id)
    asked = time.monotonic()
    with transaction(fleet.engine) as session:
        session.execute(update(JobRow).values(status=JobStatus.CANCELLING, version=JobRow.version + 1))
    fleet.until(lambda: fleet.job(job_id).status != "cancelling", 10)
    assert time.monotonic() - asked < 2
    job = fleet.job(job_id)
    assert (job.status, job.reason_code) == ("cancelled", "user_cancelled")
    assert job.epsilon is not None
    assert job.epsilon > 0


def test_a_killed_runner_fails_its_job_and_the_worker_takes_the_next(fleet: Fleet) -> None:
    fleet.start()
    job_id, following = fleet.submit(1_000_000), fleet.submit(5)
    fleet.until_training(job_id)
    (runner,) = fleet.runners()
    runner.kill()
    fleet.until(lambda: fleet.job(job_id).status == "failed", 5)
    job = fleet.job(job_id)
    assert job.reason_code == "internal"
    assert "signal 9" in str(job.reason_message)
    fleet.until(lambda: fleet.job(following).status == "succeeded", 60)


def test_a_worker_that_is_told_to_stop_while_training_leaves_nothing(fleet: Fleet) -> None:
    fleet.start(CLIPWISE_SLOTS="2")
    jobs = [fleet.submit(1_000_000) for _ in range(2)]
    for job_id in jobs:
        fleet.until_training(job_id)
    assert fleet.stop(signal.SIGINT) < STOP_SECONDS
    for job_id in jobs:
        job = fleet.job(job_id)
        assert (job.status, job.reason_code) == ("failed", "worker_lost")
    with reading(fleet.engine) as session:
        last = session.scalars(
            select(EventRow.type).where(EventRow.job_id == jobs[0]).order_by(EventRow.id)
        ).all()
    assert last[-1] == "failed"


def test_jobs_of_a_killed_worker_fail_when_another_one_comes(fleet: Fleet) -> None:
    fleet.start()
    job_id = fleet.submit(1_000_000)
    fleet.until_training(job_id)
    fleet.stop(signal.SIGKILL)
    assert fleet.job(job_id).status == "running"
    with transaction(fleet.engine) as session:
        # As if it had happened a while ago.
        long_ago = session.scalars(select(WorkerRow.heartbeat_at)).one() - timedelta(hours=1)
        session.execute(update(WorkerRow).values(heartbeat_at=long_ago))
    fleet.start()
    fleet.until(lambda: fleet.job(job_id).status == "failed", 5)
    assert fleet.job(job_id).reason_code == "worker_lost"
    assert len(list((fleet.data_dir / "attempts").iterdir())) <= 1


@only_redis
def test_a_broker_that_is_down_costs_nothing_but_time(fleet: Fleet) -> None:
    fleet.broker = f"redis://127.0.0.1:{free_port()}/0"
    fleet.start()
    job_id = fleet.submit(5, bell=False)
    fleet.until(lambda: fleet.job(job_id).status == "succeeded", 60)
    assert fleet.stop() < STOP_SECONDS


@only_redis
def test_a_database_that_goes_away_for_a_moment_costs_no_job(fleet: Fleet) -> None:
    fleet.start()
    job_id = fleet.submit(300)
    fleet.until_training(job_id)
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    for _ in range(5):
        with fleet.engine.begin() as connection:
            connection.execute(text(f"{others} AND datname = current_database()"))
        time.sleep(0.1)
    fleet.until(lambda: fleet.job(job_id).status in {"succeeded", "failed"}, 60)
    assert fleet.job(job_id).status == "succeeded", fleet.job(job_id).reason_message
    with reading(fleet.engine) as session:
        steps = session.scalars(
            select(MetricRow.step).where(MetricRow.name == "train/loss").order_by(MetricRow.step)
        ).all()
    assert steps == sorted(set(steps))
    assert steps


def test_a_worker_refuses_a_database_that_is_not_migrated(fleet: Fleet) -> None:
    with fleet.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0000'"))
    environment = {
        **os.environ,
        "CLIPWISE_DATA_DIR": str(fleet.data_dir),
        "CLIPWISE_DATABASE_URL": fleet.database,
    }
    done = subprocess.run(
        [sys.executable, "-m", "clipwise_worker"], env=environment, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 2
    assert "revision 0000" in done.stderr
    assert "Traceback" not in done.stderr
