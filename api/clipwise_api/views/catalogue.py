"""The catalogue on the wire: kinds that are installed here, and kinds that workers have."""

from collections.abc import Mapping
from typing import Any

from clipwise import architectures, plugins
from clipwise.errors import NotFound
from clipwise.optim import modules
from clipwise.store import workers
from clipwise.store.sessions import reading
from clipwise.wire.jobs import KindDescription
from clipwise_api.services import ServiceSet


def models(services: ServiceSet) -> list[KindDescription]:
    """Return every kind of model that is known here or announced by a living worker, by name."""
    with reading(services.engine) as session:
        announced = workers.kinds_of_live_workers(session)
    here = {kind: plugins.json_schema(cls) for kind, cls in architectures.kinds().items()}
    schemas = {**{kind: live.json_schema for kind, live in announced.items()}, **here}
    classes = architectures.kinds()
    return [
        _description(
            kind,
            schemas[kind],
            getattr(classes.get(kind), "tasks", ()),
            announced[kind].workers if kind in announced else 0,
        )
        for kind in sorted(schemas)
    ]


def model(services: ServiceSet, kind: str) -> KindDescription:
    """Return one kind of model.

    Raises:
        NotFound: if nobody has it.
    """
    for description in models(services):
        if description.kind == kind:
            return description
    raise NotFound(f"there is no model kind '{kind}', neither installed here nor at a running worker")


def optimizer_modules() -> list[KindDescription]:
    """Return the plug-ins of the optimizer, by name."""
    return [
        _description(kind, plugins.json_schema(cls), (), 0) for kind, cls in sorted(modules.kinds().items())
    ]


def _description(
    kind: str, schema: Mapping[str, Any], tasks: tuple[str, ...], workers_with_it: int
) -> KindDescription:
    return KindDescription(
        kind=kind,
        title=str(schema.get("title", kind)),
        description=str(schema.get("description", "")),
        tasks=list(tasks),
        json_schema=dict(schema),
        workers=workers_with_it,
    )
