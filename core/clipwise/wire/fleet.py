"""Workers, queues and access on the wire."""

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from clipwise.wire.listing import UtcTime, WireObject

Role = Literal["owner", "analyst", "operator"]


class Device(WireObject):
    """A GPU that a worker sees; `job_id` is the job that has it now."""

    uuid: str
    name: str
    memory_bytes: int | None
    job_id: str | None


class Worker(WireObject):
    """A process that runs attempts; one that is `draining` takes no new ones."""

    id: str
    object: Literal["worker"] = "worker"
    host: str
    queues: list[str]
    slots: int
    kinds: list[str]
    versions: dict[str, str]
    devices: list[Device] = []
    alive: bool
    draining: bool = False
    current_jobs: list[str]
    started_at: UtcTime
    heartbeat_at: UtcTime
    heartbeat_age_seconds: float = 0.0


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


class NewApiKey(WireObject):
    """What creates a key."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: Annotated[str, Field(min_length=1, max_length=100)]
    role: Role


class SignIn(WireObject):
    """What signs a browser in: the token of a sign-in link, or a key that was pasted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    token: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    api_key: Annotated[str, Field(min_length=1, max_length=200)] | None = None

    @model_validator(mode="after")
    def _one_secret(self) -> Self:
        if (self.token is None) == (self.api_key is None):
            raise ValueError("give either 'token' or 'api_key', not both and not neither")
        return self


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
    """The state of a process or of what it needs; `degraded`: it works, but something is away."""

    status: Literal["ok", "degraded", "unavailable"]
    checks: dict[str, Any] = {}
