"""An attempt's checkpoints between its folder and the artifact store, and the one that it goes on from."""

import hashlib
import logging
from pathlib import Path
from typing import Any, final

from sqlalchemy import Engine

from clipwise.artifacts import ArtifactStore, Stored
from clipwise.errors import InvalidData, NotFound, StaleToken
from clipwise.jobs.spec import Checkpoints
from clipwise.store import checkpoints, orphans, reports
from clipwise.store.attempts import Attempt
from clipwise.store.checkpoints import NewCheckpoint, Policy
from clipwise.store.sessions import reading, transaction
from clipwise_worker import outputs
from clipwise_worker.messages import CheckpointWritten

log = logging.getLogger(__name__)


@final
class Keeping:
    """Puts checkpoints where they survive the machine.

    Args:
        engine: the database.
        artifacts: the artifact store.
        attempt: the job's owner.
        spec: the job's specification, as JSON.
    """

    def __init__(self, engine: Engine, artifacts: ArtifactStore, attempt: Attempt, spec: Any) -> None:
        wanted = Checkpoints.model_validate(spec.get("checkpoints") or {})
        self.policy = Policy(keep_last=wanted.keep_last, keep_best=wanted.keep_best)
        self._engine = engine
        self._artifacts = artifacts
        self._attempt = attempt
        self._moved: tuple[CheckpointWritten, Stored] | None = None

    def find(self, into: Path) -> tuple[int, Path] | None:
        """Return the step and the file of the newest checkpoint that is whole; None if there is none.

        One that is damaged is let go of, with a warning, and the one before is used.

        Raises:
            StaleToken: if the attempt has lost its job.
            Unavailable: if the store cannot be read.
        """
        with reading(self._engine) as session:
            rows = checkpoints.newest_first(session, self._attempt.job_id)
        for row in rows:
            try:
                path = self._artifacts.local_path(row.key, into=into)
                if _sha256(path) == row.sha256:
                    return row.step, path
                problem, lost = "is damaged", True
            except NotFound:
                # Perhaps only here: a store that is not mounted has nothing of what it holds elsewhere.
                problem, lost = "cannot be found", False
            log.warning("the checkpoint of step %d %s", row.step, problem)
            with transaction(self._engine) as session:
                if lost:
                    checkpoints.drop(session, self._attempt, session.merge(row, load=False))
                message = f"The checkpoint of step {row.step} {problem}; the one before is used."
                reports.add_event(session, self._attempt, "checkpoint_lost", "warning", message)
        return None

    def store(self, folder: Path, written: CheckpointWritten) -> None:
        """Move a checkpoint into the artifact store and make it visible; may be called again after an outage.

        Raises:
            InvalidData: if the file is not what the runner said.
            StaleToken: if the attempt has lost its job; the file goes by itself.
            Unavailable: if the store cannot be written to.
        """
        attempt = self._attempt
        if self._moved is None or self._moved[0] != written:
            path = outputs.checked(folder, [written.file])[written.file]
            key = f"jobs/{attempt.job_id}/{attempt.number}/{written.file}"
            with transaction(self._engine) as session:
                orphans.reserve(session, [key])
            # Remembered, because the file is not in the folder any more should the database be away now.
            self._moved = written, self._artifacts.put_file(key, path, move=True)
        stored = self._moved[1]
        if stored.sha256 != written.sha256:
            raise InvalidData(f"the checkpoint of step {written.step} was damaged on its way")
        new = NewCheckpoint(
            step=written.step, key=stored.key, size=stored.size, sha256=stored.sha256, loss=written.loss
        )
        try:
            with transaction(self._engine) as session:
                checkpoints.add(session, attempt, new, self.policy)
        except StaleToken:
            with transaction(self._engine) as session:
                orphans.expire(session, [stored.key])
            raise
        self._moved = None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
