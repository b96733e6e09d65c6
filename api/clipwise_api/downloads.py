"""Artifacts and checkpoints on their way to the client, streamed from the artifact store."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO
from urllib.parse import quote

from starlette.responses import Response, StreamingResponse

from clipwise.errors import NotFound, Unavailable
from clipwise_api.caching import names
from clipwise_api.principals import Principal
from clipwise_api.services import ServiceSet
from clipwise_api.views import attempts, outputs

CHUNK_BYTES = 2**20


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """A file as it lies in the artifact store, and what a client calls it."""

    name: str
    key: str
    size: int
    sha256: str


def artifact(
    services: ServiceSet, who: Principal, job_id: str, name: str, if_none_match: str | None
) -> Response:
    """Return one file of a job as a download.

    Raises:
        Unavailable: if the artifact store does not give it.
    """
    row = outputs.artifact(services, who, job_id, name)
    file = _Stored(name=row.name, key=row.key, size=row.size, sha256=row.sha256)
    return _download(services, file, job_id, if_none_match)


def checkpoint(
    services: ServiceSet, who: Principal, job_id: str, step: int, if_none_match: str | None
) -> Response:
    """Return one checkpoint of a job as a download.

    Raises:
        Unavailable: if the artifact store does not give it.
    """
    row = attempts.checkpoint(services, who, job_id, step)
    file = _Stored(name=f"checkpoint-{step}.safetensors", key=row.key, size=row.size, sha256=row.sha256)
    return _download(services, file, job_id, if_none_match)


def disposition(name: str) -> str:
    """Return a Content-Disposition that no name can break out of."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _download(services: ServiceSet, file: _Stored, job_id: str, if_none_match: str | None) -> Response:
    headers = {
        "ETag": f'"{file.sha256}"',
        "Cache-Control": "private, no-cache",
        "Content-Disposition": disposition(file.name),
        "Content-Length": str(file.size),
    }
    if if_none_match is not None and names(if_none_match, headers["ETag"]):
        return Response(status_code=304, headers={"ETag": headers["ETag"]})
    try:
        opened = services.artifacts.open(file.key)
    except NotFound as error:
        detail = f"the file '{file.name}' of job '{job_id}' is missing in the artifact store"
        raise Unavailable(detail) from error
    return StreamingResponse(_chunks(opened), headers=headers, media_type="application/octet-stream")


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
