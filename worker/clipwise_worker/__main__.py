"""`python -m clipwise_worker`: one worker process, configured by the environment alone."""

import logging
import os
import resource
import signal
import sys
import threading
from types import FrameType

from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from clipwise import logs
from clipwise.errors import ConfigurationError
from clipwise.settings import Settings
from clipwise_worker.service import WorkerService

log = logging.getLogger(__name__)

STOP_SECONDS = 1.2
"""What a stop may take beyond the time that attempts have to write a checkpoint."""


def main() -> int:
    """Run a worker until SIGTERM or SIGINT; return the exit code."""
    logs.configure("worker")
    # A runner that crashes must not write rows to a core file; children inherit this.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    told = threading.Event()

    def tell(_number: int, _frame: FrameType | None) -> None:
        told.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, tell)
    try:
        settings = Settings()
        service = WorkerService(settings)
        logs.configure("worker", settings, worker_id=service.info.id)
        service.start()
    except ValidationError as error:
        # What the settings hold is not repeated: it may be a secret.
        problems = ", ".join(
            f"CLIPWISE_{str(item['loc'][0]).upper()}: {item['msg']}"
            for item in error.errors(include_input=False)
        )
        log.error("the worker cannot start: %s", problems)
        return 2
    except ConfigurationError as error:
        log.error("the worker cannot start: %s", error)
        return 2
    except SQLAlchemyError as error:
        log.error(
            "the worker cannot start: the database does not answer (%s)",
            error.args[0] if error.args else error,
        )
        return 3
    told.wait()
    # Whatever hangs, a database that does not answer for one, the process is gone in time.
    threading.Timer(settings.drain_seconds + STOP_SECONDS, os._exit, args=(1,)).start()
    service.stop()
    logging.shutdown()
    # Celery's pool threads would be waited for at a normal exit.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
