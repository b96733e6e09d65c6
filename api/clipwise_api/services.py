"""What the routes need, made once for each process, and how they ask for it."""

import asyncio
from dataclasses import dataclass, field
from typing import Annotated

from anyio import CapacityLimiter
from fastapi import Depends, Header, Path, Query, Request
from prometheus_client import CollectorRegistry
from sqlalchemy import Engine

from clipwise.artifacts import ArtifactStore
from clipwise.errors import Unauthenticated
from clipwise.settings import Settings
from clipwise_api.delivery import Delivery
from clipwise_api.errors import request_id_of
from clipwise_api.planner import Planner
from clipwise_api.principals import Principal, require_permission
from clipwise_api.readiness import Readiness
from clipwise_api.streams import Streams

INGESTIONS_AT_ONCE = 4
"""Uploads that are read at once; the others wait, so that they never take every request's thread."""


@dataclass(frozen=True, kw_only=True)
class ServiceSet:
    """What the process works with.

    Attributes:
        measured: what `/metrics` shows.
        outbox_filled: set, on the event loop, when a message waits for the relay.
        used_keys: ids of keys that were used since they were last noted.
        ingestions: limits how many files are read at once.
    """

    settings: Settings
    engine: Engine
    artifacts: ArtifactStore
    planner: Planner
    streams: Streams
    delivery: Delivery
    readiness: Readiness
    measured: CollectorRegistry
    loop: asyncio.AbstractEventLoop
    outbox_filled: asyncio.Event
    used_keys: set[str] = field(default_factory=set)
    ingestions: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(INGESTIONS_AT_ONCE))

    def wake_relay(self) -> None:
        """Have the outbox looked at now; callable from any thread."""
        self.loop.call_soon_threadsafe(self.outbox_filled.set)


async def _services(request: Request) -> ServiceSet:
    services: ServiceSet = request.app.state.services
    return services


async def _caller(request: Request) -> Principal:
    principal: Principal | None = request.scope["state"].get("principal")
    if principal is None:
        raise Unauthenticated("no key was sent; send it as: Authorization: Bearer cw_...")
    return principal


async def _request_id(request: Request) -> str:
    return request_id_of(request)


async def _permitted(request: Request) -> None:
    principal: Principal | None = request.scope["state"].get("principal")
    require_permission(principal, request.scope["route"].name)


Permitted = Depends(_permitted)
"""On every route: the caller's role may use it."""
Services = Annotated[ServiceSet, Depends(_services)]
Caller = Annotated[Principal, Depends(_caller)]
RequestId = Annotated[str, Depends(_request_id)]
"""What the logs call the request, and every line about what it brings about."""
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        description="Sent again with the same body within 24 hours, gives the first answer instead of a "
        "second object, and says so by `Idempotent-Replayed`; with another body it is an error.",
    ),
]
IfMatch = Annotated[str | None, Header(alias="If-Match", max_length=200)]
IfNoneMatch = Annotated[str | None, Header(alias="If-None-Match", max_length=200)]
Limit = Annotated[int, Query(ge=1, le=100, description="How many of them.")]
After = Annotated[str | None, Query(max_length=2000, description="`next_cursor` of the page before.")]
JobId = Annotated[str, Path(max_length=100)]
WorkerId = Annotated[str, Path(max_length=100)]
