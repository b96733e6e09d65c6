"""The application: routes, errors, access and the dashboard around one set of services."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio.to_thread
from fastapi import APIRouter, FastAPI, Request
from fastapi.routing import APIRoute
from prometheus_client import (
    CollectorRegistry,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from starlette.responses import JSONResponse

import clipwise
from clipwise.artifacts import ArtifactStore
from clipwise.settings import Settings
from clipwise.store import builtins, keys
from clipwise.store.migration import require_current
from clipwise.store.sessions import connect
from clipwise_api import errors
from clipwise_api.dashboard import Dashboard
from clipwise_api.delivery import Delivery
from clipwise_api.documents import EVERY_ROUTE
from clipwise_api.envelope import Envelope
from clipwise_api.fleet_collector import FleetCollector
from clipwise_api.gate import Gate
from clipwise_api.planner import Planner
from clipwise_api.readiness import Readiness
from clipwise_api.routes import access, catalogue, datasets, fleet, health, job_outputs, jobs, scrape
from clipwise_api.services import Permitted, ServiceSet
from clipwise_api.streams import Streams
from clipwise_api.traffic import Traffic
from clipwise_api.upkeep import Upkeep

ROUTERS: tuple[APIRouter, ...] = (
    jobs.router,
    job_outputs.router,
    datasets.router,
    catalogue.router,
    fleet.router,
    access.router,
    health.router,
    scrape.router,
)
REQUEST_THREADS = 16
"""Requests in work at once: never more than the database's pool has connections."""


def create_app(settings: Settings) -> FastAPI:
    """Return the application; it touches database and broker only once it starts."""
    app = FastAPI(
        title="Clipwise",
        version=clipwise.__version__,
        summary="Training jobs with per-sample gradient clipping and differential privacy.",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan,
        generate_unique_id_function=_operation_id,
    )
    disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, of no use to anybody
    measured = CollectorRegistry()
    app.state.measured = measured
    app.state.settings = settings
    app.state.routers = ROUTERS
    for router in ROUTERS:
        app.include_router(router, responses=EVERY_ROUTE, dependencies=[Permitted])
    app.router.add_api_route(
        "/openapi.json", _document, name="get_openapi", include_in_schema=False, dependencies=[Permitted]
    )
    app.router.default = Dashboard()
    errors.install(app)
    app.add_middleware(Gate, settings=settings)
    app.add_middleware(Envelope, traffic=Traffic(measured))
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    anyio.to_thread.current_default_thread_limiter().total_tokens = REQUEST_THREADS
    services = await asyncio.to_thread(_start, settings, app.state.measured, asyncio.get_running_loop())
    app.state.services = services
    upkeep = asyncio.create_task(Upkeep(services).run())
    try:
        yield
    finally:
        services.streams.close()
        upkeep.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await upkeep
        services.planner.close()
        services.engine.dispose()


def _start(settings: Settings, measured: CollectorRegistry, loop: asyncio.AbstractEventLoop) -> ServiceSet:
    engine = connect(settings.database)
    require_current(engine)
    given = (settings.api_key.get_secret_value() or None) if settings.api_key else None
    keys.ensure_first_key(engine, given, settings.key_file)
    builtins.seed(engine)
    outbox_filled = asyncio.Event()
    artifacts, streams = ArtifactStore(settings.artifacts), Streams(engine)
    delivery = Delivery(settings, engine)
    for collector in (
        FleetCollector(engine, streams),
        ProcessCollector(registry=None),
        PlatformCollector(None),
    ):
        measured.register(collector)
    return ServiceSet(
        settings=settings,
        engine=engine,
        artifacts=artifacts,
        planner=Planner(engine, loop, outbox_filled.set),
        streams=streams,
        delivery=delivery,
        readiness=Readiness(settings.database, artifacts, delivery),
        measured=measured,
        loop=loop,
        outbox_filled=outbox_filled,
    )


async def _document(request: Request) -> JSONResponse:
    from clipwise_api.openapi import document  # it needs this module

    return JSONResponse(document(request.app))


def _operation_id(route: APIRoute) -> str:
    return route.name
