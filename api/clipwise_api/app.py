"""The application: routes, errors, access and the dashboard around one set of services."""

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute

import clipwise
from clipwise.settings import Settings
from clipwise_api import errors
from clipwise_api.documents import EVERY_ROUTE
from clipwise_api.routes import access, catalogue, datasets, fleet, health, job_outputs, jobs

ROUTERS: tuple[APIRouter, ...] = (
    jobs.router,
    job_outputs.router,
    datasets.router,
    catalogue.router,
    fleet.router,
    access.router,
    health.router,
)


def create_app(settings: Settings) -> FastAPI:
    """Return the application; it touches database and broker only once it starts."""
    app = FastAPI(
        title="Clipwise",
        version=clipwise.__version__,
        summary="Training jobs with per-sample gradient clipping and differential privacy.",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=_operation_id,
    )
    for router in ROUTERS:
        app.include_router(router, responses=EVERY_ROUTE)
    errors.install(app)
    app.state.settings = settings
    return app


def _operation_id(route: APIRoute) -> str:
    return route.name
