"""Who is asking, and what each role may do: one table, route by route."""

from dataclasses import dataclass

from clipwise.errors import Forbidden
from clipwise.wire.fleet import Role

OWNER: frozenset[Role] = frozenset({"owner"})
DATA: frozenset[Role] = frozenset({"owner", "analyst"})
MACHINES: frozenset[Role] = frozenset({"owner", "operator"})
EVERYONE: frozenset[Role] = frozenset({"owner", "analyst", "operator"})
NO_KEY: None = None

PERMISSIONS: dict[str, frozenset[Role] | None] = {
    "healthz": NO_KEY,
    "readyz": NO_KEY,
    "create_session": NO_KEY,
    "get_openapi": EVERYONE,
    "get_session": EVERYONE,
    "delete_session": EVERYONE,
    "create_sign_in_link": EVERYONE,
    "create_api_key": OWNER,
    "list_api_keys": OWNER,
    "delete_api_key": OWNER,
    "create_job": DATA,
    "list_jobs": DATA,
    "validate_job": DATA,
    "get_job": DATA,
    "bulk_jobs": DATA,
    "cancel_job": DATA,
    "pause_job": DATA,
    "resume_job": DATA,
    "retry_job": DATA,
    "clone_job": DATA,
    "delete_job": DATA,
    "list_events": DATA,
    "get_metrics": DATA,
    "list_logs": DATA,
    "list_attempts": DATA,
    "list_checkpoints": DATA,
    "download_checkpoint": DATA,
    "list_artifacts": DATA,
    "download_artifact": DATA,
    "create_dataset": OWNER,
    "list_datasets": DATA,
    "get_dataset": DATA,
    "confirm_dataset_schema": OWNER,
    "delete_dataset": OWNER,
    "list_populations": DATA,
    "list_models": EVERYONE,
    "get_model": EVERYONE,
    "list_optimizer_modules": EVERYONE,
    "scrape": MACHINES,
    "list_workers": MACHINES,
    "drain_worker": MACHINES,
    "undrain_worker": MACHINES,
    "list_queues": EVERYONE,
}
"""The roles that may use each operation; `NO_KEY` needs none. An operation that is missing is refused."""


@dataclass(frozen=True, kw_only=True)
class Principal:
    """A key, or the browser session of one.

    Attributes:
        session_hash: hash of the session's cookie when a browser asks, else null.
        csrf_token: what the session's changes must carry.
    """

    key_id: str
    name: str
    role: Role
    session_hash: str | None = None
    csrf_token: str | None = None

    @property
    def is_owner(self) -> bool:
        """Whether exact numbers of private populations may be shown."""
        return self.role == "owner"


def require_permission(principal: Principal | None, operation: str) -> None:
    """Check that the principal's role may use an operation.

    Raises:
        Forbidden: if not.
    """
    allowed = PERMISSIONS.get(operation, frozenset())
    if allowed is None:
        return
    if principal is None or principal.role not in allowed:
        role = principal.role if principal else "nobody"
        raise Forbidden(
            f"a key with the role '{role}' may not {operation.replace('_', ' ')}; "
            f"it takes one with the role {' or '.join(sorted(allowed)) or 'of a later version'}"
        )
