"""The port that the embedded service listens on."""

import errno
import socket
from collections.abc import Callable

from clipwise.errors import ConfigurationError

WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # the addresses are compared, not bound


def choose_port(host: str, port: int, *, given: bool, say: Callable[[str], None]) -> int:
    """Return the port to listen on: `port`, or a free one where that is 0 or was nobody's wish.

    Args:
        host: the address to listen on.
        port: the wanted port.
        given: whether the user set it, so that no other will do.
        say: told when another port is taken.

    Raises:
        ConfigurationError: if the wanted port is in use, or `host` is not this machine's.
    """
    found = _try(host, port)
    if found is not None:
        return found
    if given:
        raise ConfigurationError(
            f"CLIPWISE_PORT is {port}, which another program listens on; stop that one, or set another port"
        )
    free = _try(host, 0)
    if free is None:
        raise ConfigurationError(f"no port is free on {host}")
    say(f"Port {port} is in use by another program: using {free} (CLIPWISE_PORT sets one).")
    return free


def reachable_url(host: str, port: int) -> str:
    """Return the URL at which this machine reaches a server that listens on `host`."""
    name = WILDCARDS.get(host, host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def _try(host: str, port: int) -> int | None:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
    except OSError as error:
        raise ConfigurationError(
            f"CLIPWISE_HOST is '{host}', which is no address ({error}); give 127.0.0.1"
        ) from error
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except PermissionError as error:
            raise ConfigurationError(
                f"CLIPWISE_PORT is {port}, which only root may use; give one above 1023"
            ) from error
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise ConfigurationError(
                    f"CLIPWISE_HOST is '{host}', which is no address of this machine; give 127.0.0.1"
                ) from error
            return None
        bound: int = probe.getsockname()[1]
        return bound
