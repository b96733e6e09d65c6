"""Workers and queues."""

from fastapi import APIRouter

from clipwise.wire.fleet import Queue, Worker
from clipwise.wire.listing import Page
from clipwise_api.bodies import JsonRoute
from clipwise_api.documents import problems
from clipwise_api.services import Services
from clipwise_api.views import fleet

router = APIRouter(prefix="/v1", tags=["fleet"], route_class=JsonRoute)


@router.get("/workers", responses=problems())
def list_workers(services: Services) -> Page[Worker]:
    """List the workers that run, and those that stopped within the last day."""
    return Page(data=fleet.workers_view(services))


@router.get("/queues", responses=problems())
def list_queues(services: Services) -> Page[Queue]:
    """List the queues with what waits in each and how many workers serve it."""
    return Page(data=fleet.queues(services))
