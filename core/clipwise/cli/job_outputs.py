"""What a job leaves: events, logs, attempts, checkpoints, artifacts."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipwise.cli.failures import WrongUsage
from clipwise.cli.options import JobId, JsonFlag, connect
from clipwise.cli.output import moment, print_json, print_json_line, printable, say, table

if TYPE_CHECKING:
    from clipwise.wire.jobs import Event

FollowFlag = Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job is over.")]


def events(job: JobId, follow: FollowFlag = False, as_json: JsonFlag = False) -> None:
    """Show what has happened to a job; with --json one event a line."""
    with connect() as client:
        for event in client.stream(job) if follow else client.events(job):
            if event.object != "event":
                continue
            if as_json:
                print_json_line(event)
            else:
                say(_event_line(event))


def logs(job: JobId, follow: FollowFlag = False, as_json: JsonFlag = False) -> None:
    """Show what a job's runners have printed; with --json one object a line."""
    with connect() as client:
        for line in client.stream_logs(job) if follow else client.logs(job):
            if as_json:
                print_json_line(line)
            else:
                say(printable(line.line))


def attempts(job: JobId, as_json: JsonFlag = False) -> None:
    """List a job's attempts: which worker had it, from which step on, and why it ended."""
    with connect() as client:
        found = list(client.attempts(job))
    if as_json:
        print_json(found)
        return
    table(
        ("ATTEMPT", "WORKER", "FROM STEP", "STARTED", "FINISHED", "OUTCOME", "REASON"),
        (
            (
                one.number,
                one.worker_id,
                one.start_step,
                moment(one.started_at),
                moment(one.finished_at),
                one.outcome,
                one.reason,
            )
            for one in found
        ),
        empty="No attempts: no worker has had the job yet.",
    )


def checkpoints(job: JobId, as_json: JsonFlag = False) -> None:
    """List what a job can go on from, the newest first."""
    with connect() as client:
        found = client.checkpoints(job)
    if as_json:
        print_json(found)
        return
    table(
        ("STEP", "ATTEMPT", "SIZE", "BEST", "WRITTEN"),
        (
            (one.step, one.attempt, f"{one.size:,}", "yes" if one.best else None, moment(one.created_at))
            for one in found
        ),
        empty="No checkpoints.",
    )


def download(
    job: JobId,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One file; all without.")] = None,
    checkpoint: Annotated[
        int | None, typer.Option(metavar="STEP", help="The checkpoint of this step instead.")
    ] = None,
    to: Annotated[Path, typer.Option("--to", help="Folder to put them in; it is made.")] = Path(),
    as_json: JsonFlag = False,
) -> None:
    """Download what a job left: the model, its configuration, its privacy statement."""
    if name and checkpoint is not None:
        raise WrongUsage("give the name of a file or --checkpoint, not both")
    with connect() as client:
        if checkpoint is not None:
            to.mkdir(parents=True, exist_ok=True)
            paths = [client.download_checkpoint(job, checkpoint, to)]
        else:
            names = [name] if name else [artifact.name for artifact in client.artifacts(job)]
            to.mkdir(parents=True, exist_ok=True)
            paths = [client.download(job, one, to / Path(one).name) for one in names]
    if as_json:
        print_json([{"name": path.name, "path": str(path.resolve())} for path in paths])
        return
    for path in paths:
        say(str(path))
    if not paths:
        say(f"{job} has no files yet.", error=True)


def _event_line(event: "Event") -> str:
    level = "" if event.level == "info" else f" {event.level.upper()}"
    return printable(f"{event.created_at.astimezone():%H:%M:%S}{level} {event.type}: {event.message}")
