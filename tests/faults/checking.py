"""The checker: reads database and artifacts when all is over, and says what must not be."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import torch
from safetensors.torch import load_file
from sqlalchemy import Engine, func, select, update

from clipwise.artifacts import ArtifactStore
from clipwise.jobs.states import TERMINAL, JobStatus
from clipwise.store import orphans
from clipwise.store.sessions import reading, transaction
from clipwise.store.tables import (
    ArtifactRow,
    AttemptRow,
    CheckpointRow,
    EventRow,
    JobRow,
    MetricRow,
    OrphanFileRow,
    OutboxRow,
)

ENDINGS = frozenset(str(status) for status in TERMINAL)
ARTIFACTS = {"model.safetensors", "config.json", "privacy.json"}
ROUNDING = 1e-9


class Observer:
    """Looks again and again while the faults happen: some things are only seen in the course of time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._tokens: dict[str, int] = {}
        self._closed: dict[tuple[str, int], int] = {}
        self._ended: dict[str, str] = {}
        self.broken: list[str] = []

    def look(self) -> None:
        """Compare what is there with what was there before."""
        with reading(self._engine) as session:
            jobs = session.execute(select(JobRow.id, JobRow.token, JobRow.status)).all()
            closed = session.execute(
                select(AttemptRow.job_id, AttemptRow.number).where(AttemptRow.finished_at.is_not(None))
            ).all()
            points = {
                (job_id, attempt): count
                for job_id, attempt, count in session.execute(
                    select(MetricRow.job_id, MetricRow.attempt, func.count()).group_by(
                        MetricRow.job_id, MetricRow.attempt
                    )
                )
            }
        for job_id, token, status in jobs:
            if token < self._tokens.get(job_id, 0):
                self.broken.append(f"{job_id}: its token fell to {token}")
            self._tokens[job_id] = token
            before = self._ended.get(job_id)
            if before is not None and before != status:
                self.broken.append(f"{job_id}: it was {before}, and is {status}")
            if status in ENDINGS:
                self._ended[job_id] = status
        for job_id, attempt in closed:
            key = (job_id, attempt)
            now = points.get(key, 0)
            if now != self._closed.setdefault(key, now):
                self.broken.append(f"{job_id}: attempt {attempt} was over, and wrote metrics")
                self._closed[key] = now


def check(
    engine: Engine,
    store: ArtifactStore,
    folder: Path,
    accepted: Mapping[str, str],
    references: Mapping[str, Mapping[str, torch.Tensor]],
) -> Iterable[str]:
    """Yield what is wrong.

    Args:
        engine: the database.
        store: the artifact store.
        folder: where it is.
        accepted: id of each submitted job that was accepted, to the name of its specification.
        references: weights of each specification that is not private, from a run that nothing disturbed.
    """
    with reading(engine) as session:
        jobs = {job.id: job for job in session.scalars(select(JobRow))}
        attempts = defaultdict(list)
        for attempt in session.scalars(select(AttemptRow).order_by(AttemptRow.number)):
            attempts[attempt.job_id].append(attempt)
        artifacts = defaultdict(list)
        for artifact in session.scalars(select(ArtifactRow)):
            artifacts[artifact.job_id].append(artifact)
        endings = defaultdict(list)
        for event in session.scalars(select(EventRow).where(EventRow.type.in_(ENDINGS))):
            endings[event.job_id].append(event.type)
        last_steps = {
            (job_id, attempt): step
            for job_id, attempt, step in session.execute(
                select(MetricRow.job_id, MetricRow.attempt, func.max(MetricRow.step)).group_by(
                    MetricRow.job_id, MetricRow.attempt
                )
            )
        }
        waiting = session.scalar(select(func.count()).select_from(OutboxRow))
    if waiting:
        yield f"{waiting} messages are left in the outbox"
    if set(accepted) != set(jobs):
        yield f"accepted and not there: {set(accepted) - set(jobs)}; there twice: {set(jobs) - set(accepted)}"
    for job_id, job in jobs.items():
        if job.status not in ENDINGS:
            yield f"{job_id}: it is {job.status}, for ever"
            continue
        if endings[job_id] != [job.status]:
            yield f"{job_id}: it is {job.status}, and its events say {endings[job_id]}"
        numbers = [attempt.number for attempt in attempts[job_id]]
        tokens = [attempt.token for attempt in attempts[job_id]]
        if numbers != list(range(1, job.attempt + 1)) or tokens != sorted(set(tokens)):
            yield f"{job_id}: attempts {numbers} with tokens {tokens}"
        if [a.number for a in attempts[job_id] if a.finished_at is None]:
            yield f"{job_id}: an attempt is still open"
        yield from _charges(job, attempts[job_id], last_steps)
        yield from _result(job, artifacts[job_id], store, references.get(accepted.get(job_id, "")))
    yield from _files(engine, store, folder)


