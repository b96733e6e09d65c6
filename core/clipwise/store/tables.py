"""Every table. The same on SQLite and PostgreSQL; migrations follow this file (`alembic check`)."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, validates

Json = JSON().with_variant(JSONB(), "postgresql")
BigId = BigInteger().with_variant(Integer(), "sqlite")


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC; SQLite, which keeps no zone, gives it back aware all the same."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Refuse naive times, and store UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone cannot be stored; use datetime.now(UTC)")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Give the moment back in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Table(DeclarativeBase):
    """Root of the tables; constraint names are fixed so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: UtcDateTime(), dict[str, Any]: Json, list[Any]: Json, str: String()}


class ApiKeyRow(Table):
    """A key, by the SHA-256 of its secret."""

    __tablename__ = "api_keys"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    role: Mapped[str]
    prefix: Mapped[str]
    secret_hash: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class SignInTokenRow(Table):
    """A one-time token of a sign-in link, by its SHA-256."""

    __tablename__ = "sign_in_tokens"
    token_hash: Mapped[str] = mapped_column(primary_key=True)
    api_key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id", ondelete="CASCADE"))
    expires_at: Mapped[datetime]


class BrowserSessionRow(Table):
    """A signed-in browser, by the SHA-256 of its cookie."""

    __tablename__ = "browser_sessions"
    cookie_hash: Mapped[str] = mapped_column(primary_key=True)
    api_key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id", ondelete="CASCADE"))
    csrf_token: Mapped[str]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class IdempotencyRow(Table):
    """The answer to a create, kept under its key."""

    __tablename__ = "idempotency_keys"
    api_key_id: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    route: Mapped[str]
    body_hash: Mapped[str]
    resource_id: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(index=True)


class PopulationRow(Table):
    """The people whom data sets are about."""

    __tablename__ = "populations"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    visibility: Mapped[str]
    created_at: Mapped[datetime]


class DatasetRow(Table):
    """A table of samples. `rows_key` is its Arrow file in the artifact store; a built-in one has none."""

    __tablename__ = "datasets"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    population_id: Mapped[str] = mapped_column(ForeignKey("populations.id"))
    status: Mapped[str]
    source: Mapped[str]
    format: Mapped[str]
    dataset_schema: Mapped[dict[str, Any]] = mapped_column("schema")
    notes: Mapped[list[Any]]
    source_key: Mapped[str | None]
    rows_key: Mapped[str | None]
    rows: Mapped[int | None] = mapped_column(BigInteger)
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    sha256: Mapped[str | None]
    version: Mapped[int] = mapped_column(default=1)
    created_by: Mapped[str | None] = mapped_column(ForeignKey("api_keys.id"))
    created_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]
    __table_args__ = (
        Index(
            "uq_datasets_live_name",
            "name",
            unique=True,
            sqlite_where=text("deleted_at IS NULL"),
            postgresql_where=text("deleted_at IS NULL"),
        ),
    )


def searchable(name: str | None) -> str:
    """Return a name as lists search and sort it: without regard to case, and empty if there is none."""
    return (name or "").casefold()


class JobRow(Table):
    """A job. `token` is the fencing token of the attempt that owns it; `version` counts every change.

    `search_name` is the name as `searchable` makes it.
    `charged_steps` counts the noisy steps that the job has paid for, whatever became of them. A queued job
    cannot be claimed before `not_before` and fails after `wait_until`. `ran_seconds` are those of attempts
    that have ended.
    """

    __tablename__ = "jobs"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    search_name: Mapped[str] = mapped_column(default="", server_default="")
    status: Mapped[str]
    phase: Mapped[str | None]
    reason_code: Mapped[str | None]
    reason_message: Mapped[str | None] = mapped_column(Text)
    spec: Mapped[dict[str, Any]]
    plan: Mapped[dict[str, Any] | None]
    result: Mapped[dict[str, Any] | None]
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"))
    model_kind: Mapped[str]
    queue: Mapped[str]
    priority: Mapped[int] = mapped_column(default=0)
    gpus: Mapped[int] = mapped_column(default=0, server_default="0")
    attempt: Mapped[int] = mapped_column(default=0)
    token: Mapped[int] = mapped_column(BigInteger, default=0)
    worker_id: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    not_before: Mapped[datetime | None]
    wait_until: Mapped[datetime | None]
    runner_deaths: Mapped[int] = mapped_column(default=0, server_default="0")
    worker_losses: Mapped[int] = mapped_column(default=0, server_default="0")
    ran_seconds: Mapped[float] = mapped_column(Float, default=0.0, server_default="0")
    charged_steps: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    checkpoint_step: Mapped[int | None] = mapped_column(BigInteger)
    parent_id: Mapped[str | None] = mapped_column(index=True)
    parent_verb: Mapped[str | None]
    request_id: Mapped[str | None]
    step: Mapped[int | None]
    steps: Mapped[int | None]
    eta_seconds: Mapped[float | None] = mapped_column(Float)
    samples_per_second: Mapped[float | None] = mapped_column(Float)
    epsilon: Mapped[float | None] = mapped_column(Float)
    delta: Mapped[float | None] = mapped_column(Float)
    last_event_id: Mapped[int] = mapped_column(default=0)
    last_log_id: Mapped[int] = mapped_column(default=0)
    cancel_requested_at: Mapped[datetime | None]
    pause_requested_at: Mapped[datetime | None]
    created_by: Mapped[str | None] = mapped_column(ForeignKey("api_keys.id"))
    created_at: Mapped[datetime]
    queued_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    version: Mapped[int] = mapped_column(default=1)
    __table_args__ = (
        Index("ix_jobs_claim", "created_by", "status", "priority", "created_at"),
        Index("ix_jobs_lease", "status", "lease_expires_at"),
        Index("ix_jobs_wait", "status", "wait_until"),
        Index("ix_jobs_worker", "worker_id", "status"),
        # With the name, so that a search goes through this index and not through the wide rows.
        Index("ix_jobs_recent", "created_at", "id", "search_name"),
        Index("ix_jobs_status_recent", "status", "created_at", "id"),
        Index("ix_jobs_dataset_recent", "dataset_id", "created_at", "id"),
        Index("ix_jobs_name", "search_name", "id"),
    )

    @validates("name")
    def _note_name(self, _key: str, name: str | None) -> str | None:
        self.search_name = searchable(name)
        return name


