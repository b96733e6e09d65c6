"""The catalogue of models, and the machines."""

from typing import TYPE_CHECKING, Annotated

import typer

from clipwise.cli.options import JsonFlag, connect
from clipwise.cli.output import print_json, say, table

if TYPE_CHECKING:
    from clipwise.wire.fleet import Worker

workers_app = typer.Typer(pretty_exceptions_enable=False)
WorkerId = Annotated[str, typer.Argument(metavar="WORKER", help="Id of the worker, such as wrk_01k9...")]


def models(as_json: JsonFlag = False) -> None:
    """List the kinds of models; with --json each with the JSON schema of its configuration."""
    with connect() as client:
        found = client.models()
    if as_json:
        print_json(found)
        return
    table(
        ("KIND", "TASKS", "WORKERS", "FIELDS", "DESCRIPTION"),
        (
            (
                kind.kind,
                ", ".join(kind.tasks),
                kind.workers,
                ", ".join(name for name in kind.json_schema.get("properties", {}) if name != "kind"),
                kind.description.partition("\n")[0],
            )
            for kind in found
        ),
        empty="No models: the service has no catalogue.",
    )


@workers_app.callback(invoke_without_command=True)
def workers(context: typer.Context, as_json: JsonFlag = False) -> None:
    """List the workers that have registered, or drain one."""
    if context.invoked_subcommand is not None:
        return
    with connect() as client:
        found = client.workers()
    if as_json:
        print_json(found)
        return
    table(
        ("WORKER", "HOST", "STATE", "QUEUES", "SLOTS", "GPUS", "RUNS", "HEARD OF"),
        (
            (
                worker.id,
                worker.host,
                _state(worker),
                ", ".join(worker.queues),
                worker.slots,
                len(worker.devices) or None,
                ", ".join(worker.current_jobs) or None,
                f"{worker.heartbeat_age_seconds:,.0f} s ago",
            )
            for worker in found
        ),
        empty="No worker has registered: start one with 'clipwise worker'.",
    )


@workers_app.command()
def drain(worker: WorkerId, as_json: JsonFlag = False) -> None:
    """Have a worker take no more jobs, and put back those that it has, each with a checkpoint."""
    with connect() as client:
        _show(client.drain(worker), as_json=as_json)


@workers_app.command()
def undrain(worker: WorkerId, as_json: JsonFlag = False) -> None:
    """Have a worker that was drained take jobs again."""
    with connect() as client:
        _show(client.undrain(worker), as_json=as_json)


def queues(as_json: JsonFlag = False) -> None:
    """List the queues with what waits in them and who serves them."""
    with connect() as client:
        found = client.queues()
    if as_json:
        print_json(found)
        return
    table(
        ("QUEUE", "QUEUED", "RUNNING", "WORKERS"),
        ((queue.name, queue.queued, queue.running, queue.workers) for queue in found),
        empty="No queues.",
    )


def _show(worker: "Worker", *, as_json: bool) -> None:
    if as_json:
        print_json(worker)
    else:
        say(f"{worker.id} is {'draining' if worker.draining else 'taking jobs'}")


def _state(worker: "Worker") -> str:
    if not worker.alive:
        return "gone"
    return "draining" if worker.draining else "alive"
