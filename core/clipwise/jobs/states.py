"""A job's states, the legal moves between them, and why a job is where it is."""

from enum import StrEnum

from clipwise.errors import IllegalTransition


class JobStatus(StrEnum):
    """Public status of a job; the last three are terminal."""

    VALIDATING = "validating"
    QUEUED = "queued"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Phase(StrEnum):
    """What a running attempt is doing; free to grow."""

    STARTING = "starting"
    LOADING = "loading"
    TRAINING = "training"
    EVALUATING = "evaluating"
    CHECKPOINTING = "checkpointing"
    EXPORTING = "exporting"
    INTERRUPTED = "interrupted"
    RECOVERING = "recovering"


class ReasonCode(StrEnum):
    """Why a job has its status; a closed list."""

    USER_CANCELLED = "user_cancelled"
    MAX_RUNTIME_EXCEEDED = "max_runtime_exceeded"
    BUDGET_EXHAUSTED = "budget_exhausted"
    VALIDATION_FAILED = "validation_failed"
    DATASET_UNAVAILABLE = "dataset_unavailable"
    OUT_OF_MEMORY = "out_of_memory"
    NON_FINITE_LOSS = "non_finite_loss"
    USER_CODE_ERROR = "user_code_error"
    WORKER_LOST = "worker_lost"
    RETRIES_EXHAUSTED = "retries_exhausted"
    PREEMPTED = "preempted"
    NO_MATCHING_WORKER = "no_matching_worker"
    INTERNAL = "internal"


S = JobStatus
TRANSITIONS: dict[JobStatus, frozenset[JobStatus]] = {
    S.VALIDATING: frozenset({S.QUEUED, S.CANCELLED, S.FAILED}),
    S.QUEUED: frozenset({S.RUNNING, S.PAUSED, S.CANCELLED, S.FAILED}),
    S.RUNNING: frozenset({S.QUEUED, S.PAUSING, S.CANCELLING, S.SUCCEEDED, S.FAILED}),
    S.PAUSING: frozenset({S.PAUSED, S.QUEUED, S.CANCELLING, S.SUCCEEDED, S.FAILED}),
    S.PAUSED: frozenset({S.QUEUED, S.CANCELLED}),
    S.CANCELLING: frozenset({S.CANCELLED, S.SUCCEEDED, S.FAILED}),
    S.SUCCEEDED: frozenset(),
    S.FAILED: frozenset(),
    S.CANCELLED: frozenset(),
}
TERMINAL = frozenset(status for status, nexts in TRANSITIONS.items() if not nexts)
OWNED = (S.RUNNING, S.PAUSING, S.CANCELLING)
"""The statuses in which an attempt owns its job."""

VERBS: dict[str, frozenset[JobStatus]] = {
    "cancel": frozenset({S.VALIDATING, S.QUEUED, S.RUNNING, S.PAUSING, S.PAUSED}),
    "pause": frozenset({S.QUEUED, S.RUNNING}),
    "resume": frozenset({S.PAUSED}),
    "retry": frozenset({S.FAILED, S.CANCELLED}),
    "clone": frozenset(S),
    "delete": TERMINAL,
}
"""Which verb of the api each status allows."""


def allowed_verbs(status: JobStatus) -> tuple[str, ...]:
    """Return the verbs that a job with this status allows, sorted."""
    return tuple(sorted(verb for verb, statuses in VERBS.items() if status in statuses))


def require_verb(verb: str, job_id: str, status: JobStatus) -> None:
    """Check that `verb` may be applied to a job with this status.

    Raises:
        IllegalTransition: if not; it lists what is allowed.
    """
    if status not in VERBS[verb]:
        allowed = allowed_verbs(status)
        raise IllegalTransition(
            f"cannot {verb} job '{job_id}': it is {status}; allowed now: {', '.join(allowed) or 'nothing'}",
            allowed,
        )
