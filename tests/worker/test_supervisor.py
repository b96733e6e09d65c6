import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import Engine, func, select, update

from clipwise.artifacts import ArtifactStore
from clipwise.jobs.states import JobStatus
from clipwise.store import claims, orphans
from clipwise.store.claims import Capacity
from clipwise.store.sessions import reading, transaction
from clipwise.store.tables import ArtifactRow, EventRow, JobRow, LogLineRow, MetricRow, OrphanFileRow
from clipwise_worker.runner_environment import runner_environment
from clipwise_worker.runner_process import RunnerProcess
from clipwise_worker.stopping import Stopping
from clipwise_worker.supervisor import Patience, Supervisor
from tests.job_rows import job_adder

SCRIPT = Path(__file__).parent / "scripted_runner.py"
Prepare = Callable[..., Supervisor]
CAPACITY = Capacity(worker_id="wkr_1", queues=["cpu"], kinds=["mlp"])


@pytest.fixture
def artifacts(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore((tmp_path / "artifacts").as_uri())


@pytest.fixture
def prepare(engine: Engine, artifacts: ArtifactStore, tmp_path: Path) -> Prepare:
    """Return a function that claims a job for a runner with a given behaviour."""

    def prepare(
        behaviour: str, *, patience: Patience | None = None, again: bool = False, **dataset: Any
    ) -> Supervisor:
        limits = {"max_runtime_seconds": 1 if behaviour == "deaf" and patience is None else 60}
        if not again:
            job_adder(engine, **dataset)(spec={"model": {"kind": "mlp"}, "limits": limits})
        with transaction(engine) as session:
            claimed = claims.claim(session, CAPACITY)
        assert claimed is not None
        command = (sys.executable, str(SCRIPT), behaviour)
        environment = runner_environment(os.environ)
        return Supervisor(
            claimed,
            engine=engine,
            artifacts=artifacts,
            folder=tmp_path / "attempt",
            spawn=lambda folder, more: RunnerProcess(command, {**environment, **more}, folder, folder),
            patience=patience or Patience(),
        )

    return prepare


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path: Path) -> Iterator[None]:
    yield
    assert not (tmp_path / "attempt").exists()
    assert [
        child for child in psutil.Process().children(recursive=True) if SCRIPT.name in str(child.cmdline())
    ] == []


def the_job(engine: Engine) -> JobRow:
    with reading(engine) as session:
        return session.execute(select(JobRow)).scalar_one()


def lines(engine: Engine) -> list[str]:
    with reading(engine) as session:
        return list(session.scalars(select(LogLineRow.line).order_by(LogLineRow.id)))


def count(engine: Engine, table: type[Any]) -> int:
    with reading(engine) as session:
        return session.execute(select(func.count()).select_from(table)).scalar_one()


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_what_a_runner_says_is_in_the_database_and_its_model_in_the_store(
    engine: Engine, prepare: Prepare, artifacts: ArtifactStore
) -> None:
    assert prepare("train").run() == JobStatus.SUCCEEDED
    job = the_job(engine)
    assert (job.status, job.phase, job.step, job.steps) == ("succeeded", None, 5, 5)
    assert (job.epsilon, job.delta, job.reason_code) == (2.0, 1e-4, None)
    assert job.result == {"metrics": {"accuracy": 0.5}, "released": False}
    with reading(engine) as session:
        loss = session.execute(
            select(MetricRow.step, MetricRow.value).where(MetricRow.name == "loss").order_by(MetricRow.step)
        ).all()
        none = session.scalars(select(MetricRow.step).where(MetricRow.value.is_(None))).all()
        events = session.scalars(select(EventRow.type).order_by(EventRow.id)).all()
        artifact = session.execute(select(ArtifactRow)).scalar_one()
    assert loss == [(step, 1 / step) for step in range(1, 6)]
    assert none == [3]
    assert events == ["started", "phase", "warning", "succeeded"]
    assert sorted(lines(engine)) == ["a complaint", "half way \N{REPLACEMENT CHARACTER} there"]
    assert (artifact.name, artifact.size, artifact.attempt) == ("model.safetensors", 7, 1)
    assert artifacts.open(artifact.key).read() == b"weights"
    assert count(engine, OrphanFileRow) == 0


