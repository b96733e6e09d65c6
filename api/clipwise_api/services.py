"""What the routes need, made once for each process, and how they ask for it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Header, Path, Query, Request
from sqlalchemy import Engine

from clipwise.settings import Settings
from clipwise_api.planner import Planner
from clipwise_api.principals import Principal
from clipwise_api.streams import Streams

if TYPE_CHECKING:
    from clipwise.artifacts import ArtifactStore


@dataclass(frozen=True, kw_only=True)
class ServiceSet:
    """The process's engine, artifact store, planner and event streams."""

    settings: Settings
    engine: Engine
    artifacts: "ArtifactStore"
    planner: Planner
    streams: Streams


async def _services(request: Request) -> ServiceSet:
    services: ServiceSet = request.app.state.services
    return services


async def _caller(request: Request) -> Principal:
    principal: Principal = request.scope["state"]["principal"]
    return principal


Services = Annotated[ServiceSet, Depends(_services)]
Caller = Annotated[Principal, Depends(_caller)]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        description="Sent again with the same body, gives the first answer instead of a second object.",
    ),
]
IfMatch = Annotated[str | None, Header(alias="If-Match", max_length=200)]
IfNoneMatch = Annotated[str | None, Header(alias="If-None-Match", max_length=200)]
Limit = Annotated[int, Query(ge=1, le=100, description="How many of them.")]
After = Annotated[str | None, Query(max_length=500, description="`next_cursor` of the page before.")]
JobId = Annotated[str, Path(max_length=100)]