class JobTagRow(Table):
    """One tag of a job, for filters."""

    __tablename__ = "job_tags"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]
    __table_args__ = (Index("ix_job_tags_lookup", "key", "value", "job_id"),)


class AttemptRow(Table):
    """One execution of a job by one worker; it began behind `start_step`, where its checkpoint is.

    `reports` counts what its worker has written of it, so that nothing is written twice.
    """

    __tablename__ = "attempts"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    token: Mapped[int] = mapped_column(BigInteger)
    worker_id: Mapped[str]
    start_step: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    reports: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    waited_seconds: Mapped[float | None] = mapped_column(Float)
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    outcome: Mapped[str | None]
    reason: Mapped[str | None] = mapped_column(Text)


class EventRow(Table):
    """Something that happened to a job. Ids count up within the job, in the order of commits."""

    __tablename__ = "job_events"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    id: Mapped[int] = mapped_column(primary_key=True)
    type: Mapped[str]
    level: Mapped[str]
    message: Mapped[str] = mapped_column(Text)
    data: Mapped[dict[str, Any]]
    attempt: Mapped[int | None]
    created_at: Mapped[datetime]


class LogLineRow(Table):
    """One line of a runner's output."""

    __tablename__ = "job_logs"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    id: Mapped[int] = mapped_column(primary_key=True)
    stream: Mapped[str]
    line: Mapped[str] = mapped_column(Text)
    attempt: Mapped[int]
    created_at: Mapped[datetime]


class MetricRow(Table):
    """One point of one metric of one attempt; `value` is null where it was not finite."""

    __tablename__ = "metrics"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[float | None] = mapped_column(Float(53))
    released: Mapped[bool]


class MetricSpanRow(Table):
    """The extremes of one metric of one attempt within `width` steps from `number * width` on.

    Of equal values the lowest is the first one, and the highest the last one; `first_null` and `last_null`
    are steps whose value was not finite.
    """

    __tablename__ = "metric_spans"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    width: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    released: Mapped[bool] = mapped_column(primary_key=True)
    lowest: Mapped[float | None] = mapped_column(Float(53))
    lowest_step: Mapped[int | None] = mapped_column(BigInteger)
    highest: Mapped[float | None] = mapped_column(Float(53))
    highest_step: Mapped[int | None] = mapped_column(BigInteger)
    first_null: Mapped[int | None] = mapped_column(BigInteger)
    last_null: Mapped[int | None] = mapped_column(BigInteger)


class ArtifactRow(Table):
    """A file that a job left in the artifact store under `key`."""

    __tablename__ = "artifacts"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str]
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    attempt: Mapped[int]
    created_at: Mapped[datetime]


class CheckpointRow(Table):
    """What a job can go on from: a file in the artifact store under `key`, visible once it is complete.

    `loss` is that of the held-out rows where a policy asks for the best one.
    """

    __tablename__ = "checkpoints"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    step: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str]
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    loss: Mapped[float | None] = mapped_column(Float(53))
    created_at: Mapped[datetime]


class DeviceRow(Table):
    """A GPU of a host. Whoever holds it is the attempt with this token, as long as that owns its job."""

    __tablename__ = "devices"
    host: Mapped[str] = mapped_column(primary_key=True)
    uuid: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    job_id: Mapped[str | None]
    token: Mapped[int | None] = mapped_column(BigInteger)
    seen_at: Mapped[datetime]


class DutyRow(Table):
    """Work that one process at a time does for all, and when it was last done."""

    __tablename__ = "duties"
    name: Mapped[str] = mapped_column(primary_key=True)
    done_at: Mapped[datetime]


class WorkerRow(Table):
    """A worker process; `kinds` maps each kind of model that it has to its JSON schema."""

    __tablename__ = "workers"
    id: Mapped[str] = mapped_column(primary_key=True)
    host: Mapped[str]
    pid: Mapped[int]
    queues: Mapped[list[Any]]
    slots: Mapped[int]
    kinds: Mapped[dict[str, Any]]
    versions: Mapped[dict[str, Any]]
    devices: Mapped[list[Any]] = mapped_column(default=list, server_default=text("'[]'"))
    started_at: Mapped[datetime]
    heartbeat_at: Mapped[datetime] = mapped_column(index=True)
    draining_at: Mapped[datetime | None]
    stopped_at: Mapped[datetime | None]


class OutboxRow(Table):
    """A message that must reach the broker: `work` for a queue."""

    __tablename__ = "outbox"
    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    queue: Mapped[str]
    job_id: Mapped[str | None]
    created_at: Mapped[datetime]


class OrphanFileRow(Table):
    """A file of the artifact store that no row needs any more; it is deleted after the commit."""

    __tablename__ = "orphan_files"
    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    key: Mapped[str]
    created_at: Mapped[datetime]
    __table_args__ = (UniqueConstraint("key"),)