@pytest.mark.parametrize(
    ("behaviour", "code", "message"),
    [
        ("fail", "non_finite_loss", "the loss is not finite"),
        ("no_memory", "out_of_memory", "microbatch_size"),
        ("garbage", "internal", "a message that cannot be read"),
        ("unknown_message", "internal", "a message that cannot be read"),
        ("missing", "internal", "no regular file of its output folder"),
        ("link", "internal", "no regular file of its output folder"),
        ("outside", "internal", "no regular file of its output folder"),
    ],
)
def test_whatever_goes_wrong_fails_the_job_with_a_reason(
    engine: Engine, prepare: Prepare, behaviour: str, code: str, message: str
) -> None:
    started = time.monotonic()
    assert prepare(behaviour).run() == JobStatus.FAILED
    assert time.monotonic() - started < 5
    job = the_job(engine)
    assert (job.status, job.reason_code) == ("failed", code)
    assert re.search(message, str(job.reason_message))
    assert count(engine, ArtifactRow) == 0
    with reading(engine) as session:
        last = session.scalars(select(EventRow).order_by(EventRow.id.desc())).first()
    assert last is not None
    assert (last.type, last.level, last.data) == ("failed", "error", {"status": "failed", "code": code})
    assert "secret" not in str(job.reason_message)


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("segfault", "killed by signal 11, SIGSEGV"),
        ("killed", r"killed by signal 9, SIGKILL \(out of memory\?\)"),
        ("exit", "exit code 7"),
        ("silent", "exit code 0 and without a result"),
    ],
)
def test_a_runner_that_dies_gives_the_job_back_once_and_fails_it_the_second_time(
    engine: Engine, prepare: Prepare, behaviour: str, message: str
) -> None:
    assert prepare(behaviour).run() == JobStatus.QUEUED
    job = the_job(engine)
    assert (job.status, job.runner_deaths, job.worker_losses) == ("queued", 1, 0)
    assert (job.worker_id, job.lease_expires_at) == (None, None)
    assert job.not_before is not None
    with transaction(engine) as session:
        session.execute(update(JobRow).values(not_before=None))
    assert prepare(behaviour, again=True).run() == JobStatus.FAILED
    job = the_job(engine)
    assert (job.status, job.reason_code, job.attempt) == ("failed", "retries_exhausted", 2)
    assert re.search(message, str(job.reason_message))
    with reading(engine) as session:
        types = session.scalars(select(EventRow.type).order_by(EventRow.id)).all()
    assert [kind for kind in types if kind != "phase"] == [
        "started",
        "interrupted",
        "started",
        "recovered",
        "failed",
    ]


def test_what_the_worker_cannot_do_for_a_job_is_tried_again(engine: Engine, prepare: Prepare) -> None:
    assert prepare("lose_a_checkpoint").run() == JobStatus.QUEUED
    job = the_job(engine)
    assert (job.status, job.runner_deaths, job.worker_losses) == ("queued", 0, 1)
    with reading(engine) as session:
        last = session.scalars(select(EventRow).order_by(EventRow.id.desc())).first()
    assert last is not None
    assert (last.type, last.level) == ("interrupted", "warning")
    assert "could not keep the job's books" in last.message


def test_a_traceback_is_in_the_log(engine: Engine, prepare: Prepare) -> None:
    prepare("fail").run()
    assert lines(engine) == ["Traceback", "  line"]


@pytest.mark.parametrize("behaviour", ["stop_politely", "wait", "deaf"])
def test_a_cancelled_job_is_cancelled_in_under_two_seconds(
    engine: Engine, prepare: Prepare, behaviour: str
) -> None:
    supervisor = prepare(behaviour)
    running = threading.Thread(target=supervisor.run)
    running.start()
    wait_for(lambda: the_job(engine).phase == "training")
    with transaction(engine) as session:
        session.execute(update(JobRow).values(status=JobStatus.CANCELLING))
    asked = time.monotonic()
    supervisor.stop(Stopping.CANCELLED)
    running.join()
    assert time.monotonic() - asked < (0.5 if behaviour == "stop_politely" else 1.5)
    job = the_job(engine)
    assert (job.status, job.reason_code) == ("cancelled", "user_cancelled")


def test_the_group_of_a_runner_that_overstays_is_killed(engine: Engine, prepare: Prepare) -> None:
    started = time.monotonic()
    assert prepare("deaf").run() == JobStatus.FAILED
    assert time.monotonic() - started < 4
    job = the_job(engine)
    assert job.reason_code == "max_runtime_exceeded"
    assert "limits.max_runtime_seconds" in str(job.reason_message)
    sleepers = [p for p in psutil.process_iter(["cmdline"]) if "time.sleep(600)" in str(p.info["cmdline"])]
    runner = lines(engine)[0].removeprefix("child of ")
    assert [p for p in sleepers if os.getpgid(p.pid) == int(runner)] == []


def test_a_runner_that_has_said_its_last_word_is_not_waited_for_forever(prepare: Prepare) -> None:
    started = time.monotonic()
    patience = Patience(after_its_last_word=0.5)
    assert prepare("say_and_sleep", patience=patience).run() == JobStatus.SUCCEEDED
    assert time.monotonic() - started < 3


