"""Artifacts on disk: whole and as announced, or not at all."""

import hashlib
import os
import tempfile
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import httpx

from clipwise.client.errors import DownloadFailed
from clipwise.client.transport import Transport
from clipwise.wire.jobs import Artifact


def download(transport: Transport, job_id: str, artifact: Artifact, target: Path) -> Path:
    """Write an artifact beside `target`, check its SHA-256, and rename it.

    Raises:
        DownloadFailed: if it breaks off or its hash differs; nothing is left behind.
        ApiError: if the service refuses.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    aside = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            found = _receive(transport, f"/v1/jobs/{job_id}/artifacts/{quote(artifact.name, safe='')}", file)
        if found != artifact.sha256:
            raise DownloadFailed(
                f"'{artifact.name}' of {job_id} arrived with SHA-256 {found}, "
                f"the service announced {artifact.sha256}; nothing was kept, try again"
            )
        # mkstemp makes files that only their owner reads; this one gets what the user's umask says.
        aside.chmod(0o666 & ~_umask())
        return aside.replace(target)
    except httpx.TransportError as error:
        raise DownloadFailed(
            f"'{artifact.name}' of {job_id} broke off ({error}); nothing was kept, try again"
        ) from error
    finally:
        aside.unlink(missing_ok=True)


def _receive(transport: Transport, path: str, file: BinaryIO) -> str:
    digest = hashlib.sha256()
    with transport.streaming(path, headers={"Accept": "application/octet-stream, */*"}) as response:
        for chunk in response.iter_bytes():
            file.write(chunk)
            digest.update(chunk)
    return digest.hexdigest()


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
