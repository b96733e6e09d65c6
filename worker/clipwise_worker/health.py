"""Whether a worker of this host is alive, as the database sees it: `python -m clipwise_worker.health`.

Exit status 0 if one has sent a heartbeat lately, 1 if none has or the database does not answer. For the
health checks of containers, where each has a host name of its own.
"""

import socket
import sys

from sqlalchemy.exc import SQLAlchemyError

from clipwise.settings import Settings
from clipwise.store import sessions, workers


def main() -> int:
    """Say whether a worker of this host is alive."""
    host = socket.gethostname()
    engine = sessions.connect(Settings().database)
    try:
        with sessions.reading(engine) as session:
            alive = [worker for worker in workers.alive(session) if worker.host == host]
    except SQLAlchemyError as error:
        print(f"the database does not answer: {type(error).__name__}", file=sys.stderr)
        return 1
    finally:
        engine.dispose()
    if not alive:
        print(f"no worker on {host} has sent a heartbeat lately", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
