"""The data folder: made for its owner alone, and held by one service at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clipwise.client.location import SERVICE_FILE, ServiceFile
from clipwise.errors import ConfigurationError

LOCK_FILE = "service.lock"


class AlreadyRunning(ConfigurationError):
    """Another `clipwise up` serves this data folder."""

    code = "already_running"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Make the folder and hold it; the system lets go of it when this process ends, however it does.

    Raises:
        AlreadyRunning: if another process holds it; says where that one serves.
        ConfigurationError: if the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / "logs").mkdir(exist_ok=True, mode=0o700)
        descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigurationError(
            f"CLIPWISE_DATA_DIR is '{folder}', which cannot be used ({error.strerror}); "
            "name a folder that you may write to"
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise AlreadyRunning(_who_holds(folder)) from error
        # What a killed service left would send clients to a place where nobody is.
        (folder / SERVICE_FILE).unlink(missing_ok=True)
        try:
            yield
        finally:
            with suppress(OSError):
                (folder / SERVICE_FILE).unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _who_holds(folder: Path) -> str:
    running = ServiceFile.read(folder)
    if running is None:
        return f"a service is just starting or stopping on '{folder}'; try again in a few seconds"
    return (
        f"the service of '{folder}' runs already, at {running.url} (process {running.pid}); "
        "'clipwise signin' gives a link to its dashboard"
    )
