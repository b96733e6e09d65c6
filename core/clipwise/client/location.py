"""Where the service is and which key opens it: arguments, then the environment, then the embedded service.

Reads the environment by itself, so that a client needs none of the service's packages.
"""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx

from clipwise.client.errors import ServiceUnreachable
from clipwise.errors import ConfigurationError

SERVICE_FILE = "service.json"
KEY_FILE = "api_key"
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
DEFAULT_URL = "http://127.0.0.1:8470"


def data_dir() -> Path:
    """Return the embedded service's folder: `CLIPWISE_DATA_DIR`, or the user's data folder."""
    given = os.environ.get("CLIPWISE_DATA_DIR")
    if given:
        return Path(given)
    from platformdirs import user_data_path

    return user_data_path("clipwise")


@dataclass(frozen=True, kw_only=True)
class ServiceFile:
    """What a running embedded service says of itself in its data folder."""

    url: str
    pid: int

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Return what `folder` says, or None where no service runs on it."""
        try:
            content: dict[str, Any] = json.loads((folder / SERVICE_FILE).read_text())
            found = cls(url=str(content["url"]), pid=int(content["pid"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found if _is_alive(found.pid) else None

    def write(self, folder: Path) -> None:
        """Write it aside and rename it, so that no reader sees half of it."""
        aside = folder / f".{SERVICE_FILE}.new"
        aside.write_text(json.dumps({"url": self.url, "pid": self.pid}) + "\n")
        aside.replace(folder / SERVICE_FILE)


@dataclass(frozen=True, kw_only=True)
class Location:
    """A service's address and the key for it; the key is in no repr."""

    url: str
    key: str | None = field(repr=False)

    @property
    def is_loopback(self) -> bool:
        """Whether the service is on this machine."""
        return httpx.URL(self.url).host in LOOPBACK


def locate(base_url: str | None = None, api_key: str | None = None) -> Location:
    """Find the service and its key.

    The embedded service's own key is only ever sent to the embedded service: never to an address that
    was given by argument or environment, unless that is the embedded service's.

    Raises:
        ConfigurationError: if the address is no http(s) URL, or has a user or password in it.
        ServiceUnreachable: if no address was given and no embedded service runs.
    """
    given = base_url or os.environ.get("CLIPWISE_URL")
    key = api_key or os.environ.get("CLIPWISE_API_KEY") or None  # an empty variable is no key
    folder = data_dir()
    running = ServiceFile.read(folder)
    url = _checked(given or (running.url if running else _default_url(folder)))
    if key is None and (given is None or (running is not None and url == running.url)):
        key = _key_of(folder)
    return Location(url=url, key=key)


def _default_url(folder: Path) -> str:
    # `clipwise api` by itself writes no service file: its port is then the default or the environment's.
    port = os.environ.get("CLIPWISE_PORT")
    if not (folder / KEY_FILE).exists() and not os.environ.get("CLIPWISE_API_KEY"):
        raise ServiceUnreachable(
            f"no service runs on '{folder}': start it with 'clipwise up', "
            "or set CLIPWISE_URL and CLIPWISE_API_KEY to those of another one"
        )
    return f"http://127.0.0.1:{port}" if port and port != "0" else DEFAULT_URL


def _checked(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ConfigurationError(
            f"CLIPWISE_URL is no URL ({error}); give one such as {DEFAULT_URL}"
        ) from error
    if parsed.userinfo or parsed.query or parsed.fragment:
        raise ConfigurationError(
            "CLIPWISE_URL must carry no user, password, query or fragment; the key goes into CLIPWISE_API_KEY"
        )
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigurationError(f"CLIPWISE_URL is '{url}'; give an http(s) URL such as {DEFAULT_URL}")
    return url.rstrip("/")


def _key_of(folder: Path) -> str | None:
    try:
        return (folder / KEY_FILE).read_text().strip() or None
    except OSError:
        return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
