from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, select, update

from clipwise.errors import StaleToken
from clipwise.jobs.states import JobStatus, ReasonCode
from clipwise.store import attempts, claims, leases
from clipwise.store.attempts import Attempt, Blamed, FinishedFile, Outcome, Release
from clipwise.store.claims import Capacity, Claimed
from clipwise.store.sessions import reading, transaction
from clipwise.store.tables import ApiKeyRow, ArtifactRow, AttemptRow, DeviceRow, EventRow, JobRow, OutboxRow

AddJob = Callable[..., str]
SUCCEEDED = Outcome(status=JobStatus.SUCCEEDED)


def capacity(worker: str = "wkr_1", **changes: Any) -> Capacity:
    return Capacity(**{"worker_id": worker, "queues": ["cpu"], "kinds": ["mlp"], **changes})


def claim(engine: Engine, worker: str = "wkr_1", **changes: Any) -> Claimed | None:
    with transaction(engine) as session:
        return claims.claim(session, capacity(worker, **changes))


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


def test_the_highest_priority_comes_first_and_then_the_oldest(engine: Engine, add_job: AddJob) -> None:
    old, new, urgent = add_job(), add_job(), add_job(priority=5)
    assert [must_claim(engine).job_id for _ in range(3)] == [urgent, old, new]
    assert claim(engine) is None


def test_a_claim_takes_only_what_the_worker_serves_and_has(engine: Engine, add_job: AddJob) -> None:
    add_job(queue="gpu")
    add_job(model_kind="transformer")
    add_job(status=JobStatus.PAUSED)
    with reading(engine) as session:
        assert not claims.claimable(session, capacity())
        assert claims.claimable(session, capacity(queues=["gpu"]))
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


def test_controls_say_what_is_wanted_of_each_attempt_and_leave_out_lost_ones(
    engine: Engine, add_job: AddJob
) -> None:
    _, cancelled, done = add_job(), add_job(), add_job()
    held = [must_claim(engine) for _ in range(3)]
    with transaction(engine) as session:
        session.execute(update(JobRow).where(JobRow.id == cancelled).values(status=JobStatus.CANCELLING))
    finish(engine, held[2])
    with reading(engine) as session:
        assert leases.read_controls(session, "wkr_1") == {
            held[0]: JobStatus.RUNNING,
            held[1]: JobStatus.CANCELLING,
        }
        assert leases.read_controls(session, "wkr_2") == {}
    assert job(engine, done).status == "succeeded"


def add_key(engine: Engine, key_id: str) -> str:
    with transaction(engine) as session:
        session.add(
            ApiKeyRow(
                id=key_id,
                name=key_id,
                role="analyst",
                prefix="cw",
                secret_hash=key_id,
                created_at=datetime.now(UTC),
            )
        )
    return key_id


def test_keys_take_turns_however_many_jobs_one_of_them_submits(engine: Engine, add_job: AddJob) -> None:
    greedy, modest = add_key(engine, "key_a"), add_key(engine, "key_b")
    many = [add_job(created_by=greedy) for _ in range(4)]
    few = [add_job(created_by=modest) for _ in range(2)]
    nobodys = add_job()
    order = [must_claim(engine).job_id for _ in range(7)]
    assert order[:3] == [many[0], few[0], nobodys]
    assert order[3:5] == [many[1], few[1]]
    assert order[5:] == [many[2], many[3]]


def test_what_runs_already_counts_for_the_share(engine: Engine, add_job: AddJob) -> None:
    a, b = add_key(engine, "key_a"), add_key(engine, "key_b")
    for _ in range(3):
        add_job(created_by=a)
    first, second = must_claim(engine), must_claim(engine)
    late = add_job(created_by=b)
    assert must_claim(engine).job_id == late
    finish(engine, first)
    finish(engine, second)
    assert claim(engine) is not None


def test_priority_goes_before_shares(engine: Engine, add_job: AddJob) -> None:
    a, b = add_key(engine, "key_a"), add_key(engine, "key_b")
    for _ in range(2):
        add_job(created_by=a, priority=1)
    add_job(created_by=b)
    assert [job(engine, must_claim(engine).job_id).created_by for _ in range(3)] == [a, a, b]


def test_an_interrupted_job_is_not_claimed_before_its_time(engine: Engine, add_job: AddJob) -> None:
    now = datetime.now(UTC)
    add_job(not_before=now + timedelta(hours=1))
    due = add_job(not_before=now - timedelta(seconds=1))
    assert must_claim(engine).job_id == due
    assert claim(engine) is None


def add_devices(engine: Engine, *uuids: str, host: str = "here") -> None:
    from clipwise.store import devices
    from clipwise.store.devices import Device

    with transaction(engine) as session:
        devices.announce(session, host, [Device(uuid=uuid, name="GPU", memory_bytes=1) for uuid in uuids])


