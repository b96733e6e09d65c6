import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, select, update

from clipwise.jobs.recovery import DEFAULT_RECOVERY
from clipwise.store import workers
from clipwise.store.sessions import reading, transaction
from clipwise.store.tables import WorkerRow
from clipwise.store.workers import WorkerInfo
from clipwise_worker.presence import GONE_HEARTBEATS, Presence
from clipwise_worker.slots import Slots


def info(worker_id: str, pid: int, host: str = "here") -> WorkerInfo:
    return WorkerInfo(id=worker_id, host=host, pid=pid, queues=["cpu"], slots=1, kinds={}, versions={})


def presence_of(engine: Engine, worker: WorkerInfo, folders: Path) -> Presence:
    slots = Slots(1, lambda: None, lambda _: pytest.fail("nothing was claimed"))
    return Presence(engine, worker, slots, folders, heartbeat_seconds=5.0, recovery=DEFAULT_RECOVERY)


def living(engine: Engine) -> set[str]:
    with reading(engine) as session:
        return set(session.scalars(select(WorkerRow.id).where(WorkerRow.stopped_at.is_(None))))


def test_workers_of_this_host_whose_process_is_gone_are_found_soon(engine: Engine, tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    mine = os.getpid()
    others = [
        info("wkr_dead", dead.pid),
        info("wkr_started_again", mine),  # the same number in a container that was restarted
        info("wkr_busy", os.getppid()),
        info("wkr_elsewhere", dead.pid, host="there"),
    ]
    with transaction(engine) as session:
        for other in others:
            workers.register(session, other)
        silent = session.scalars(select(WorkerRow.heartbeat_at)).first()
        assert silent is not None
        long_ago = silent - timedelta(seconds=5.0 * GONE_HEARTBEATS + 1)
        session.execute(update(WorkerRow).values(heartbeat_at=long_ago))
        workers.register(session, info("wkr_dead_but_heard_of", dead.pid))
    presence_of(engine, info("wkr_me", mine), tmp_path).start()
    assert living(engine) == {"wkr_me", "wkr_busy", "wkr_elsewhere", "wkr_dead_but_heard_of"}


def test_a_worker_does_not_take_itself_for_gone_after_an_outage(engine: Engine, tmp_path: Path) -> None:
    mine, other = info("wkr_me", os.getpid()), info("wkr_other", os.getppid())
    (tmp_path / mine.id / "job_1-1").mkdir(parents=True)
    with transaction(engine) as session:
        for worker in (mine, other):
            workers.register(session, worker)
        long_ago = datetime.now(UTC) - timedelta(hours=1)
        session.execute(update(WorkerRow).values(heartbeat_at=long_ago))
    presence_of(engine, mine, tmp_path).look_after_others()
    assert living(engine) == {"wkr_me", "wkr_other"}
    # Should it be marked all the same, by a neighbour that is mistaken: its folder stays while it lives.
    with transaction(engine) as session:
        workers.stop(session, mine.id)
    presence_of(engine, replace(other, pid=1), tmp_path).look_after_others()
    assert (tmp_path / mine.id / "job_1-1").is_dir()


def test_what_dead_workers_had_fetched_is_removed(engine: Engine, tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for worker_id in ("wkr_me", "wkr_alive", "wkr_gone", "wkr_cut_off", "wkr_never_seen"):
        (tmp_path / worker_id / "job_1-1").mkdir(parents=True)
        (tmp_path / worker_id / "job_1-1" / "rows.arrow").write_text("rows")
    with transaction(engine) as session:
        workers.register(session, info("wkr_alive", os.getppid()))
        workers.register(session, info("wkr_cut_off", os.getppid()))
        workers.register(session, info("wkr_gone", dead.pid))
        long_ago = datetime.now(UTC) - timedelta(hours=1)
        session.execute(update(WorkerRow).where(WorkerRow.id != "wkr_alive").values(heartbeat_at=long_ago))
    presence = presence_of(engine, info("wkr_me", os.getpid()), tmp_path)
    presence.start()
    left = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert left == {"wkr_me", "wkr_alive", "wkr_cut_off", "wkr_never_seen"}
    presence.stop()
    assert not (tmp_path / "wkr_me").exists()
    assert living(engine) == {"wkr_alive", "wkr_cut_off"}
