"""Artifacts on their way to the client, streamed from the artifact store."""

import re
from collections.abc import Iterator
from typing import IO
from urllib.parse import quote

from starlette.responses import Response, StreamingResponse

from clipwise.errors import NotFound, Unavailable
from clipwise_api.caching import names
from clipwise_api.principals import Principal
from clipwise_api.services import ServiceSet
from clipwise_api.views import outputs

CHUNK_BYTES = 2**20


def artifact(
    services: ServiceSet, who: Principal, job_id: str, name: str, if_none_match: str | None
) -> Response:
    """Return one file of a job as a download.

    Raises:
        Unavailable: if the artifact store does not give it.
    """
    row = outputs.artifact(services, who, job_id, name)
    headers = {
        "ETag": f'"{row.sha256}"',
        "Cache-Control": "private, no-cache",
        "Content-Disposition": disposition(row.name),
        "Content-Length": str(row.size),
    }
    if if_none_match is not None and names(if_none_match, headers["ETag"]):
        return Response(status_code=304, headers={"ETag": headers["ETag"]})
    try:
        file = services.artifacts.open(row.key)
    except NotFound as error:
        raise Unavailable(f"the file '{name}' of job '{job_id}' is missing in the artifact store") from error
    return StreamingResponse(_chunks(file), headers=headers, media_type="application/octet-stream")


def disposition(name: str) -> str:
    """Return a Content-Disposition that no name can break out of."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
