"""Jobs as they are submitted and planned."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from fastapi.concurrency import run_in_threadpool
from sqlalchemy.orm import Session

from clipwise.errors import Conflict, NotFound
from clipwise.ids import new_id
from clipwise.jobs.planning import complete
from clipwise.jobs.spec import JobSpec
from clipwise.store import idempotency, jobs
from clipwise.store.jobs import JobRecord
from clipwise.store.sessions import reading, transaction
from clipwise.wire.jobs import Job, Plan
from clipwise_api.admission import Admitted, admit
from clipwise_api.fleet import Fleet
from clipwise_api.principals import Principal
from clipwise_api.services import ServiceSet
from clipwise_api.views.jobs import job_view

ParentVerb = Literal["clone", "retry"]
CREATE = "POST /v1/jobs"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request that makes a job.

    Attributes:
        route: what was asked, with the id of the job that it was asked of.
        body: its JSON; together with the route it is what an idempotency key stands for.
        idempotency_key: the client's, if it gave one.
        request_id: ours, for the logs of everything that the job does.
        parent: the job that the new one is made from, and by which verb.
    """

    route: str
    body: Any
    idempotency_key: str | None
    request_id: str
    parent: tuple[str, ParentVerb] | None = None


def create(
    services: ServiceSet, who: Principal, spec: JobSpec, idempotency_key: str | None, request_id: str
) -> tuple[Job, bool]:
    """Submit a job, or give the one that the same request submitted before.

    Raises:
        InvalidSpec: if it cannot be run.
        IdempotencyMismatch: if the key was used with another body.
    """
    asked = Asked(route=CREATE, body=spec.as_json(), idempotency_key=idempotency_key, request_id=request_id)
    return submit(services, who, asked, lambda _session, _fleet: spec)


def submit(
    services: ServiceSet, who: Principal, asked: Asked, draw_up: Callable[[Session, Fleet], JobSpec]
) -> tuple[Job, bool]:
    """Submit the job that `draw_up` specifies, or give the one that the same request submitted before.

    Raises:
        InvalidSpec: if it cannot be run.
        IdempotencyMismatch: if the key was used with another request.
    """
    job_id = new_id("job")
    # One transaction for everything: what is checked holds when the job is written, and a second one would
    # cost as much as the checks do.
    with transaction(services.engine) as session:
        fleet = Fleet.living(session)
        if asked.idempotency_key is not None:
            body = idempotency.body_hash(asked.body)
            first = idempotency.claim(session, who.key_id, asked.idempotency_key, asked.route, body, job_id)
            if first is not None:
                return _replayed(session, who, first, fleet), True
        spec = draw_up(session, fleet)
        admitted = admit(session, who, spec, share=True)
        plan = _plan_if_known(services, admitted)
        row = jobs.add(
            session,
            job_id,
            spec,
            admitted.dataset,
            plan=plan.model_dump(mode="json") if plan else None,
            steps=admitted.outline.steps,
            by=who.key_id,
            parent=asked.parent,
            request_id=asked.request_id,
        )
        job = job_view(JobRecord(job=row, private=admitted.private), who, fleet)
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


def _plan_if_known(services: ServiceSet, admitted: Admitted) -> Plan | None:
    noise = admitted.outline.noise
    if noise is None:
        return complete(admitted.outline, None)
    calibration = services.planner.known(noise)
    return complete(admitted.outline, calibration) if calibration else None


def _replayed(session: Session, who: Principal, job_id: str, fleet: Fleet) -> Job:
    try:
        return job_view(jobs.get(session, job_id), who, fleet)
    except NotFound:
        raise Conflict(
            "the job that this Idempotency-Key submitted was deleted since; use a new Idempotency-Key"
        ) from None