@pytest.mark.parametrize("behaviour", ["stop_politely", "wait", "deaf"])
def test_a_stopping_worker_gives_the_job_back_and_counts_nothing(
    engine: Engine, prepare: Prepare, behaviour: str
) -> None:
    supervisor = prepare(behaviour, patience=Patience(drain=0.5))
    running = threading.Thread(target=supervisor.run)
    running.start()
    wait_for(lambda: the_job(engine).phase == "training")
    supervisor.stop(Stopping.WORKER_STOPS)
    running.join(3)
    job = the_job(engine)
    assert (job.status, job.runner_deaths, job.worker_losses) == ("queued", 0, 0)
    assert (job.not_before, job.phase) == (None, "interrupted")
    if behaviour == "stop_politely":
        assert lines(engine) == ["told to stop, keep=True"]


def test_a_paused_job_waits_for_its_owner_and_a_cancel_overrules_the_pause(
    engine: Engine, prepare: Prepare
) -> None:
    supervisor = prepare("stop_politely")
    running = threading.Thread(target=supervisor.run)
    running.start()
    wait_for(lambda: the_job(engine).phase == "training")
    with transaction(engine) as session:
        session.execute(update(JobRow).values(status=JobStatus.PAUSING))
    supervisor.stop(Stopping.PAUSED)
    running.join(3)
    job = the_job(engine)
    assert (job.status, job.phase, job.worker_id, job.finished_at) == ("paused", None, None, None)


def test_a_cancel_does_not_wait_for_the_checkpoint_of_a_pause(engine: Engine, prepare: Prepare) -> None:
    supervisor = prepare("wait")
    running = threading.Thread(target=supervisor.run)
    running.start()
    wait_for(lambda: the_job(engine).phase == "training")
    supervisor.stop(Stopping.PAUSED)
    time.sleep(0.3)
    assert running.is_alive()
    with transaction(engine) as session:
        session.execute(update(JobRow).values(status=JobStatus.CANCELLING))
    supervisor.stop(Stopping.CANCELLED)
    running.join(3)
    assert the_job(engine).status == "cancelled"


def test_an_attempt_that_has_lost_its_job_ends_its_runner_and_writes_nothing(
    engine: Engine, prepare: Prepare
) -> None:
    supervisor = prepare("wait")
    running = threading.Thread(target=supervisor.run)
    running.start()
    wait_for(lambda: the_job(engine).phase == "training")
    with transaction(engine) as session:
        session.execute(update(JobRow).values(token=JobRow.token + 1, worker_id="wkr_2"))
    before = the_job(engine)
    supervisor.stop(Stopping.LOST)
    running.join(3)
    after = the_job(engine)
    assert (after.status, after.version, after.last_event_id) == (
        "running",
        before.version,
        before.last_event_id,
    )


def test_a_late_success_of_a_lost_job_leaves_no_file(
    engine: Engine, prepare: Prepare, artifacts: ArtifactStore
) -> None:
    supervisor = prepare("train")
    with transaction(engine) as session:
        session.execute(update(JobRow).values(token=JobRow.token + 1))
    assert supervisor.run() is None
    orphans.sweep(engine, artifacts.delete)
    assert count(engine, ArtifactRow) == 0
    assert not artifacts.exists(f"jobs/{supervisor.claimed.attempt.job_id}/1/model.safetensors")
    assert the_job(engine).status == "running"


def test_a_flood_harms_nobody(engine: Engine, prepare: Prepare) -> None:
    assert prepare("flood").run() == JobStatus.SUCCEEDED
    kept = lines(engine)
    assert 10_000 <= len(kept) < 11_000
    assert kept[-1] == "x" * 8_192
    assert kept[-2] == "line 29999"
    assert count(engine, MetricRow) == 20_000
    assert count(engine, EventRow) < 1_010


def test_rows_that_are_not_there_are_named_as_the_reason(engine: Engine, prepare: Prepare) -> None:
    assert prepare("train", source="upload", rows_key="datasets/ds_1/rows").run() == JobStatus.FAILED
    assert the_job(engine).reason_code == "dataset_unavailable"


def test_a_runner_sees_no_credential_and_runs_in_its_own_folder(
    engine: Engine, prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "CLIPWISE_API_KEY",
        "CLIPWISE_DATABASE_URL",
        "AWS_SECRET_ACCESS_KEY",
        "PYTHON_TOKEN",
        "PGPASSWORD",
    ):
        monkeypatch.setenv(name, "do-not-show")
    assert prepare("environment").run() == JobStatus.SUCCEEDED
    seen = json.loads(lines(engine)[0])
    assert "do-not-show" not in seen.values()
    assert not [name for name in seen if name.startswith(("CLIPWISE", "AWS"))]
    assert seen["TMPDIR"] == str(tmp_path / "attempt" / "tmp")
    assert lines(engine)[1] == str(tmp_path / "attempt")
