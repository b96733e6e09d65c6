"""Whether the process lives, and whether it can do its work. No key is needed, no detail is shown."""

from fastapi import APIRouter, Response

from clipwise.wire.fleet import Health
from clipwise_api.bodies import JsonRoute
from clipwise_api.documents import problems
from clipwise_api.services import Services

router = APIRouter(tags=["health"], route_class=JsonRoute)


@router.get("/healthz", responses=problems())
async def healthz() -> Health:
    """Answer as long as the process lives."""
    return Health(status="ok")


@router.get(
    "/readyz", responses={503: {"model": Health, "description": "Something vital is away."}, **problems()}
)
async def readyz(services: Services, response: Response) -> Health:
    """Check database, revision, artifact store and broker; without the broker the status is `degraded`."""
    health = await services.readiness.check()
    if health.status == "unavailable":
        response.status_code = 503
    return health