def test_a_device_is_held_by_one_attempt_and_free_again_when_that_is_over(
    engine: Engine, add_job: AddJob
) -> None:
    add_devices(engine, "GPU-1", "GPU-2")
    add_devices(engine, "GPU-1", host="elsewhere")
    here = {"host": "here", "devices": ["GPU-1", "GPU-2"]}
    for _ in range(3):
        add_job(gpus=1)
    plain = add_job()
    assert claim(engine) is not None  # a worker without a GPU takes the job without one
    first, second = claim(engine, **here), claim(engine, "wkr_2", **here)
    assert first is not None
    assert second is not None
    assert {*first.devices, *second.devices} == {"GPU-1", "GPU-2"}
    assert claim(engine, **here) is None
    with transaction(engine) as session:
        attempts.release(session, first.attempt, Release(message="lost", blames=Blamed.WORKER))
        session.execute(update(JobRow).values(not_before=None))
    third = claim(engine, **here)
    assert third is not None
    assert third.devices == first.devices
    assert job(engine, plain).status == "running"


def test_four_workers_never_share_two_devices(engine: Engine, add_job: AddJob) -> None:
    add_devices(engine, "GPU-1", "GPU-2")
    for _ in range(12):
        add_job(gpus=1)
    seen: list[tuple[str, ...]] = []

    def work(worker: int) -> int:
        done = 0
        for _ in range(40):
            claimed = claim(engine, f"wkr_{worker}", host="here", devices=["GPU-1", "GPU-2"])
            if claimed is None:
                continue
            with reading(engine) as session:
                holders = session.scalars(
                    select(DeviceRow.job_id).where(DeviceRow.uuid.in_(claimed.devices))
                ).all()
            assert holders == [claimed.attempt.job_id]
            seen.append(tuple(claimed.devices))
            finish(engine, claimed.attempt)
            done += 1
        return done

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(work, range(4))) == 12
    assert {len(devices) for devices in seen} == {1}


def release(engine: Engine, attempt: Attempt, back: Release) -> JobStatus:
    with transaction(engine) as session:
        return attempts.release(session, attempt, back)


def test_a_job_that_is_given_back_waits_longer_each_time_and_fails_at_last(
    engine: Engine, add_job: AddJob
) -> None:
    job_id = add_job()
    pauses = []
    for number in range(1, 12):
        with transaction(engine) as session:
            session.execute(update(JobRow).values(not_before=None))
        attempt = must_claim(engine)
        assert attempt.number == number
        became = release(engine, attempt, Release(message="the worker was lost", blames=Blamed.WORKER))
        row = job(engine, job_id)
        if became is JobStatus.FAILED:
            break
        assert (row.status, row.phase, row.worker_id, row.lease_expires_at) == (
            "queued",
            "interrupted",
            None,
            None,
        )
        assert row.not_before is not None
        assert row.queued_at is not None
        pauses.append(round((row.not_before - row.queued_at).total_seconds()))
    assert pauses == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert (row.status, row.reason_code, row.worker_losses) == ("failed", "retries_exhausted", 11)
    assert row.token == 11
    with reading(engine) as session:
        outcomes = session.scalars(select(AttemptRow.outcome).order_by(AttemptRow.number)).all()
        assert outcomes == ["interrupted"] * 10 + ["failed"]
        assert session.scalars(select(OutboxRow.queue)).all() == ["cpu"] * 10


def test_giving_back_follows_what_people_want_of_the_job(engine: Engine, add_job: AddJob) -> None:
    ids = {status: add_job() for status in (JobStatus.RUNNING, JobStatus.PAUSING, JobStatus.CANCELLING)}
    held = {attempt.job_id: attempt for attempt in (must_claim(engine) for _ in ids)}
    with transaction(engine) as session:
        for status, job_id in ids.items():
            session.execute(update(JobRow).where(JobRow.id == job_id).values(status=status))
    became = {
        status: release(engine, held[job_id], Release(message="drained")) for status, job_id in ids.items()
    }
    assert became == {
        JobStatus.RUNNING: JobStatus.QUEUED,
        JobStatus.PAUSING: JobStatus.PAUSED,
        JobStatus.CANCELLING: JobStatus.CANCELLED,
    }
    row = job(engine, ids[JobStatus.RUNNING])
    assert (row.runner_deaths, row.worker_losses, row.not_before) == (0, 0, None)
    for attempt in held.values():
        with pytest.raises(StaleToken):
            release(engine, attempt, Release(message="again"))


def test_a_lease_is_renewed_for_its_owner_alone_and_also_when_it_had_passed(
    engine: Engine, add_job: AddJob
) -> None:
    for _ in range(3):
        add_job()
    passed, lost, done = (must_claim(engine) for _ in range(3))
    finish(engine, done)
    with transaction(engine) as session:
        long_ago = datetime.now(UTC) - timedelta(hours=1)
        session.execute(update(JobRow).where(JobRow.id == passed.job_id).values(lease_expires_at=long_ago))
        session.execute(update(JobRow).where(JobRow.id == lost.job_id).values(token=JobRow.token + 1))
    with transaction(engine) as session:
        assert leases.renew(session, [passed, lost, done], 45.0) == {passed}
        assert leases.renew(session, [], 45.0) == set()
    until = job(engine, passed.job_id).lease_expires_at
    assert until is not None
    assert until > datetime.now(UTC) + timedelta(seconds=30)
