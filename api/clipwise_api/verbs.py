"""What people do with a job that is there: cancel, pause, resume, delete, retry, clone; one or many."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Literal

from sqlalchemy.orm import Session

from clipwise.errors import ClipwiseError, Forbidden, NotFound
from clipwise.jobs import spec as specification
from clipwise.jobs.merge_patch import merged
from clipwise.jobs.spec import JobSpec
from clipwise.jobs.states import VERBS, JobStatus, require_verb
from clipwise.store import cursors, job_changes, jobs
from clipwise.store.jobs import JobFilter, JobRecord
from clipwise.store.sessions import reading, transaction
from clipwise.wire.jobs import BulkChange, BulkRefusal, BulkResult, Deleted, Job, JobChanges
from clipwise_api.caching import require_match
from clipwise_api.fleet import Fleet
from clipwise_api.principals import Principal
from clipwise_api.selection import job_filter
from clipwise_api.services import ServiceSet
from clipwise_api.submission import Asked, submit
from clipwise_api.views.jobs import job_view

Verb = Literal["cancel", "pause", "resume"]
BulkVerb = Literal["cancel", "pause", "resume", "retry", "delete"]

CHANGES: Mapping[BulkVerb, Callable[[Session, JobRecord], None]] = {
    "cancel": lambda session, record: job_changes.cancel(session, record.job),
    "pause": lambda session, record: job_changes.pause(session, record.job),
    "resume": lambda session, record: job_changes.resume(session, record.job),
    "delete": job_changes.remove,
}
BULK = "POST /v1/jobs/bulk"
MOST_AT_ONCE = 1000
BULK_SECONDS = 10.0
"""After so long a bulk change answers with what it has done, so that no client gives it up."""


def change(services: ServiceSet, who: Principal, verb: Verb, job_id: str, if_match: str | None) -> Job:
    """Cancel, pause or resume a job.

    Raises:
        IllegalTransition: if its status does not allow it.
        Forbidden: if an analyst means somebody else's job.
        PreconditionFailed: if the job is not as `if_match` says.
    """
    with transaction(services.engine) as session:
        fleet = Fleet.living(session)
        record = _lock(session, who, verb, job_id)
        require_match(job_view(record, who, fleet), if_match)
        CHANGES[verb](session, record)
        session.flush()
        job = job_view(record, who, fleet)
    services.wake_relay()
    return job


def delete(services: ServiceSet, who: Principal, job_id: str, if_match: str | None) -> Deleted:
    """Delete a job that has ended.

    Raises:
        IllegalTransition: if it has not.
        Forbidden: if an analyst means somebody else's job.
        PreconditionFailed: if the job is not as `if_match` says.
    """
    with transaction(services.engine) as session:
        record = _lock(session, who, "delete", job_id)
        require_match(job_view(record, who, Fleet.living(session)), if_match)
        CHANGES["delete"](session, record)
    return Deleted(id=job_id, object="job")


def retry(
    services: ServiceSet,
    who: Principal,
    job_id: str,
    if_match: str | None,
    idempotency_key: str | None,
    request_id: str,
) -> tuple[Job, bool]:
    """Submit a job that failed or was cancelled again, as a new one; the first one stays as it ended.

    Raises:
        IllegalTransition: if it has not ended so.
        Forbidden: if an analyst means somebody else's job.
        PreconditionFailed: if the job is not as `if_match` says.
        InvalidSpec: if it cannot be run any more.
    """
    asked = Asked(
        route=f"POST /v1/jobs/{job_id}/retry",
        body=None,
        idempotency_key=idempotency_key,
        request_id=request_id,
        parent=(job_id, "retry"),
    )
    return _retry(services, who, job_id, if_match, asked)


def clone(
    services: ServiceSet,
    who: Principal,
    job_id: str,
    changes: JobChanges,
    if_match: str | None,
    idempotency_key: str | None,
    request_id: str,
) -> tuple[Job, bool]:
    """Submit a new job with the specification of another one, changed.

    Raises:
        InvalidSpec: if what comes out cannot be run; pointers are into the changed specification.
        PreconditionFailed: if the job is not as `if_match` says.
    """
    asked = Asked(
        route=f"POST /v1/jobs/{job_id}/clone",
        body=changes.model_dump(mode="json"),
        idempotency_key=idempotency_key,
        request_id=request_id,
        parent=(job_id, "clone"),
    )

    def draw_up(session: Session, fleet: Fleet) -> JobSpec:
        record = jobs.get(session, job_id)
        require_match(job_view(record, who, fleet), if_match)
        return specification.parse(merged(record.job.spec, changes.changes))

    return submit(services, who, asked, draw_up)


def bulk(
    services: ServiceSet, who: Principal, wanted: BulkChange, idempotency_key: str | None, request_id: str
) -> BulkResult:
    """Apply a verb to every job of a selection, each in a transaction of its own.

    Each job is what it is when its turn comes: one that refuses stops no other one, and asking again
    finds what was changed already in a status that needs no change. A retry does not show in the job that
    it was made of; with an idempotency key it is made once for each job all the same. What it made itself
    is not meant by it.
    """
    chosen = job_filter(who, "/filter", **dict(wanted.filter))
    if wanted.filter.ids is None:
        chosen = _concerned(who, wanted.verb, chosen)
    until, after = _bounds(wanted)
    with reading(services.engine) as session:
        places, has_more = jobs.oldest(session, chosen, limit=MOST_AT_ONCE, until=until, after=after)
        refused = [] if wanted.after else _unknown(session, chosen)
    deadline = time.monotonic() + BULK_SECONDS
    changed, cursor = list[str](), after
    for number, place in enumerate(places, start=1):
        try:
            changed.append(_one_of_many(services, who, wanted, place.id, idempotency_key, request_id))
        except ClipwiseError as error:
            refused.append(BulkRefusal(id=place.id, code=error.code, detail=error.detail))
        cursor = place.cursor
        if time.monotonic() > deadline:
            has_more = has_more or number < len(places)
            break
    services.wake_relay()
    return BulkResult(
        changed=changed,
        refused=refused,
        has_more=has_more,
        next_cursor=_next(until, cursor) if has_more and cursor is not None else None,
    )


def _bounds(wanted: BulkChange) -> tuple[datetime | None, str | None]:
    """Return until when jobs are meant, and the cursor: a retry must not come to what it made before."""
    if wanted.verb != "retry":
        return None, wanted.after
    if wanted.after is None:
        return datetime.now(UTC), None
    return cursors.decode_until(wanted.after)


def _next(until: datetime | None, cursor: str) -> str:
    return cursor if until is None else cursors.encode_until(until, cursor)


def _concerned(who: Principal, verb: BulkVerb, chosen: JobFilter) -> JobFilter:
    """Leave out of a condition what the verb cannot be done to: it is meant of jobs that nobody has named."""
    statuses = [status for status in chosen.statuses or JobStatus if status in VERBS[verb]]
    own = who.key_id if not who.is_owner and chosen.created_by is None else chosen.created_by
    if not statuses:
        return replace(chosen, ids=())
    return replace(chosen, statuses=statuses, created_by=own)


def _one_of_many(
    services: ServiceSet,
    who: Principal,
    wanted: BulkChange,
    job_id: str,
    idempotency_key: str | None,
    request_id: str,
) -> str:
    if wanted.verb == "retry":
        asked = Asked(
            route=BULK,
            body=wanted.model_dump(mode="json"),
            idempotency_key=f"{idempotency_key} {job_id}" if idempotency_key is not None else None,
            request_id=request_id,
            parent=(job_id, "retry"),
        )
        return _retry(services, who, job_id, None, asked)[0].id
    with transaction(services.engine) as session:
        CHANGES[wanted.verb](session, _lock(session, who, wanted.verb, job_id))
    return job_id


def _retry(
    services: ServiceSet, who: Principal, job_id: str, if_match: str | None, asked: Asked
) -> tuple[Job, bool]:
    def draw_up(session: Session, fleet: Fleet) -> JobSpec:
        record = jobs.get(session, job_id)
        _require_own(record, who, "retry")
        require_match(job_view(record, who, fleet), if_match)
        require_verb("retry", job_id, JobStatus(record.job.status))
        return specification.parse(record.job.spec)

    return submit(services, who, asked, draw_up)


def _lock(session: Session, who: Principal, verb: str, job_id: str) -> JobRecord:
    record = jobs.get(session, job_id, lock=True)
    _require_own(record, who, verb)
    return record


def _require_own(record: JobRecord, who: Principal, verb: str) -> None:
    if not who.is_owner and record.job.created_by != who.key_id:
        raise Forbidden(f"an analyst's key may only {verb} the jobs that it submitted itself")


def _unknown(session: Session, chosen: JobFilter) -> list[BulkRefusal]:
    wanted = list(dict.fromkeys(chosen.ids or ()))
    known = jobs.known(session, wanted)
    return [
        BulkRefusal(id=job_id, code=NotFound.code, detail=f"there is no job '{job_id}'")
        for job_id in wanted
        if job_id not in known
    ]
