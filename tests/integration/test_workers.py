"""Real worker processes and real runners, over a real Redis and PostgreSQL, and over files and SQLite."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import Engine, func, select, text
from sqlalchemy.orm import Session

from clipwise.artifacts import ArtifactStore
from clipwise.data.builtin import BUILTINS
from clipwise.jobs import spec as job_spec
from clipwise.jobs.delivery import make_celery, wake
from clipwise.jobs.planning import plan_job
from clipwise.store import job_changes, migration, outbox, workers
from clipwise.store.sessions import connect, reading, transaction
from clipwise.store.tables import ArtifactRow, AttemptRow, JobRow, MetricRow
from tests.conftest import free_port
from tests.integration.processes import command_of
from tests.job_rows import AddJob, job_adder

STOP_SECONDS = 5.0
QUICK = {
    "CLIPWISE_HEARTBEAT_SECONDS": "0.5",
    "CLIPWISE_LEASE_SECONDS": "3",
    "CLIPWISE_RETRY_SECONDS": "0.2",
    "CLIPWISE_WARM_RUNNERS": "false",
}


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
            **QUICK,
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

    def attempts(self, job_id: str) -> list[AttemptRow]:
        with reading(self.engine) as session:
            query = select(AttemptRow).where(AttemptRow.job_id == job_id)
            return list(session.scalars(query.order_by(AttemptRow.number)))

    def submit(self, steps: int, *, bell: bool = True, gpus: int = 0) -> str:
        spec, plan = described(steps)
        spec = {**spec, "resources": {**spec["resources"], "gpus": gpus}}
        job_id = self.add(spec=spec, plan=plan, gpus=gpus)
        if bell:
            with transaction(self.engine) as session:
                outbox.add(session, "cpu", job_id)
            app = make_celery(self.broker, self.data_dir)
            assert outbox.relay(self.engine, lambda queue: wake(app, queue)) >= 1
        return job_id

    def job(self, job_id: str) -> JobRow:
        with reading(self.engine) as session:
            return session.execute(select(JobRow).where(JobRow.id == job_id)).scalar_one()

    def wish(self, job_id: str, verb: Callable[[Session, JobRow], None]) -> None:
        """Do to a job what the api does when somebody asks for it."""
        with transaction(self.engine) as session:
            verb(session, session.get_one(JobRow, job_id, with_for_update=True))

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
only_files = pytest.mark.parametrize("fleet", ["files and sqlite"], indirect=True)
LONG = 60_000
"""Steps of a job that outlasts its test; a checkpoint is taken every 600 of them."""


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
    job_id = fleet.submit(LONG)
    fleet.until_training(job_id)
    asked = time.monotonic()
    fleet.wish(job_id, job_changes.cancel)
    fleet.until(lambda: fleet.job(job_id).status != "cancelling", 10)
    assert time.monotonic() - asked < 2
    job = fleet.job(job_id)
    assert (job.status, job.reason_code) == ("cancelled", "user_cancelled")
    assert job.epsilon is not None
    assert job.epsilon > 0


def test_a_job_whose_runner_is_killed_goes_on_from_its_checkpoint_and_fails_the_second_time(
    fleet: Fleet,
) -> None:
    fleet.start()
    job_id = fleet.submit(LONG)
    for attempt in (1, 2):
        fleet.until(lambda a=attempt: fleet.job(job_id).attempt == a, 30)  # type: ignore[misc]
        before = fleet.job(job_id).checkpoint_step or 0
        fleet.until(lambda b=before: (fleet.job(job_id).checkpoint_step or 0) > b, 60)  # type: ignore[misc]
        (runner,) = fleet.runners()
        runner.kill()
        fleet.until(lambda: fleet.job(job_id).status != "running", 5)
    job = fleet.job(job_id)
    assert (job.status, job.reason_code, job.runner_deaths) == ("failed", "retries_exhausted", 2)
    assert "signal 9" in str(job.reason_message)
    started = fleet.attempts(job_id)
    assert started[0].start_step == 0
    assert started[1].start_step > 0
    # What was lost is spent all the same.
    assert job.charged_steps > (job.checkpoint_step or 0)
    following = fleet.submit(5)
    fleet.until(lambda: fleet.job(following).status == "succeeded", 60)


def test_a_paused_job_goes_on_where_it_was_and_so_does_one_of_a_worker_that_is_told_to_stop(
    fleet: Fleet,
) -> None:
    fleet.start()
    job_id = fleet.submit(LONG)
    fleet.until_training(job_id)
    fleet.wish(job_id, job_changes.pause)
    fleet.until(lambda: fleet.job(job_id).status == "paused", 10)
    paused = fleet.job(job_id)
    assert paused.checkpoint_step == paused.charged_steps
    assert not fleet.runners()
    fleet.wish(job_id, job_changes.resume)
    fleet.until(lambda: fleet.job(job_id).status == "running", 10)
    fleet.until(lambda: (fleet.job(job_id).step or 0) > (paused.checkpoint_step or 0), 60)
    assert fleet.stop(signal.SIGINT) < STOP_SECONDS
    stopped = fleet.job(job_id)
    assert (stopped.status, stopped.phase, stopped.not_before) == ("queued", "interrupted", None)
    assert (stopped.runner_deaths, stopped.worker_losses) == (0, 0)
    # Nothing was run and lost, so nothing is paid for twice.
    assert stopped.checkpoint_step == stopped.charged_steps
    fleet.start()
    fleet.until(lambda: (fleet.job(job_id).step or 0) > (stopped.checkpoint_step or 0), 60)
    starts = [attempt.start_step for attempt in fleet.attempts(job_id)]
    assert starts == [0, paused.checkpoint_step, stopped.checkpoint_step]
    fleet.wish(job_id, job_changes.cancel)
    fleet.until(lambda: fleet.job(job_id).status == "cancelled", 10)


def test_jobs_of_a_killed_worker_go_on_with_another_one(fleet: Fleet) -> None:
    fleet.start()
    job_id = fleet.submit(LONG)
    fleet.until(lambda: bool(fleet.job(job_id).checkpoint_step), 60)
    fleet.stop(signal.SIGKILL)
    assert fleet.job(job_id).status == "running"
    lost = fleet.job(job_id)
    fleet.start()
    fleet.until(lambda: fleet.job(job_id).attempt == 2, 30)
    fleet.until(lambda: (fleet.job(job_id).step or 0) > (lost.step or 0), 60)
    job = fleet.job(job_id)
    assert (job.runner_deaths, job.worker_losses) == (0, 1)
    assert job.charged_steps >= (job.step or 0)
    fleet.until(lambda: len(list((fleet.data_dir / "attempts").iterdir())) == 1, 30)


@only_redis
def test_a_worker_that_was_stopped_for_a_while_can_write_nothing_of_a_job_that_it_has_lost(
    fleet: Fleet,
) -> None:
    fleet.start(2, CLIPWISE_HEARTBEAT_SECONDS="0.3", CLIPWISE_LEASE_SECONDS="1.5")
    job_id = fleet.submit(LONG)
    fleet.until(lambda: bool(fleet.job(job_id).checkpoint_step), 60)
    (runner,) = fleet.runners()
    frozen = next(p for p in fleet.processes if p.pid == runner.ppid())
    frozen.send_signal(signal.SIGSTOP)
    fleet.until(lambda: fleet.job(job_id).attempt == 2, 30)
    fleet.until(lambda: fleet.job(job_id).phase == "training", 30)
    # The runner of the first attempt is not told that its lease is renewed: it waits, and trains no more.
    with reading(fleet.engine) as session:
        seen = session.scalar(select(func.max(MetricRow.step)).where(MetricRow.attempt == 1))
    frozen.send_signal(signal.SIGCONT)
    fleet.until(lambda: not runner.is_running(), 10)
    with reading(fleet.engine) as session:
        assert session.scalar(select(func.max(MetricRow.step)).where(MetricRow.attempt == 1)) == seen
        tokens = session.scalars(select(AttemptRow.token).order_by(AttemptRow.number)).all()
    assert list(tokens) == [1, 2]
    assert fleet.job(job_id).status == "running"


@only_files
def test_a_worker_that_drains_gives_its_job_to_another_and_stays(fleet: Fleet) -> None:
    fleet.start(1)
    job_id = fleet.submit(LONG)
    fleet.until_training(job_id)
    first = str(fleet.job(job_id).worker_id)
    fleet.start(1)
    with transaction(fleet.engine) as session:
        workers.drain(session, first, draining=True)
    fleet.until(lambda: fleet.job(job_id).worker_id not in (None, first), 20)
    job = fleet.job(job_id)
    assert (job.attempt, job.runner_deaths, job.worker_losses) == (2, 0, 0)
    assert job.checkpoint_step
    assert fleet.alive() == 2


@only_redis
def test_four_workers_on_two_devices_never_share_one(fleet: Fleet) -> None:
    """Simulated devices: what a runner sees of them is what counts, and it has no GPU to train on."""
    fleet.start(4, CLIPWISE_DEVICES="GPU-a,GPU-b", CLIPWISE_QUEUES="cpu,gpu")
    jobs = [fleet.submit(200_000, gpus=1) for _ in range(4)]
    held: list[set[str]] = []

    def look() -> bool:
        seen = [runner.environ().get("CUDA_VISIBLE_DEVICES", "") for runner in fleet.runners()]
        assert all(device in ("GPU-a", "GPU-b") for device in seen)
        assert len(set(seen)) == len(seen)
        held.append(set(seen))
        return all(fleet.job(job_id).status == "failed" for job_id in jobs)

    fleet.until(look, 120)
    assert {"GPU-a", "GPU-b"} in held
    # Without CUDA the runner says so: a fault of the job and not of its worker.
    assert {fleet.job(job_id).reason_code for job_id in jobs} == {"validation_failed"}


@only_files
def test_a_runner_that_takes_more_memory_than_it_may_is_told_apart_from_a_crash(fleet: Fleet) -> None:
    fleet.start(CLIPWISE_RUNNER_MEMORY_BYTES=str(2**28))
    job_id = fleet.submit(10)
    fleet.until(lambda: fleet.job(job_id).status == "failed", 60)
    job = fleet.job(job_id)
    assert (job.reason_code, job.attempt, job.runner_deaths) == ("out_of_memory", 1, 0)


@only_files
def test_a_runner_that_was_made_ahead_runs_the_job(fleet: Fleet) -> None:
    fleet.start(CLIPWISE_WARM_RUNNERS="true")
    fleet.until(lambda: len(fleet.runners()) == 1, 10)
    (ready,) = fleet.runners()
    job_id = fleet.submit(20)
    fleet.until(lambda: fleet.job(job_id).status == "succeeded", 60)
    assert not ready.is_running()
    # And the next one gets ready; when the worker stops, it may write its checkpoint like any other.
    fleet.until(lambda: len(fleet.runners()) == 1, 10)
    long = fleet.submit(LONG)
    fleet.until_training(long)
    # While it runs, one gets ready for the job after it.
    fleet.until(lambda: len(fleet.runners()) == 2, 20)
    assert fleet.stop() < STOP_SECONDS
    stopped = fleet.job(long)
    assert (stopped.status, stopped.runner_deaths, stopped.worker_losses) == ("queued", 0, 0)
    assert stopped.checkpoint_step == stopped.charged_steps


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
