"""The server around the application: uvicorn, with event streams that end when it begins to stop."""

import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError

from clipwise import logs
from clipwise.errors import ClipwiseError, ConfigurationError
from clipwise.settings import Settings
from clipwise_api.app import create_app
from clipwise_api.services import ServiceSet

log = logging.getLogger(__name__)

GRACE_SECONDS = 3
KEEP_ALIVE_SECONDS = 30
BACKLOG = 2048
STOPPING_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Server(uvicorn.Server):
    """uvicorn's server; it would wait for open event streams, so they are closed first."""

    def __init__(self, app: FastAPI) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                ws="none",
                timeout_graceful_shutdown=GRACE_SECONDS,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
            )
        )
        self._application = app

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on SIGINT and SIGTERM, and leave it at that: uvicorn would raise them again afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in STOPPING_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the event streams, then everything else."""
        services: ServiceSet | None = getattr(self._application.state, "services", None)
        if services is not None:
            services.streams.close()
        await super().shutdown(sockets)


def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM; then stop within five seconds.

    Raises:
        ConfigurationError: if the address cannot be listened on, or the service is not set up.
    """
    listening = listen(settings.host, settings.port)
    bound = settings.model_copy(update={"port": listening.getsockname()[1]})
    app = create_app(bound)
    log.info("listening on %s port %d", bound.host, bound.port)
    # What is there now stays until the end. Left to the collector, it is gone through every so often,
    # which holds every request up for some 80 ms.
    gc.collect()
    gc.freeze()
    with listening:
        Server(app).run(sockets=[listening])


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes a free one.

    Raises:
        ConfigurationError: if the address is taken or is not one of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {host} port {port} ({error.strerror}); set CLIPWISE_HOST and CLIPWISE_PORT"
        ) from error
    return listening


def main() -> None:
    """Run the api from the command line."""
    logs.configure("api")
    try:
        settings = Settings()
        logs.configure("api", settings)
        serve(settings)
    except ValidationError as error:
        # What the settings hold is not repeated: it may be a secret.
        wrong = (
            f"CLIPWISE_{str(one['loc'][0]).upper()}: {one['msg']}"
            for one in error.errors(include_input=False)
        )
        sys.exit(f"clipwise api: {'; '.join(wrong)}; set it in the environment, or leave it out")
    except ClipwiseError as error:
        sys.exit(f"clipwise api: {error.detail}")
    except KeyboardInterrupt:
        pass
    logging.shutdown()
    # Everything has ended that was asked to; a thread that hangs on a broker would be waited for.
    os._exit(0)
