"""Leases, checkpoints, devices: what jobs need to survive.

Revision: 0002, on 0001.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "checkpoints",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("loss", sa.Float(precision=53), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name=op.f("fk_checkpoints_job_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "step", "attempt", name=op.f("pk_checkpoints")),
    )
    op.create_table(
        "devices",
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("uuid", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("memory_bytes", sa.BigInteger(), nullable=True),
        sa.Column("job_id", sa.String(), nullable=True),
        sa.Column("token", sa.BigInteger(), nullable=True),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("host", "uuid", name=op.f("pk_devices")),
    )
    op.create_table(
        "metric_spans",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("released", sa.Boolean(), nullable=False),
        sa.Column("lowest", sa.Float(precision=53), nullable=True),
        sa.Column("lowest_step", sa.BigInteger(), nullable=True),
        sa.Column("highest", sa.Float(precision=53), nullable=True),
        sa.Column("highest_step", sa.BigInteger(), nullable=True),
        sa.Column("first_null", sa.BigInteger(), nullable=True),
        sa.Column("last_null", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name=op.f("fk_metric_spans_job_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint(
            "job_id", "name", "width", "number", "attempt", "released", name=op.f("pk_metric_spans")
        ),
    )
    op.create_table(
        "duties",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("done_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_duties")),
    )
    op.add_column("workers", sa.Column("draining_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column(
        "workers",
        sa.Column(
            "devices",
            sa.JSON().with_variant(postgresql.JSONB(), "postgresql"),
            server_default=sa.text("'[]'"),
            nullable=False,
        ),
    )
    op.drop_column("attempts", "heartbeat_at")
    op.add_column("attempts", sa.Column("start_step", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("attempts", sa.Column("reports", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("attempts", sa.Column("waited_seconds", sa.Float(), nullable=True))
    op.add_column("attempts", sa.Column("reason", sa.Text(), nullable=True))
    for column in (
        sa.Column("search_name", sa.String(), server_default="", nullable=False),
        sa.Column("gpus", sa.Integer(), server_default="0", nullable=False),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("wait_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("pause_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("runner_deaths", sa.Integer(), server_default="0", nullable=False),
        sa.Column("worker_losses", sa.Integer(), server_default="0", nullable=False),
        sa.Column("ran_seconds", sa.Float(), server_default="0", nullable=False),
        sa.Column("charged_steps", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("checkpoint_step", sa.BigInteger(), nullable=True),
        sa.Column("parent_id", sa.String(), nullable=True),
        sa.Column("parent_verb", sa.String(), nullable=True),
        sa.Column("request_id", sa.String(), nullable=True),
        sa.Column("queued_at", sa.DateTime(timezone=True), nullable=True),
    ):
        op.add_column("jobs", column)
    op.drop_index("ix_jobs_claim", table_name="jobs")
    op.create_index("ix_jobs_claim", "jobs", ["created_by", "status", "priority", "created_at"], unique=False)
    op.create_index("ix_jobs_lease", "jobs", ["status", "lease_expires_at"], unique=False)
    op.create_index("ix_jobs_wait", "jobs", ["status", "wait_until"], unique=False)
    op.create_index("ix_jobs_worker", "jobs", ["worker_id", "status"], unique=False)
    op.create_index(op.f("ix_jobs_parent_id"), "jobs", ["parent_id"], unique=False)
    op.drop_index("ix_jobs_recent", table_name="jobs")
    op.create_index("ix_jobs_recent", "jobs", ["created_at", "id", "search_name"], unique=False)
    op.drop_index(op.f("ix_jobs_dataset_id"), table_name="jobs")
    op.create_index("ix_jobs_dataset_recent", "jobs", ["dataset_id", "created_at", "id"], unique=False)
    op.create_index("ix_jobs_name", "jobs", ["search_name", "id"], unique=False)
    _note_names(op.get_bind())
    for width in (64, 4096):
        _add_spans(width)
    op.execute("UPDATE jobs SET queued_at = created_at WHERE status NOT IN ('validating')")
    # Nobody holds a job that was running then. How many noisy steps it had run was written now and then
    # only, so it has paid for all of them.
    jobs = sa.table(
        "jobs",
        sa.column("status", sa.String()),
        sa.column("lease_expires_at", sa.DateTime(timezone=True)),
        sa.column("started_at", sa.DateTime(timezone=True)),
        sa.column("charged_steps", sa.BigInteger()),
        sa.column("steps", sa.Integer()),
        sa.column("epsilon", sa.Float()),
        sa.column("delta", sa.Float()),
        sa.column("plan", sa.JSON().with_variant(postgresql.JSONB(), "postgresql")),
    )
    running = jobs.c.status.in_(["running", "pausing", "cancelling"])
    op.execute(jobs.update().where(running).values(lease_expires_at=jobs.c.started_at))
    op.execute(
        jobs.update()
        .where(running, jobs.c.delta.is_not(None))
        .values(
            charged_steps=sa.func.coalesce(jobs.c.steps, 0),
            epsilon=sa.func.coalesce(jobs.c.plan["epsilon"].as_float(), jobs.c.epsilon),
        )
    )


def _note_names(connection: sa.Connection) -> None:
    # Here and not in SQL: SQLite knows the case of ASCII only.
    jobs = sa.table("jobs", sa.column("id"), sa.column("name"), sa.column("search_name"))
    named = connection.execute(sa.select(jobs.c.id, jobs.c.name).where(jobs.c.name.is_not(None))).all()
    if named:
        connection.execute(
            sa.update(jobs)
            .where(jobs.c.id == sa.bindparam("job_id"))
            .values(search_name=sa.bindparam("folded")),
            [{"job_id": job_id, "folded": name.casefold()} for job_id, name in named],
        )


def _add_spans(width: int) -> None:
    # As `clipwise.store.spans` writes them together with new points.
    op.execute(
        f"""
        INSERT INTO metric_spans (job_id, name, width, number, attempt, released,
                                  lowest, lowest_step, highest, highest_step, first_null, last_null)
        SELECT job_id, name, {width}, number, attempt, released,
               lowest, MIN(CASE WHEN value = lowest THEN step END),
               highest, MAX(CASE WHEN value = highest THEN step END),
               MIN(CASE WHEN value IS NULL THEN step END), MAX(CASE WHEN value IS NULL THEN step END)
        FROM (
            SELECT *, MIN(value) OVER span AS lowest, MAX(value) OVER span AS highest
            FROM (SELECT *, step / {width} AS number FROM metrics) AS numbered
            WINDOW span AS (PARTITION BY job_id, name, number, attempt, released)
        ) AS points
        GROUP BY job_id, name, number, attempt, released, lowest, highest
        """  # noqa: S608  # a number
    )


def downgrade() -> None:
    op.drop_index("ix_jobs_name", table_name="jobs")
    op.drop_index("ix_jobs_dataset_recent", table_name="jobs")
    op.create_index(op.f("ix_jobs_dataset_id"), "jobs", ["dataset_id"], unique=False)
    op.drop_index("ix_jobs_recent", table_name="jobs")
    op.create_index("ix_jobs_recent", "jobs", ["created_at", "id"], unique=False)
    op.drop_index(op.f("ix_jobs_parent_id"), table_name="jobs")
    op.drop_index("ix_jobs_wait", table_name="jobs")
    op.drop_index("ix_jobs_worker", table_name="jobs")
    op.drop_index("ix_jobs_lease", table_name="jobs")
    op.drop_index("ix_jobs_claim", table_name="jobs")
    op.create_index("ix_jobs_claim", "jobs", ["queue", "status", "priority", "created_at"], unique=False)
    for name in (
        "queued_at",
        "request_id",
        "parent_verb",
        "parent_id",
        "checkpoint_step",
        "charged_steps",
        "ran_seconds",
        "worker_losses",
        "runner_deaths",
        "pause_requested_at",
        "wait_until",
        "not_before",
        "lease_expires_at",
        "gpus",
        "search_name",
    ):
        op.drop_column("jobs", name)
    op.drop_column("attempts", "reason")
    op.drop_column("attempts", "waited_seconds")
    op.drop_column("attempts", "reports")
    op.drop_column("attempts", "start_step")
    op.add_column(
        "attempts",
        sa.Column(
            "heartbeat_at", sa.DateTime(timezone=True), server_default="1970-01-01 00:00:00", nullable=False
        ),
    )
    op.drop_column("workers", "devices")
    op.drop_column("workers", "draining_at")
    op.drop_table("metric_spans")
    op.drop_table("duties")
    op.drop_table("devices")
    op.drop_table("checkpoints")
