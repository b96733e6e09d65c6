"""Jobs: submit, plan, list, look at."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipwise.cli import failures
from clipwise.cli.documents import JobFile, read_document
from clipwise.cli.options import JobId, JsonFlag, Limit, connect
from clipwise.cli.output import facts, moment, print_json, say, table

if TYPE_CHECKING:
    from clipwise.client import Client
    from clipwise.wire.jobs import Job, Plan


def submit(
    file: JobFile,
    wait: Annotated[bool, typer.Option("--wait", help="Stay until it is over, with its progress.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Submit a job."""
    document = read_document(file)
    with connect() as client:
        with explained(document):
            job = client.submit(document)
        if wait:
            if not as_json:
                say(f"Submitted {job.id}; Ctrl-C stops watching, not the job; clipwise watch comes back.")
            _watch(client, job.id, as_json=as_json)
            return
    if as_json:
        print_json(job)
    else:
        say(job.id)


def watch(job: JobId, as_json: JsonFlag = False) -> None:
    """Stay with a job until it is over, with its progress; the exit code says whether it succeeded."""
    with connect() as client:
        _watch(client, job, as_json=as_json)


def plan(file: JobFile, as_json: JsonFlag = False) -> None:
    """Show what a job comes to (steps, noise, epsilon, parameters), creating nothing."""
    document = read_document(file)
    with connect() as client, explained(document):
        found = client.plan(document)
    if as_json:
        print_json(found)
    else:
        facts(_plan_facts(found), title="Plan")


def jobs(
    status: Annotated[list[str] | None, typer.Option(help="Only these; may be repeated.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Only of this data set.")] = None,
    queue: Annotated[str | None, typer.Option(help="Only in this queue.")] = None,
    parent: Annotated[str | None, typer.Option(help="Only what was made from this job.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Only with this tag, as key:value.")] = None,
    mine: Annotated[bool, typer.Option("--mine", help="Only what this key submitted.")] = False,
    limit: Limit = 20,
    as_json: JsonFlag = False,
) -> None:
    """List jobs, the newest first."""
    with connect() as client:
        listed = client.jobs(
            status=status or (),
            dataset=dataset,
            queue=queue,
            parent=parent,
            created_by="me" if mine else None,
            tags=tag or (),
            limit=limit,
        )
        found = list(listed)
    if as_json:
        print_json(found)
        return
    table(
        ("JOB", "NAME", "STATUS", "STEP", "EPSILON", "DATASET", "MODEL", "CREATED"),
        (
            (
                job.id,
                job.name,
                job.status,
                f"{job.progress.step}/{job.progress.steps}" if job.progress else None,
                job.privacy.epsilon if job.privacy else None,
                job.spec.get("dataset"),
                job.spec.get("model", {}).get("kind"),
                moment(job.created_at),
            )
            for job in found
        ),
        empty="No jobs.",
    )


def show(job: JobId, as_json: JsonFlag = False) -> None:
    """Show a job."""
    with connect() as client:
        found = client.job(job)
    if as_json:
        print_json(found)
    else:
        _describe(found)


def _watch(client: "Client", job_id: str, *, as_json: bool) -> None:
    from clipwise.cli.watching import display_for, watch

    job = watch(client, job_id, display_for(as_json=as_json))
    if as_json:
        print_json(job)
    else:
        _describe(job)
    require_success(job)


def require_success(job: "Job") -> None:
    """Check that a job that has ended succeeded.

    Raises:
        JobNotSucceeded: if not, with the reason.
    """
    if job.status == "succeeded":
        return
    ended, reason = _ENDED.get(job.status, f"is {job.status}"), _reason(job)
    raise failures.JobNotSucceeded(f"{job.id} {ended}" + (f" ({reason})" if reason else ""))


_ENDED = {"failed": "failed", "cancelled": "was cancelled"}


@contextmanager
def explained(document: Mapping[str, Any]) -> Iterator[None]:
    """Say of each field that the service refuses which value of `document` it has."""
    from clipwise.client import InvalidRequest

    try:
        yield
    except InvalidRequest as error:
        raise failures.RefusedDocument(error, document) from error


def _describe(job: "Job") -> None:
    metrics = sorted(job.result.metrics.items()) if job.result else []
    facts(
        (
            ("id", job.id),
            ("status", f"{job.status}{f', {job.phase}' if job.phase else ''}"),
            ("reason", _reason(job)),
            ("step", f"{job.progress.step} of {job.progress.steps}" if job.progress else None),
            ("checkpoint", f"step {job.checkpoint_step}" if job.checkpoint_step is not None else None),
            ("interruptions", job.interruptions or None),
            ("tried again", moment(job.retry_at)),
            ("worker", job.worker_id),
            ("priority", job.priority or None),
            ("made from", f"{job.parent.id} ({job.parent.verb})" if job.parent else None),
            ("dataset", job.spec.get("dataset")),
            ("model", job.spec.get("model", {}).get("kind")),
            *metrics,
            ("epsilon", job.privacy.epsilon if job.privacy else None),
            ("delta", job.privacy.delta if job.privacy else None),
            ("created", moment(job.created_at)),
            ("started", moment(job.started_at)),
            ("finished", moment(job.finished_at)),
            ("tags", ", ".join(f"{key}:{value}" for key, value in sorted(job.tags.items()))),
        ),
        title=job.name or job.id,
    )
    if job.plan and job.status in ("validating", "queued"):
        facts(_plan_facts(job.plan), title="Plan")


def _reason(job: "Job") -> str | None:
    return f"{job.status_reason.code}: {job.status_reason.message}" if job.status_reason else None


def _plan_facts(plan: "Plan") -> list[tuple[str, object]]:
    return [
        ("steps", plan.steps),
        ("rows for training", plan.training_size),
        ("sampling rate", plan.sampling_rate),
        ("expected batch", plan.expected_batch_size),
        ("noise multiplier", plan.noise_multiplier),
        ("epsilon", plan.epsilon),
        ("delta", plan.delta),
        ("parameters", plan.parameters),
        ("memory", f"{plan.memory_bytes / 2**20:.1f} MiB" if plan.memory_bytes else None),
        *(("warning", warning) for warning in plan.warnings),
    ]
