"""Options that several commands have, and the connection that they use."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from clipwise.client import Client

JsonFlag = Annotated[
    bool, typer.Option("--json", help="Machine-readable: JSON on stdout, errors as problem JSON on stderr.")
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="Id of the job, such as job_01k9...")]
Limit = Annotated[int, typer.Option(min=1, max=100_000, help="How many at most.")]


def connect() -> "Client":
    """Return a client of the service that the environment names, else of the embedded one."""
    # Here and not above: the client takes longer to import than `clipwise --help` may take.
    from clipwise.client import Client

    return Client()
