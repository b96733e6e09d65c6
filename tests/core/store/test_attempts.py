from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, select, update

from clipwise.errors import StaleToken
from clipwise.jobs.states import JobStatus, ReasonCode
from clipwise.store import attempts, workers
from clipwise.store.attempts import Attempt, Claimed, FinishedFile, Outcome
from clipwise.store.sessions import reading, transaction
from clipwise.store.tables import ArtifactRow, AttemptRow, EventRow, JobRow, WorkerRow

AddJob = Callable[..., str]
SUCCEEDED = Outcome(status=JobStatus.SUCCEEDED)


def claim(engine: Engine, worker: str = "wkr_1", kinds: tuple[str, ...] = ("mlp",)) -> Claimed | None:
    with transaction(engine) as session:
        return attempts.claim(session, worker, ["cpu"], kinds)


def must_claim(engine: Engine, worker: str = "wkr_1") -> Attempt:
    claimed = claim(engine, worker)
    assert claimed is not None
    return claimed.attempt


def finish(engine: Engine, attempt: Attempt, outcome: Outcome = SUCCEEDED) -> None:
    with transaction(engine) as session:
        attempts.finish(session, attempt, outcome)


def job(engine: Engine, job_id: str) -> JobRow:
    with reading(engine) as session:
        return session.execute(select(JobRow).where(JobRow.id == job_id)).scalar_one()


def register(engine: Engine, worker_id: str) -> None:
    with transaction(engine) as session:
        workers.register(
            session,
            workers.WorkerInfo(
                id=worker_id, host="here", pid=1, queues=["cpu"], slots=1, kinds={"mlp": {}}, versions={}
            ),
        )


def test_the_highest_priority_comes_first_and_then_the_oldest(engine: Engine, add_job: AddJob) -> None:
    old, new, urgent = add_job(), add_job(), add_job(priority=5)
    assert [must_claim(engine).job_id for _ in range(3)] == [urgent, old, new]
    assert claim(engine) is None


def test_a_claim_takes_only_what_the_worker_serves_and_has(engine: Engine, add_job: AddJob) -> None:
    add_job(queue="gpu")
    add_job(model_kind="transformer")
    add_job(status=JobStatus.PAUSED)
    with reading(engine) as session:
        assert not attempts.claimable(session, ["cpu"], ["mlp"])
        assert attempts.claimable(session, ["gpu"], ["mlp"])
    assert claim(engine) is None
    assert claim(engine, kinds=()) is None


def test_a_claim_says_what_to_run_and_is_written_down(engine: Engine, add_job: AddJob) -> None:
    job_id = add_job()
    claimed = claim(engine)
    assert claimed is not None
    assert (claimed.builtin, claimed.rows_key) == ("digits", None)
    assert (claimed.dataset_schema, claimed.plan["steps"]) == ({"target": "label"}, 10)
    row = job(engine, job_id)
    assert (row.status, row.phase, row.attempt, row.token) == ("running", "starting", 1, 1)
    assert (row.worker_id, row.version) == ("wkr_1", 2)
    assert row.started_at is not None
    with reading(engine) as session:
        written = session.execute(select(AttemptRow)).scalar_one()
        event = session.execute(select(EventRow)).scalar_one()
    assert (written.job_id, written.number, written.token, written.outcome) == (job_id, 1, 1, None)
    assert (event.type, event.attempt) == ("started", 1)


def test_eight_workers_never_claim_one_job_twice(engine: Engine, add_job: AddJob) -> None:
    expected = {add_job() for _ in range(24)}

    def drain(worker: int) -> list[str]:
        taken = []
        while claimed := claim(engine, f"wkr_{worker}"):
            taken.append(claimed.attempt.job_id)
        return taken

    with ThreadPoolExecutor(8) as pool:
        taken = [job_id for part in pool.map(drain, range(8)) for job_id in part]
    assert len(taken) == 24
    assert set(taken) == expected


