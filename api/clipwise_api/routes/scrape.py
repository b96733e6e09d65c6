"""What Prometheus asks for."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from clipwise_api.services import Services

router = APIRouter()


@router.get("/metrics", include_in_schema=False)
def scrape(services: Services) -> Response:
    """Give every metric of the service and of this process, as text."""
    headers = {"Content-Type": CONTENT_TYPE_PLAIN_0_0_4, "Cache-Control": "no-store"}
    return Response(generate_latest(services.measured), headers=headers)
