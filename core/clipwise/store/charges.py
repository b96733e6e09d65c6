"""What noisy steps cost: paid for before they run, and given back if they did not."""

from sqlalchemy.orm import Session

from clipwise.store.attempts import Attempt, fenced_update


def charge(session: Session, attempt: Attempt, charged_steps: int, *, epsilon: float, delta: float) -> None:
    """Write that the job has paid for `charged_steps` noisy steps in all, those about to run with them.

    The number is the total and not what is added, so that a write whose answer was lost can be repeated.

    Args:
        session: of a durable transaction that is committed before the steps run.
        attempt: the job's owner.
        charged_steps: of all attempts; less than before gives back what was charged and not run.
        epsilon: what so many steps have spent.
        delta: of the job's guarantee.

    Raises:
        StaleToken: if the attempt has lost its job; nothing was written.
    """
    fenced_update(session, attempt, {"charged_steps": charged_steps, "epsilon": epsilon, "delta": delta})
