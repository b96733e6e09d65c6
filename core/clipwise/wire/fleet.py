"""Workers, queues and access on the wire."""

from typing import Any, Literal

from clipwise.wire.listing import UtcTime, WireObject

Role = Literal["owner", "analyst", "operator"]


class Worker(WireObject):
    """A process that runs attempts."""

    id: str
    object: Literal["worker"] = "worker"
    host: str
    queues: list[str]
    slots: int
    kinds: list[str]
    versions: dict[str, str]
    alive: bool
    current_jobs: list[str]
    started_at: UtcTime
    heartbeat_at: UtcTime


class Queue(WireObject):
    """A queue with what waits in it and who serves it."""

    name: str
    object: Literal["queue"] = "queue"
    queued: int
    running: int
    workers: int


class ApiKey(WireObject):
    """A key; `secret` is shown once, in the answer to its creation."""

    id: str
    object: Literal["api_key"] = "api_key"
    name: str
    role: Role
    prefix: str
    secret: str | None = None
    created_at: UtcTime
    last_used_at: UtcTime | None


class Session(WireObject):
    """A signed-in browser: who it is, and the token that its changes must carry in `X-CSRF-Token`."""

    object: Literal["session"] = "session"
    name: str
    role: Role
    csrf_token: str


class SignInLink(WireObject):
    """A link that signs one browser in, once, within minutes. The token is in the fragment: never sent."""

    object: Literal["sign_in_link"] = "sign_in_link"
    url: str
    expires_at: UtcTime


class Health(WireObject):
    """The state of a process or of what it needs."""

    status: Literal["ok", "unavailable"]
    checks: dict[str, Any] = {}
