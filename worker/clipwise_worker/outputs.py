"""The files that a runner leaves: checked, reserved, and copied into the artifact store."""

import re
import stat
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import Engine

from clipwise.artifacts import ArtifactStore
from clipwise.errors import InvalidData
from clipwise.store import orphans
from clipwise.store.attempts import Attempt, FinishedFile
from clipwise.store.sessions import transaction

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
MOST_FILES = 64


def checked(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """Return the path of each file that a runner names.

    Raises:
        InvalidData: if a name is not a plain file name, or no regular file of the output folder has it.
    """
    if len(names) > MOST_FILES:
        raise InvalidData(f"the runner names {len(names)} files; {MOST_FILES} at most")
    files = {}
    for name in names:
        path = folder / name
        # A link could name any file that the worker may read.
        if not NAME.fullmatch(name) or not path.exists() or not stat.S_ISREG(path.lstat().st_mode):
            raise InvalidData(f"the runner names {name!r}, which is no regular file of its output folder")
        files[name] = path
    return files


def store(
    engine: Engine, artifacts: ArtifactStore, attempt: Attempt, files: dict[str, Path]
) -> list[FinishedFile]:
    """Copy the files into the artifact store; they are deleted again unless the attempt's end keeps them."""
    keys = {name: f"jobs/{attempt.job_id}/{attempt.number}/{name}" for name in files}
    with transaction(engine) as session:
        orphans.reserve(session, keys.values())
    stored = []
    for name, path in files.items():
        # Copied, not moved: should one of them not be taken, all are there for the next try.
        put = artifacts.put_file(keys[name], path)
        stored.append(FinishedFile(name=name, key=put.key, size=put.size, sha256=put.sha256))
    return stored
