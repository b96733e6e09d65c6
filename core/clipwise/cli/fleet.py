"""The catalogue of models, and the machines."""

from clipwise.cli.options import JsonFlag, connect
from clipwise.cli.output import print_json, table


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


def workers(as_json: JsonFlag = False) -> None:
    """List the workers that have registered."""
    with connect() as client:
        found = client.workers()
    if as_json:
        print_json(found)
        return
    table(
        ("WORKER", "HOST", "ALIVE", "QUEUES", "SLOTS", "RUNS", "SEEN"),
        (
            (
                worker.id,
                worker.host,
                "yes" if worker.alive else "no",
                ", ".join(worker.queues),
                worker.slots,
                ", ".join(worker.current_jobs) or None,
                f"{worker.heartbeat_at.astimezone():%Y-%m-%d %H:%M:%S}",
            )
            for worker in found
        ),
        empty="No worker has registered: start one with 'clipwise worker'.",
    )


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
