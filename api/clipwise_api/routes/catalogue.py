"""The catalogue: models and optimizer modules, each with its JSON schema."""

from fastapi import APIRouter

from clipwise.wire.jobs import KindDescription
from clipwise.wire.listing import Page
from clipwise_api.bodies import JsonRoute
from clipwise_api.documents import problems
from clipwise_api.services import Services
from clipwise_api.views import catalogue

router = APIRouter(prefix="/v1", tags=["catalogue"], route_class=JsonRoute)


@router.get("/models", responses=problems())
def list_models(services: Services) -> Page[KindDescription]:
    """List the kinds of models; `workers` counts the running workers that have each."""
    return Page(data=catalogue.models(services))


@router.get("/models/{kind}", responses=problems(404))
def get_model(kind: str, services: Services) -> KindDescription:
    """Return one kind of model."""
    return catalogue.model(services, kind)


@router.get("/optimizer_modules", responses=problems())
def list_optimizer_modules() -> Page[KindDescription]:
    """List the plug-ins of the optimizer."""
    return Page(data=catalogue.optimizer_modules())
