"""Files that jobs left."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from clipwise.errors import NotFound
from clipwise.store.tables import ArtifactRow


def of_job(session: Session, job_id: str) -> Sequence[ArtifactRow]:
    """Return a job's files, by name."""
    query = select(ArtifactRow).where(ArtifactRow.job_id == job_id)
    return session.scalars(query.order_by(ArtifactRow.name)).all()


def get(session: Session, job_id: str, name: str) -> ArtifactRow:
    """Return one file of a job.

    Raises:
        NotFound: if it left none of this name.
    """
    row = session.get(ArtifactRow, (job_id, name))
    if row is None:
        raise NotFound(f"the job '{job_id}' has no artifact '{name}'")
    return row
