"""What may be done with jobs that are there: cancel, pause, resume, retry, delete (one or many), clone."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from clipwise.cli import failures
from clipwise.cli.changes import read_changes
from clipwise.cli.jobs import explained
from clipwise.cli.options import JobId, JsonFlag, connect
from clipwise.cli.output import print_json, say

if TYPE_CHECKING:
    from clipwise.client import Client
    from clipwise.wire.jobs import BulkResult, Deleted, Job

Verb = Literal["cancel", "pause", "resume", "retry", "delete"]
SELECTION = "With --all"

AllFlag = Annotated[
    bool,
    typer.Option(
        "--all",
        help="Every job that the options below mean; without --status those that it can be done to.",
        rich_help_panel=SELECTION,
    ),
]
Statuses = Annotated[
    list[str] | None,
    typer.Option("--status", help="Only these; may be repeated.", rich_help_panel=SELECTION),
]
Dataset = Annotated[
    str | None, typer.Option("--dataset", help="Only of this data set.", rich_help_panel=SELECTION)
]
Model = Annotated[
    str | None, typer.Option("--model", help="Only of this kind of model.", rich_help_panel=SELECTION)
]
Queue = Annotated[str | None, typer.Option("--queue", help="Only in this queue.", rich_help_panel=SELECTION)]
Tags = Annotated[
    list[str] | None,
    typer.Option("--tag", help="Only with this tag, as key:value.", rich_help_panel=SELECTION),
]
Search = Annotated[
    str | None, typer.Option("--search", help="Only with this in their name.", rich_help_panel=SELECTION)
]
MineFlag = Annotated[
    bool, typer.Option("--mine", help="Only what this key submitted.", rich_help_panel=SELECTION)
]
YesFlag = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.", rich_help_panel=SELECTION)]
OneJob = Annotated[
    str | None, typer.Argument(metavar="[JOB]", help="Id of the job, such as job_01k9...; or --all.")
]


@dataclass(frozen=True, kw_only=True)
class _Chosen:
    """What the options of `--all` say; None where they say nothing."""

    status: list[str] | None
    dataset: str | None
    model: str | None
    queue: str | None
    tags: list[str] | None
    search: str | None
    created_by: str | None

    def conditions(self) -> dict[str, Any]:
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in named.items() if value}


def _command(
    verb: Verb, on_one: Callable[["Client", str], "Job | Deleted"], text: str
) -> Callable[..., None]:
    def command(
        job: OneJob = None,
        everything: AllFlag = False,
        status: Statuses = None,
        dataset: Dataset = None,
        model: Model = None,
        queue: Queue = None,
        tag: Tags = None,
        search: Search = None,
        mine: MineFlag = False,
        yes: YesFlag = False,
        as_json: JsonFlag = False,
    ) -> None:
        chosen = _Chosen(
            status=status,
            dataset=dataset,
            model=model,
            queue=queue,
            tags=tag,
            search=search,
            created_by="me" if mine else None,
        )
        if job is not None and not everything and not chosen.conditions():
            with connect() as client:
                found = on_one(client, job)
            _show_one(verb, found, as_json=as_json)
            return
        if job is not None or not everything:
            raise failures.WrongUsage(f"give the id of one job, or --all with what to {verb}")
        _show_many(verb, _do_to_all(verb, chosen, yes=yes), as_json=as_json)

    command.__doc__ = text
    return command


cancel = _command(
    "cancel",
    lambda client, job: client.cancel(job),
    "Cancel jobs: at once while they wait, else as soon as their worker has stopped them.",
)
pause = _command(
    "pause",
    lambda client, job: client.pause(job),
    "Pause jobs: at once while they wait, else as soon as their worker has written a checkpoint.",
)
resume = _command(
    "resume",
    lambda client, job: client.resume(job),
    "Put paused jobs back into their queue; they go on from their last checkpoint.",
)
retry = _command(
    "retry",
    lambda client, job: client.retry(job),
    "Submit jobs that failed or were cancelled again, as new ones; prints the new ids.",
)
delete = _command(
    "delete", lambda client, job: client.delete(job), "Delete finished jobs with everything that they left."
)


def clone(
    job: JobId,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="PATH=JSON",
            help="What is different, such as training.steps=500 or name='\"again\"'; null removes a field. "
            "May be repeated.",
        ),
    ] = None,
    changes: Annotated[
        str | None,
        typer.Option(
            "--changes", metavar="FILE", help="What is different, as a JSON merge patch; - is JSON on stdin."
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Submit a new job with the specification of another one, changed."""
    patch = read_changes(changes, settings or ())
    with connect() as client, explained(patch):
        made = client.clone(job, patch)
    if as_json:
        print_json(made)
    else:
        say(made.id)


def _do_to_all(verb: Verb, chosen: _Chosen, *, yes: bool) -> "BulkResult":
    from clipwise.jobs.states import VERBS

    conditions = chosen.conditions()
    # What the service would leave out anyway, so that the question says which jobs are meant.
    conditions.setdefault("status", sorted(str(status) for status in VERBS[verb]))
    if not yes:
        _confirm(verb, conditions)
    with connect() as client:
        return client.bulk(verb, **conditions)


def _confirm(verb: Verb, conditions: dict[str, Any]) -> None:
    said = ", ".join(
        f"{name} {' or '.join(value) if isinstance(value, list) else value}"
        for name, value in conditions.items()
    )
    if not sys.stdin.isatty():
        raise failures.WrongUsage(f"this would {verb} every job with {said}; add --yes to do it")
    typer.confirm(f"{verb.capitalize()} every job with {said}?", abort=True, err=True)


def _show_one(verb: Verb, found: "Job | Deleted", *, as_json: bool) -> None:
    if as_json:
        print_json(found)
    elif verb == "retry":
        say(found.id)
    else:
        say(f"{found.id} is {getattr(found, 'status', 'deleted')}")


def _show_many(verb: Verb, done: "BulkResult", *, as_json: bool) -> None:
    if as_json:
        print_json(done)
    else:
        for job_id in done.changed:
            say(job_id)
        for refusal in done.refused:
            say(f"error: {refusal.id}: {refusal.detail}", error=True)
        say(f"{verb}: {len(done.changed)} done, {len(done.refused)} refused", error=True)
    if done.refused:
        raise typer.Exit(failures.FAILED)
