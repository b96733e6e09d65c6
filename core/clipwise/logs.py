"""How a process logs: lines for people or JSON, with the ids of what is being done, and without secrets.

    logs.configure("worker", settings, worker_id=worker_id)
    with logs.context(job_id=attempt.job_id, attempt=attempt.number):
        log.info("the runner has started")

A context belongs to the thread or task that opened it, and to the tasks that are made inside of it; a new
thread starts without. What the whole process has in common is given to `configure`.
"""

import copy
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, final
from urllib.parse import unquote, urlsplit

from pythonjsonlogger.json import JsonFormatter

from clipwise.redaction import MASK, redacted

if TYPE_CHECKING:
    from clipwise.settings import Settings

LogFormat = Literal["text", "json"]

CHATTY = ("alembic", "amqp", "celery", "httpcore", "httpx", "kombu", "uvicorn.error")
"""Loggers of others, of which only warnings are worth a line."""
SHORTEST_SECRET = 6
"""A shorter password is none, and replacing it would tear words apart."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
_LINES: Mapping[LogFormat, logging.Formatter] = {
    "text": logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s%(ids)s"),
    "json": JsonFormatter(
        ["levelname", "name", "message"],
        timestamp=True,
        rename_fields={
            "levelname": "level",
            "name": "logger",
            "exc_info": "exception",
            "stack_info": "stack",
        },
        reserved_attrs=[*_STANDARD, "ids"],
        json_ensure_ascii=False,
    ),
}
_NO_IDS: Mapping[str, str | int] = MappingProxyType({})
_context: ContextVar[Mapping[str, str | int]] = ContextVar("clipwise_log_context", default=_NO_IDS)


@contextmanager
def context(
    *,
    request_id: str | None = None,
    job_id: str | None = None,
    attempt: int | None = None,
    worker_id: str | None = None,
) -> Iterator[None]:
    """Give every line that is logged inside of the block these ids; those from around it stay."""
    ids = _known(request_id=request_id, job_id=job_id, attempt=attempt, worker_id=worker_id)
    token = _context.set({**_context.get(), **ids})
    try:
        yield
    finally:
        _context.reset(token)


def configure(service: str, settings: "Settings | None" = None, *, worker_id: str | None = None) -> None:
    """Have this process log to its standard error; calling it again replaces what was set up before.

    Args:
        service: what the process is, in every line of JSON: `api`, `worker`.
        settings: where the format comes from, and the secrets that no line may repeat; without them (they
            may be what is wrong) lines are for people.
        worker_id: of the process, where it is a worker.
    """
    log_format: LogFormat = settings.log_format if settings else "text"
    secrets = secrets_of(settings) if settings else ()
    _install(LineFormatter(log_format, service, _known(worker_id=worker_id), secrets))
    logging.captureWarnings(True)


def configure_runner(log_format: LogFormat = "text", *, job_id: str, attempt: int) -> None:
    """Have a runner log to its standard error, which is its job's log; a runner knows no settings."""
    _install(LineFormatter(log_format, "runner", {"job_id": job_id, "attempt": attempt}))


def secrets_of(settings: "Settings") -> tuple[str, ...]:
    """Return what no line may hold: the first key, and the passwords of URLs, as written and as meant."""
    found = {settings.api_key.get_secret_value()} if settings.api_key else set()
    for url in (settings.database, settings.broker, settings.artifacts):
        password = urlsplit(url).password or ""
        found |= {password, unquote(password)}
    # A longer one first: a shorter one may be a part of it.
    return tuple(sorted((s for s in found if len(s) >= SHORTEST_SECRET), key=len, reverse=True))


@final
class LineFormatter(logging.Formatter):
    """Makes one line of a record (more where there is a traceback): with ids, without secrets.

    Args:
        log_format: of the line.
        service: what the process is; JSON says it.
        ids: those of the whole process; the context's come on top.
        secrets: exact values to replace, beside what looks like a secret.
    """

    def __init__(
        self,
        log_format: LogFormat,
        service: str,
        ids: Mapping[str, str | int] = _NO_IDS,
        secrets: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self._lines = _LINES[log_format]
        self._service = service
        self._ids = ids
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        clean = copy.copy(record)  # other handlers are given the same record
        clean.msg, clean.args = self._redacted(record.getMessage().rstrip()), None
        if record.exc_info:
            clean.exc_info, clean.exc_text = None, self.formatException(record.exc_info)
        clean.exc_text = self._redacted(clean.exc_text) if clean.exc_text else None
        clean.stack_info = self._redacted(clean.stack_info) if clean.stack_info else None
        fields = vars(clean)
        ids = {**self._ids, **_context.get()}
        fields |= {"service": self._service, **ids}
        fields["ids"] = f" [{' '.join(f'{name}={value}' for name, value in ids.items())}]" if ids else ""
        for name in fields.keys() - _STANDARD:
            if not isinstance(fields[name], int | float | None):
                fields[name] = self._redacted(str(fields[name]))
        return self._lines.format(clean)

    def _redacted(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return redacted(text)


def _install(formatter: LineFormatter) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)


def _known(**ids: str | int | None) -> dict[str, str | int]:
    return {name: value for name, value in ids.items() if value is not None}
