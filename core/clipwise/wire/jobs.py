"""Jobs, their plan, events, metrics, logs and artifacts on the wire."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    JsonValue,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from clipwise.jobs.spec import JobSpec
from clipwise.jobs.states import JobStatus, ReasonCode
from clipwise.wire.listing import UtcTime, WireObject


class _SpecDocument:
    """Shows a specification in the OpenAPI document as what it is, and reads it as plain JSON."""

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.dict_schema(core_schema.str_schema())

    @classmethod
    def __get_pydantic_json_schema__(
        cls, _schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return handler(JobSpec.__pydantic_core_schema__)


SpecDocument = Annotated[dict[str, Any], _SpecDocument]
"""A job's specification in an answer: JSON, so that a client reads jobs of another version as well.

`clipwise.jobs.spec.parse` checks it.
"""


class StatusReason(WireObject):
    """Why a job has its status."""

    code: ReasonCode
    message: str


class Progress(WireObject):
    """How far an attempt is."""

    step: int
    steps: int
    eta_seconds: float | None = None
    samples_per_second: float | None = None


class EpsilonCurve(WireObject):
    """Upper bounds of what has been spent after so many steps; the last point is the plan's epsilon."""

    step: list[int]
    value: list[float]


class Plan(WireObject):
    """What a specification comes to, before anything runs.

    `accountant_version` is that of `dp_accounting`, which computed `epsilon`.
    """

    object: Literal["plan"] = "plan"
    steps: int
    training_size: int
    sampling_rate: float
    expected_batch_size: float
    noise_multiplier: float | None = None
    epsilon: float | None = None
    delta: float | None = None
    epsilon_curve: EpsilonCurve | None = None
    accountant_version: str | None = None
    parameters: int | None = None
    memory_bytes: int | None = None
    budget: dict[str, JsonValue] | None = None
    warnings: list[str] = []


class PendingPlan(WireObject):
    """The answer while a plan is still being computed (202): ask again after `retry_after` seconds."""

    object: Literal["pending_plan"] = "pending_plan"
    detail: str
    retry_after: int


class JobPrivacy(WireObject):
    """What has been spent so far; the target is in the specification."""

    epsilon: float
    delta: float


class JobResult(WireObject):
    """The final numbers of a finished job; exact ones are shown to owners only."""

    metrics: dict[str, float]
    released: bool


class JobParent(WireObject):
    """The job that this one was made from, and by which verb."""

    id: str
    verb: Literal["clone", "retry"]


class Job(WireObject):
    """A training job; `allowed` lists the verbs that its status allows.

    `retry_at`: when a job that was interrupted may be taken up again. `checkpoint_step`: where it would go
    on. `interruptions`: how often its runner died or its worker was lost.
    """

    id: str
    object: Literal["job"] = "job"
    name: str | None
    status: JobStatus
    phase: str | None
    status_reason: StatusReason | None
    progress: Progress | None
    plan: Plan | None
    privacy: JobPrivacy | None
    result: JobResult | None
    spec: SpecDocument
    dataset_id: str
    attempt: int
    interruptions: int = 0
    checkpoint_step: int | None = None
    priority: int = 0
    parent: JobParent | None = None
    worker_id: str | None = None
    retry_at: UtcTime | None = None
    tags: dict[str, str]
    allowed: list[str] = []
    created_at: UtcTime
    started_at: UtcTime | None
    finished_at: UtcTime | None


class Event(WireObject):
    """Something that happened to a job; `id` counts up from 1 within the job."""

    id: int
    object: Literal["event"] = "event"
    type: str
    level: Literal["debug", "info", "warning", "error"]
    message: str
    data: dict[str, JsonValue]
    attempt: int | None
    created_at: UtcTime


class JobProgressed(WireObject):
    """Where a job is; sent by the event stream as `event: progress`, without an id, when it changes."""

    object: Literal["job_progress"] = "job_progress"
    status: JobStatus
    phase: str | None
    progress: Progress | None
    privacy: JobPrivacy | None


class MetricSeries(WireObject):
    """One metric over steps; `released` says whether the guarantee covers it."""

    step: list[int]
    value: list[float | None]
    released: bool


class LogLine(WireObject):
    """One line of a runner's output."""

    id: int
    object: Literal["log_line"] = "log_line"
    stream: Literal["stdout", "stderr"]
    line: str
    attempt: int
    created_at: UtcTime


class Artifact(WireObject):
    """A file that a job left."""

    name: str
    object: Literal["artifact"] = "artifact"
    size: int
    sha256: str
    created_at: UtcTime


class Checkpoint(WireObject):
    """What a job can go on from; `best`: of the kept ones it has the lowest loss on held-out rows."""

    step: int
    object: Literal["checkpoint"] = "checkpoint"
    attempt: int
    size: int
    sha256: str
    best: bool
    created_at: UtcTime


class Attempt(WireObject):
    """One execution of a job, begun behind `start_step`; `reason` says why it ended without a result."""

    number: int
    object: Literal["attempt"] = "attempt"
    worker_id: str
    start_step: int
    started_at: UtcTime
    finished_at: UtcTime | None
    outcome: str | None
    reason: str | None


class JobChanges(WireObject):
    """What a clone has other than its parent: a JSON merge patch (RFC 7396) of the specification."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    changes: dict[str, JsonValue] = {}


Id = Annotated[str, Field(min_length=1, max_length=100)]
Text = Annotated[str, Field(min_length=1, max_length=200)]


class JobSelection(WireObject):
    """Which jobs a bulk change means: at least one condition, and every one that is given must hold.

    Without `ids` those are left out to which the verb cannot be done: by their status, and, unless
    `created_by` is given, what an analyst's key has not submitted itself. `created_by` is the id of a key,
    or `me`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    ids: Annotated[list[Id], Field(min_length=1, max_length=1000)] | None = None
    status: Annotated[list[JobStatus], Field(min_length=1)] | None = None
    dataset: Text | None = None
    model: Text | None = None
    queue: Text | None = None
    parent: Id | None = None
    created_by: Id | None = None
    tag: Annotated[list[str], Field(min_length=1, max_length=32)] | None = None
    q: Text | None = None

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if all(value is None for _, value in self):
            raise ValueError("it selects nothing: give 'ids', or at least one condition such as 'status'")
        return self


class BulkChange(WireObject):
    """A verb for every job of a selection, up to a thousand at a time, the oldest first.

    `after` is the `next_cursor` of the answer before.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    verb: Literal["cancel", "pause", "resume", "retry", "delete"]
    filter: JobSelection
    after: Annotated[str, Field(max_length=2000)] | None = None


class BulkRefusal(WireObject):
    """A job that a bulk change left as it was, and why."""

    id: str
    code: str
    detail: str


class BulkResult(WireObject):
    """What a bulk change did: the jobs that it changed, or made where it retried.

    With `has_more` there are jobs left that it did not look at; `next_cursor` is what `after` takes.
    """

    object: Literal["bulk_result"] = "bulk_result"
    changed: list[str]
    refused: list[BulkRefusal]
    has_more: bool
    next_cursor: str | None = None


class Deleted(WireObject):
    """The answer to a deletion."""

    id: str
    object: str
    deleted: Literal[True] = True


class KindDescription(WireObject):
    """A kind of the catalogue with the JSON schema of its configuration."""

    kind: str
    object: Literal["kind"] = "kind"
    title: str
    description: str
    tasks: list[str]
    json_schema: dict[str, Any]
    workers: int
