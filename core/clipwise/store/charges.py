"""What noisy steps cost: paid for before they run, and given back if they did not."""

from sqlalchemy.orm import Session

from clipwise.store.attempts import Attempt, fenced_update
from clipwise.store.tables import JobRow


def charge(session: Session, attempt: Attempt, steps: int, *, epsilon: float, delta: float) -> None:
    """Charge the job for `steps` noisy steps that are about to run. Commit this before they do.

    Args:
        session: of a durable transaction: what was charged must survive the machine.
        attempt: the job's owner.
        steps: how many.
        epsilon: what the job has spent once they have run, with all that it was charged before.
        delta: of the job's guarantee.

    Raises:
        StaleToken: if the attempt has lost its job; nothing was written.
    """
    values = {"charged_steps": JobRow.charged_steps + steps, "epsilon": epsilon, "delta": delta}
    fenced_update(session, attempt, values)


def settle(session: Session, attempt: Attempt, charged_steps: int, *, epsilon: float, delta: float) -> None:
    """Give back what was charged and not run: the job has run `charged_steps` noisy steps in all.

    Raises:
        StaleToken: if the attempt has lost its job; nothing was written.
    """
    fenced_update(session, attempt, {"charged_steps": charged_steps, "epsilon": epsilon, "delta": delta})
