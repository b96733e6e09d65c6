"""Data sets and populations: upload, look at, confirm, delete."""

from functools import partial
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request, Response

from clipwise.data.schema import DatasetSchema
from clipwise.wire.datasets import Dataset, Population
from clipwise.wire.jobs import Deleted
from clipwise.wire.listing import Page
from clipwise_api import registration
from clipwise_api.bodies import JsonRoute
from clipwise_api.caching import etag, not_modified
from clipwise_api.documents import problems
from clipwise_api.services import After, Caller, IdempotencyKey, IfMatch, IfNoneMatch, Limit, Services
from clipwise_api.uploads import receive
from clipwise_api.views import datasets as views

router = APIRouter(prefix="/v1", tags=["datasets"], route_class=JsonRoute)

UPLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "name"],
                    "properties": {
                        "file": {"type": "string", "format": "binary", "description": "CSV, Parquet or NPZ."},
                        "name": {"type": "string", "minLength": 1, "maxLength": 200},
                        "schema": {"type": "string", "description": "JSON; without, one is proposed."},
                        "population": {"type": "string", "description": "Whom the rows are about."},
                        "visibility": {"type": "string", "enum": ["public", "private"]},
                        "max_rows_per_person": {
                            "type": "integer",
                            "minimum": 1,
                            "description": "How many rows one person may own; 1 when a row is all they have.",
                        },
                        "target": {"type": "string", "description": "Column to predict, for the proposal."},
                    },
                }
            }
        },
    }
}


@router.post("/datasets", status_code=201, responses=problems(409, 413, 415), openapi_extra=UPLOAD)
async def create_dataset(
    request: Request,
    who: Caller,
    services: Services,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> Dataset:
    """Upload a data set. Without a schema it is `proposed` until its schema is confirmed."""
    async with receive(request, services.artifacts, services.settings.max_upload_bytes) as upload:
        register = partial(registration.register, services, who, upload, idempotency_key)
        dataset, replayed = await to_thread.run_sync(register, limiter=services.ingestions)
    response.headers["Location"] = f"/v1/datasets/{dataset.id}"
    if replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return dataset


@router.get("/datasets", responses=problems())
def list_datasets(who: Caller, services: Services, limit: Limit = 20, after: After = None) -> Page[Dataset]:
    """List data sets, the newest first."""
    return views.page(services, who, limit, after)


@router.get("/datasets/{dataset_id}", responses={304: {"description": "Not changed."}, **problems(404)})
def get_dataset(
    dataset_id: str, who: Caller, services: Services, response: Response, if_none_match: IfNoneMatch = None
) -> Dataset:
    """Return one data set, by its id or its name."""
    dataset = views.one(services, who, dataset_id)
    response.headers["ETag"] = etag(dataset)
    not_modified(dataset, if_none_match)
    return dataset


@router.put("/datasets/{dataset_id}/schema", responses=problems(404, 409, 412, 413, 415))
async def confirm_dataset_schema(
    dataset_id: str, schema: DatasetSchema, who: Caller, services: Services, if_match: IfMatch = None
) -> Dataset:
    """Confirm the proposed schema, or replace it."""
    confirm = partial(registration.confirm, services, who, dataset_id, schema, if_match)
    return await to_thread.run_sync(confirm, limiter=services.ingestions)


@router.delete("/datasets/{dataset_id}", responses=problems(404, 409, 412))
def delete_dataset(dataset_id: str, who: Caller, services: Services, if_match: IfMatch = None) -> Deleted:
    """Delete a data set and its files. Its jobs stay."""
    return registration.delete(services, who, dataset_id, if_match)


@router.get("/populations", responses=problems())
def list_populations(who: Caller, services: Services) -> Page[Population]:
    """List the populations that data sets are about."""
    return views.populations(services, who)
