"""Jobs as they are submitted, planned, cancelled and deleted."""

from fastapi.concurrency import run_in_threadpool
from sqlalchemy.orm import Session

from clipwise.errors import Conflict, Forbidden, NotFound
from clipwise.ids import new_id
from clipwise.jobs.planning import complete
from clipwise.jobs.spec import JobSpec
from clipwise.store import datasets, idempotency, job_changes, jobs
from clipwise.store.jobs import JobRecord
from clipwise.store.sessions import reading, transaction
from clipwise.wire.jobs import Deleted, Job, Plan
from clipwise_api.admission import Admitted, admit
from clipwise_api.caching import require_match
from clipwise_api.principals import Principal
from clipwise_api.services import ServiceSet
from clipwise_api.views.jobs import Fleet, job_view

CREATE = "POST /v1/jobs"


def submit(
    services: ServiceSet, who: Principal, spec: JobSpec, idempotency_key: str | None
) -> tuple[Job, bool]:
    """Submit a job, or give the one that the same request submitted before.

    Raises:
        InvalidSpec: if it cannot be run.
        IdempotencyMismatch: if the key was used with another body.
    """
    body = idempotency.body_hash(spec.as_json())
    with reading(services.engine) as session:
        if idempotency_key is not None:
            first = idempotency.find(session, who.key_id, idempotency_key, CREATE, body)
            if first is not None:
                return _replayed(session, who, first), True
        admitted = admit(session, who, spec)
    plan = _plan_if_known(services, admitted)
    job_id = new_id("job")
    with transaction(services.engine) as session:
        if idempotency_key is not None:
            first = idempotency.claim(session, who.key_id, idempotency_key, CREATE, body, job_id)
            if first is not None:
                return _replayed(session, who, first), True
        found = datasets.find(session, admitted.dataset.id, share=True)
        if found is None or found[0].version != admitted.dataset.version:
            raise Conflict(f"the data set '{spec.dataset}' was changed meanwhile; submit the job again")
        row = jobs.add(
            session,
            job_id,
            spec,
            found[0],
            plan=plan.model_dump(mode="json") if plan else None,
            steps=admitted.outline.steps,
            by=who.key_id,
        )
        record = JobRecord(job=row, private=found[1].visibility == "private")
        job = job_view(record, who, Fleet.living(session))
    if plan is None:
        services.planner.expect(job_id)
    else:
        services.wake_relay()
    return job, False


async def plan(services: ServiceSet, who: Principal, spec: JobSpec) -> Plan:
    """Return a job's plan.

    Raises:
        InvalidSpec: if it cannot be run.
        PlanPending: if its noise takes longer to calibrate than a request should.
    """

    def look() -> Admitted:
        with reading(services.engine) as session:
            return admit(session, who, spec)

    admitted = await run_in_threadpool(look)
    noise = admitted.outline.noise
    return complete(admitted.outline, None if noise is None else await services.planner.calibration(noise))


def cancel(services: ServiceSet, who: Principal, job_id: str, if_match: str | None) -> Job:
    """Cancel a job.

    Raises:
        IllegalTransition: if it has ended.
        Forbidden: if an analyst means somebody else's job.
    """
    with transaction(services.engine) as session:
        record = jobs.get(session, job_id, lock=True)
        _require_own(record, who, "cancel")
        fleet = Fleet.living(session)
        require_match(job_view(record, who, fleet), if_match)
        job_changes.cancel(session, record.job)
        session.flush()
        return job_view(record, who, fleet)


def delete(services: ServiceSet, who: Principal, job_id: str, if_match: str | None) -> Deleted:
    """Delete a job that has ended.

    Raises:
        IllegalTransition: if it has not.
        Forbidden: if an analyst means somebody else's job.
    """
    with transaction(services.engine) as session:
        record = jobs.get(session, job_id, lock=True)
        _require_own(record, who, "delete")
        require_match(job_view(record, who, Fleet.living(session)), if_match)
        job_changes.remove(session, record)
    return Deleted(id=job_id, object="job")


def _plan_if_known(services: ServiceSet, admitted: Admitted) -> Plan | None:
    noise = admitted.outline.noise
    if noise is None:
        return complete(admitted.outline, None)
    calibration = services.planner.known(noise)
    return complete(admitted.outline, calibration) if calibration else None


def _require_own(record: JobRecord, who: Principal, verb: str) -> None:
    if not who.is_owner and record.job.created_by != who.key_id:
        raise Forbidden(f"an analyst's key may only {verb} the jobs that it submitted itself")


def _replayed(session: Session, who: Principal, job_id: str) -> Job:
    try:
        return job_view(jobs.get(session, job_id), who, Fleet.living(session))
    except NotFound:
        raise Conflict(
            "the job that this Idempotency-Key submitted was deleted since; use a new Idempotency-Key"
        ) from None
