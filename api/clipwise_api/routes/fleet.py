"""Workers, and draining them; queues."""

from fastapi import APIRouter

from clipwise.wire.fleet import Queue, Worker
from clipwise.wire.listing import Page
from clipwise_api.bodies import JsonRoute
from clipwise_api.documents import problems
from clipwise_api.services import Services, WorkerId
from clipwise_api.views import fleet

router = APIRouter(prefix="/v1", tags=["fleet"], route_class=JsonRoute)


@router.get("/workers", responses=problems())
def list_workers(services: Services) -> Page[Worker]:
    """List the workers that run, and those that stopped within the last day."""
    return Page(data=fleet.workers_view(services))


@router.post("/workers/{worker_id}/drain", responses=problems(404, 409))
def drain_worker(worker_id: WorkerId, services: Services) -> Worker:
    """Have a worker take no more jobs, and put back those that it has, each with a checkpoint."""
    return fleet.drain(services, worker_id, draining=True)


@router.post("/workers/{worker_id}/undrain", responses=problems(404, 409))
def undrain_worker(worker_id: WorkerId, services: Services) -> Worker:
    """Have a worker that was drained take jobs again."""
    return fleet.drain(services, worker_id, draining=False)


@router.get("/queues", responses=problems())
def list_queues(services: Services) -> Page[Queue]:
    """List the queues with what waits in each and how many workers serve it."""
    return Page(data=fleet.queues(services))