def _charges(
    job: JobRow, attempts: Iterable[AttemptRow], last_steps: Mapping[tuple[str, int], int]
) -> Iterable[str]:
    """Every noisy step that told of itself must have been paid for, and no more than were planned."""
    if not job.spec.get("privacy") or not job.plan:
        if job.charged_steps:
            yield f"{job.id}: it has no guarantee, and was charged {job.charged_steps} steps"
        return
    ran = sum(
        max(0, last_steps.get((job.id, attempt.number), 0) - attempt.start_step) for attempt in attempts
    )
    if not ran <= job.charged_steps <= job.plan["steps"]:
        yield f"{job.id}: {ran} steps ran, {job.charged_steps} were paid, {job.plan['steps']} were planned"
    curve = job.plan["epsilon_curve"]
    spent = next((e for step, e in zip(curve["step"], curve["value"], strict=True) if step >= ran), 0.0)
    if ran and (job.epsilon or 0.0) < spent - ROUNDING:
        yield f"{job.id}: it says epsilon {job.epsilon}, its {ran} steps have spent {spent}"
    if (job.epsilon or 0.0) > job.plan["epsilon"] + ROUNDING:
        yield f"{job.id}: it says epsilon {job.epsilon}, beyond the planned {job.plan['epsilon']}"
    if job.status == JobStatus.SUCCEEDED and job.charged_steps != job.plan["steps"]:
        yield f"{job.id}: it succeeded with {job.charged_steps} of {job.plan['steps']} steps"


def _result(
    job: JobRow,
    artifacts: list[ArtifactRow],
    store: ArtifactStore,
    reference: Mapping[str, torch.Tensor] | None,
) -> Iterable[str]:
    if job.status != JobStatus.SUCCEEDED:
        if artifacts or job.result is not None:
            yield f"{job.id}: it is {job.status}, and has a result"
        return
    names = {artifact.name for artifact in artifacts}
    if names != ARTIFACTS or {artifact.attempt for artifact in artifacts} != {job.attempt}:
        yield f"{job.id}: its artifacts are {[(a.name, a.attempt) for a in artifacts]}"
        return
    for artifact in artifacts:
        with store.open(artifact.key) as file:
            if hashlib.sha256(file.read()).hexdigest() != artifact.sha256:
                yield f"{job.id}: {artifact.name} is damaged"
    if reference is not None:
        key = next(artifact.key for artifact in artifacts if artifact.name == "model.safetensors")
        weights = load_file(store.local_path(key, into=Path()))
        if weights.keys() != reference.keys() or not all(
            torch.equal(weights[name], reference[name]) for name in reference
        ):
            yield f"{job.id}: its weights are not those of a run that nothing disturbed"


def _files(engine: Engine, store: ArtifactStore, folder: Path) -> Iterable[str]:
    """Whatever lies in the store is named by a row, or noted for deletion; what is written aside, neither."""
    store.sweep(older_than_seconds=0)
    with transaction(engine) as session:
        # Reservations of attempts that were killed are due in a day; here they are due now.
        session.execute(update(OrphanFileRow).values(created_at=datetime.now(UTC)))
    while orphans.sweep(engine, store.delete):
        pass
    with reading(engine) as session:
        named = {*session.scalars(select(ArtifactRow.key)), *session.scalars(select(CheckpointRow.key))}
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    if found - named:
        yield f"files that nobody knows of: {sorted(found - named)[:5]}"
    if named - found:
        yield f"files that are gone: {sorted(named - found)[:5]}"