def test_finishing_writes_status_result_files_and_event_at_once(engine: Engine, add_job: AddJob) -> None:
    job_id = add_job()
    attempt = must_claim(engine)
    file = FinishedFile(name="model.safetensors", key="jobs/x/1/model.safetensors", size=3, sha256="aa")
    outcome = Outcome(
        status=JobStatus.SUCCEEDED,
        result={"metrics": {"accuracy": 0.9}, "released": False},
        artifacts=[file],
        epsilon=2.5,
        delta=1e-4,
    )
    finish(engine, attempt, outcome)
    row = job(engine, job_id)
    assert (row.status, row.phase, row.epsilon, row.delta) == ("succeeded", None, 2.5, 1e-4)
    assert row.finished_at is not None
    with reading(engine) as session:
        assert session.execute(select(ArtifactRow.key)).scalars().all() == [file.key]
        assert session.execute(select(AttemptRow.outcome)).scalar_one() == "succeeded"
        types = session.execute(select(EventRow.type).order_by(EventRow.id)).scalars().all()
    assert types == ["started", "succeeded"]


@pytest.mark.parametrize("change", [{"token": 2}, {"number": 2}, {"job_id": "job_none"}])
def test_an_attempt_that_does_not_own_the_job_changes_nothing(
    engine: Engine, add_job: AddJob, change: dict[str, object]
) -> None:
    job_id = add_job()
    attempt = must_claim(engine)
    other = Attempt(**{"job_id": job_id, "number": attempt.number, "token": attempt.token} | change)  # type: ignore[arg-type]
    before = job(engine, job_id)
    with pytest.raises(StaleToken, match="nothing was written"):
        finish(engine, other)
    after = job(engine, job_id)
    assert (after.status, after.version, after.last_event_id) == ("running", before.version, 1)


def test_terminal_is_terminal(engine: Engine, add_job: AddJob) -> None:
    job_id = add_job()
    attempt = must_claim(engine)
    finish(engine, attempt)
    with pytest.raises(StaleToken):
        finish(engine, attempt, Outcome(status=JobStatus.FAILED, reason=ReasonCode.INTERNAL, message="late"))
    assert job(engine, job_id).status == "succeeded"


def test_controls_say_which_attempts_shall_stop_and_leave_out_lost_ones(
    engine: Engine, add_job: AddJob
) -> None:
    _, cancelled, done = add_job(), add_job(), add_job()
    held = [must_claim(engine) for _ in range(3)]
    with transaction(engine) as session:
        session.execute(update(JobRow).where(JobRow.id == cancelled).values(status=JobStatus.CANCELLING))
    finish(engine, held[2])
    with reading(engine) as session:
        assert attempts.read_controls(session, "wkr_1") == {held[0]: False, held[1]: True}
        assert attempts.read_controls(session, "wkr_2") == {}
    assert job(engine, done).status == "succeeded"


def test_jobs_of_a_worker_that_is_gone_fail_and_it_can_write_no_more(engine: Engine, add_job: AddJob) -> None:
    register(engine, "wkr_alive")
    register(engine, "wkr_stopped")
    kept, lost, cancelled, orphan = add_job(), add_job(), add_job(), add_job()
    owners = ["wkr_alive", "wkr_stopped", "wkr_stopped", "wkr_never_seen"]
    held = [must_claim(engine, owner) for owner in owners]
    with transaction(engine) as session:
        session.execute(update(JobRow).where(JobRow.id == cancelled).values(status=JobStatus.CANCELLING))
        workers.stop(session, "wkr_stopped")
    with transaction(engine) as session:
        assert set(attempts.fail_lost(session, 60)) == {lost, cancelled, orphan}
    assert job(engine, kept).status == "running"
    assert job(engine, cancelled).status == "cancelled"
    row = job(engine, lost)
    assert (row.status, row.reason_code, row.token) == ("failed", "worker_lost", 2)
    assert "submit the job again" in str(row.reason_message)
    with pytest.raises(StaleToken):
        finish(engine, held[1])
    with transaction(engine) as session:
        assert attempts.fail_lost(session, 60) == []


def test_a_silent_worker_loses_its_jobs(engine: Engine, add_job: AddJob) -> None:
    register(engine, "wkr_1")
    job_id = add_job()
    must_claim(engine)
    with transaction(engine) as session:
        session.execute(update(WorkerRow).values(heartbeat_at=WorkerRow.started_at))
        assert attempts.fail_lost(session, 60) == []
        assert attempts.fail_lost(session, -1) == [job_id]
