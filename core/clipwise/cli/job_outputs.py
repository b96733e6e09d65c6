"""What a job leaves: events, logs, artifacts."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipwise.cli.options import JobId, JsonFlag, connect
from clipwise.cli.output import print_json, print_json_line, printable, say

if TYPE_CHECKING:
    from clipwise.client import Client
    from clipwise.wire.jobs import Event, LogLine

FollowFlag = Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job is over.")]
FOLLOW_SECONDS = 0.5


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
        last = _print_logs(client, job, 0, as_json=as_json)
        while follow:
            over = client.job(job).finished_at is not None
            last = _print_logs(client, job, last, as_json=as_json)
            if over:
                return
            time.sleep(FOLLOW_SECONDS)


def download(
    job: JobId,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One file; all without.")] = None,
    to: Annotated[Path, typer.Option("--to", help="Folder to put them in; it is made.")] = Path(),
    as_json: JsonFlag = False,
) -> None:
    """Download what a job left: the model, its configuration, its privacy statement."""
    with connect() as client:
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


def _print_logs(client: "Client", job: str, after: int, *, as_json: bool) -> int:
    for line in client.logs(job, after=after):
        after = line.id
        if as_json:
            print_json_line(line)
        else:
            say(_log_line(line))
    return after


def _event_line(event: "Event") -> str:
    level = "" if event.level == "info" else f" {event.level.upper()}"
    return printable(f"{event.created_at.astimezone():%H:%M:%S}{level} {event.type}: {event.message}")


def _log_line(line: "LogLine") -> str:
    return printable(line.line)
