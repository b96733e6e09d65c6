"""Every error that Clipwise raises on purpose, in one tree.

    ClipwiseError                 the root; `code` is stable, `detail` is for people
    ├── InvalidInput              what was given cannot be used: 422
    │   ├── InvalidSpec           a job's specification, with one Problem per field
    │   ├── InvalidData           a file's content, with row and column where known
    │   ├── InvalidSchema         a data set's schema, with one Problem per field
    │   ├── UnsupportedModule     a module that has no per-sample gradients
    │   └── InvalidState          a state that does not belong to this optimizer or model
    ├── TooLarge                  an upload over its limit: 413
    ├── Unauthenticated           no key, or one that is not known: 401
    ├── Forbidden                 a key whose role may not do this: 403
    ├── NotFound                  nothing has this id: 404
    ├── Conflict                  it cannot be done to this thing now: 409
    │   ├── IllegalTransition     a job's status does not allow it; `allowed` lists what it does
    │   └── IdempotencyMismatch   the same Idempotency-Key with another body
    ├── PreconditionFailed        If-Match names another version: 412
    ├── StaleToken                an attempt that has lost its job tried to write
    ├── PlanPending               a plan is still being computed: 202
    ├── Unavailable               something that Clipwise needs is away: 503
    └── ConfigurationError        a setting or the installation is wrong

The api maps this tree to HTTP in one table (`clipwise_api.errors`).
"""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing wrong with one field of the input.

    Attributes:
        pointer: JSON pointer (RFC 6901) to the field, `""` for the whole document.
        detail: what is wrong and the way out, in one sentence.
        code: stable name of the kind of problem.
    """

    pointer: str
    detail: str
    code: str = "invalid"


class ClipwiseError(Exception):
    """Root of every deliberate error; the message says what to do."""

    code: ClassVar[str] = "internal"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class InvalidInput(ClipwiseError):
    """What was given cannot be used; `problems` names each field."""

    code: ClassVar[str] = "invalid_input"

    def __init__(self, detail: str, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(detail)
        self.problems = problems


class InvalidSpec(InvalidInput):
    """A job's specification is wrong."""

    code: ClassVar[str] = "invalid_spec"


class InvalidSchema(InvalidInput):
    """A data set's schema is wrong, or does not fit its file."""

    code: ClassVar[str] = "invalid_schema"


class InvalidData(InvalidInput):
    """A file cannot be read as a data set.

    Attributes:
        row: first offending row, counted from 1 without the header, if known.
        column: name of the offending column, if known.
    """

    code: ClassVar[str] = "invalid_data"

    def __init__(self, detail: str, *, row: int | None = None, column: str | None = None) -> None:
        super().__init__(detail)
        self.row = row
        self.column = column


class UnsupportedModule(InvalidInput):
    """A module that has no per-sample gradients, or that the engine cannot take.

    Attributes:
        path: dotted path of the offending submodule, `""` for the root.
    """

    code: ClassVar[str] = "unsupported_module"

    def __init__(self, path: str, detail: str) -> None:
        super().__init__(f"module '{path or '(root)'}': {detail}")
        self.path = path


class InvalidState(InvalidInput):
    """A state that does not belong to this optimizer or model; nothing was changed."""

    code: ClassVar[str] = "invalid_state"


class TooLarge(ClipwiseError):
    """An upload is over its limit."""

    code: ClassVar[str] = "too_large"


class Unauthenticated(ClipwiseError):
    """No key was sent, or one that is not known."""

    code: ClassVar[str] = "unauthenticated"


class Forbidden(ClipwiseError):
    """The key's role may not do this."""

    code: ClassVar[str] = "forbidden"


class NotFound(ClipwiseError):
    """Nothing has this id or name."""

    code: ClassVar[str] = "not_found"


class Conflict(ClipwiseError):
    """It cannot be done to this thing now."""

    code: ClassVar[str] = "conflict"


class IllegalTransition(Conflict):
    """A job's status does not allow this verb.

    Attributes:
        allowed: the verbs that its status does allow.
    """

    code: ClassVar[str] = "illegal_transition"

    def __init__(self, detail: str, allowed: tuple[str, ...]) -> None:
        super().__init__(detail)
        self.allowed = allowed


class IdempotencyMismatch(Conflict):
    """The same Idempotency-Key was used with another request."""

    code: ClassVar[str] = "idempotency_mismatch"


class PreconditionFailed(ClipwiseError):
    """If-Match names a version that is not the current one."""

    code: ClassVar[str] = "precondition_failed"


class StaleToken(ClipwiseError):
    """An attempt whose fencing token is no longer current tried to write; nothing was written."""

    code: ClassVar[str] = "stale_token"


class PlanPending(ClipwiseError):
    """A plan is still being computed; ask again after `retry_after` seconds."""

    code: ClassVar[str] = "plan_pending"

    def __init__(self, detail: str, retry_after: int) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class Unavailable(ClipwiseError):
    """Something that Clipwise needs (database, broker, artifact store) is away."""

    code: ClassVar[str] = "unavailable"


class ConfigurationError(ClipwiseError):
    """A setting or the installation is wrong; the message names it."""

    code: ClassVar[str] = "configuration"
