"""Artifacts and checkpoints on disk: whole and as announced, or not at all."""

import hashlib
import os
import tempfile
from pathlib import Path
from typing import BinaryIO

import httpx

from clipwise.client.errors import DownloadFailed
from clipwise.client.transport import Transport


def download(transport: Transport, path: str, target: Path, *, what: str, sha256: str) -> Path:
    """Write the file at `path` beside `target`, check its SHA-256, and rename it; `what` is for messages.

    Raises:
        DownloadFailed: if it breaks off or its hash differs; nothing is left behind.
        ApiError: if the service refuses.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    aside = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            found = _receive(transport, path, file)
        if found != sha256:
            raise DownloadFailed(
                f"{what} arrived with SHA-256 {found}, the service announced {sha256}; "
                "nothing was kept, try again"
            )
        # mkstemp makes files that only their owner reads; this one gets what the user's umask says.
        aside.chmod(0o666 & ~_umask())
        return aside.replace(target)
    except httpx.TransportError as error:
        raise DownloadFailed(f"{what} broke off ({error}); nothing was kept, try again") from error
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
