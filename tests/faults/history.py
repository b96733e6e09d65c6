"""A random history: jobs that come in all the time, wishes of people, and faults, all from one seed."""

import random
import threading
import time
import uuid
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import torch
from safetensors.torch import load_file
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from clipwise.artifacts import ArtifactStore
from clipwise.jobs.states import TERMINAL, JobStatus
from clipwise.store.sessions import reading
from clipwise.store.tables import ArtifactRow, AttemptRow, JobRow, OutboxRow
from tests.faults.checking import Observer, check
from tests.faults.cluster import Cluster, until
from tests.faults.injection import Hit, Injector

OPEN_AT_ONCE = 5
RECOVERY_SECONDS = 65.0
SUCCEEDED = 0.95
ENDS_WITHIN_SECONDS = 240.0


def specifications(steps: int) -> dict[str, dict[str, Any]]:
    """Return the kinds of jobs: plain ones, whose weights are known beforehand, and private ones."""
    base: dict[str, Any] = {
        "dataset": "digits",
        "evaluation": {"fraction": 0.2, "every_steps": steps // 2},
        "checkpoints": {"every_steps": max(1, steps // 10)},
    }
    plain = {"steps": steps, "batch_size": 32}
    modules = [{"kind": "adam"}, {"kind": "momentum", "beta": 0.5}]
    mlp = {"kind": "mlp", "hidden_sizes": [32]}
    return {
        "plain": base | {"model": mlp, "training": plain | {"seed": 1}},
        "clipped, dropout": base
        | {
            "model": mlp | {"dropout": 0.2},
            "training": plain | {"seed": 2},
            "clipping": {"max_norm": 1.0},
            "optimizer": {"learning_rate": 0.01, "modules": modules},
        },
        "private": base
        | {
            "model": mlp,
            "training": {"steps": steps // 2, "batch_size": 32},
            "clipping": {"max_norm": 1.0},
            "privacy": {"noise_multiplier": 2.0, "delta": 1e-4},
        },
    }


@dataclass
class Report:
    """What a history came to."""

    seed: int
    jobs: int
    seconds: float
    statuses: dict[str, int]
    injected: dict[str, int]
    hits: dict[str, dict[str, int]]
    broken: list[str]
    recovery_seconds: list[float]
    attempts: int
    wishes: dict[str, int] = field(default_factory=dict)

    @property
    def longest_recovery(self) -> float:
        """Seconds from a fault that interrupted an attempt to the start of the next one."""
        return max(self.recovery_seconds, default=0.0)

    def lines(self) -> list[str]:
        """Return the report for people."""
        of_kind = []
        for kind, times in sorted(self.injected.items()):
            hits = self.hits.get(kind, {})
            phases = ", ".join(f"{phase or 'none'} {count}" for phase, count in sorted(hits.items()))
            of_kind.append(f"| {kind} | {times} | {sum(hits.values())} | {phases} |")
        recovered = sorted(self.recovery_seconds)
        median = recovered[len(recovered) // 2] if recovered else 0.0
        became = ", ".join(f"{count} {status}" for status, count in sorted(self.statuses.items()))
        return [
            f"seed {self.seed}: {self.jobs} jobs, {self.attempts} attempts, {self.seconds:.0f} s, {became}",
            f"people's wishes: {self.wishes}",
            (
                f"recovery after {len(recovered)} interruptions: median {median:.1f} s, "
                f"longest {self.longest_recovery:.1f} s"
            ),
            "",
            "| fault | injected | running attempts hit | by phase |",
            "|---|---|---|---|",
            *of_kind,
            "",
            *(self.broken or ["no invariant was broken"]),
        ]


class History:
    """One run: a cluster, a seed, so many jobs.

    Args:
        folder: for everything; it is removed at the end.
        seed: of every choice.
        jobs: how many are submitted.
        steps: of each.
        pause: seconds between two faults, on average.
    """

    def __init__(self, folder: Path, *, seed: int, jobs: int, steps: int, pause: float) -> None:
        self.cluster = Cluster(folder)
        self.seed = seed
        self.jobs = jobs
        self.specs = specifications(steps)
        self.chance = random.Random(seed)
        self.accepted: dict[str, str] = {}
        self.wishes: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._keys = random.Random(seed + 1)
        self.injector = Injector(self.cluster, self.chance, self.submit)
        self.kinds = list(self.injector.kinds)
        self.pause = pause
        self.store = ArtifactStore(self.cluster.disk.folder.as_uri())
        self.observer = Observer(self.cluster.engine)

    def run(self) -> Report:
        """Let it happen, wait until all jobs are over, and check."""
        started = time.monotonic()
        for index in range(len(self.cluster.apis)):
            until(lambda i=index: self._serves(i), 60)  # type: ignore[misc]
        references = self._references()
        undisturbed = len(self.accepted)
        over = threading.Event()
        threads = [
            threading.Thread(target=self._submit_all, args=(over, undisturbed), daemon=True),
            threading.Thread(target=self._observe, args=(over,), daemon=True),
        ]
        for thread in threads:
            thread.start()
        round_of: list[str] = []
        while threads[0].is_alive() or self._open() > 0:
            if time.monotonic() - started > ENDS_WITHIN_SECONDS + 12.0 * self.jobs:
                break
            if not round_of:  # each kind as often as the others, in another order each time
                round_of = self.chance.sample(self.kinds, len(self.kinds))
            self.injector.inject(round_of.pop())
            self.cluster.tend()
            time.sleep(self.chance.uniform(0.5, 1.5) * self.pause)
        with suppress(TimeoutError):
            until(self._is_over, 90)
        with suppress(TimeoutError):
            until(self._is_quiet, 20)
        over.set()
        threads[1].join(10)
        left = self.cluster.stop()
        broken = [
            *self.observer.broken,
            *check(self.cluster.engine, self.store, self.cluster.disk.folder, self.accepted, references),
        ]
        if left:
            broken.append(f"processes that are left: {left}")
        folders = [path.name for path in (self.cluster.data / "attempts").glob("*/*")]
        if folders:
            broken.append(f"folders of attempts that are left: {folders}")
        return self._report(time.monotonic() - started, broken)

    def submit(self, index: int) -> bool:
        """Submit a job through one api, and through the other one with the same key if that fails."""
        with self._lock:
            name = self._keys.choice(list(self.specs))
            key = str(uuid.UUID(int=self._keys.getrandbits(128)))
        return self._submit(name, key, index)

    def _submit(self, name: str, key: str, index: int) -> bool:
        for attempt in range(60):
            with (
                suppress(httpx.HTTPError, SQLAlchemyError),
                self.cluster.client((index + attempt) % 2) as client,
            ):
                answer = client.post("/v1/jobs", json=self.specs[name], headers={"Idempotency-Key": key})
                if answer.status_code == 201:
                    with self._lock:
                        self.accepted[answer.json()["id"]] = name
                    return True
            time.sleep(0.5)
        self.observer.broken.append("a submission was refused for half a minute")
        return False

    def _submit_all(self, over: threading.Event, before: int) -> None:
        while len(self.accepted) - before < self.jobs and not over.is_set():
            if self._open() < OPEN_AT_ONCE:
                self.submit(self._keys.randrange(2))
            else:
                time.sleep(0.2)

    def _wish(self) -> None:
        """Somebody pauses a job, and resumes it after a while; or cancels one, seldom."""
        verb = "cancel" if self._keys.random() < 0.15 else "pause"
        with suppress(httpx.HTTPError), self.cluster.client(self._keys.randrange(2)) as client:
            jobs = client.get("/v1/jobs", params={"status": "running", "limit": 20}).json().get("data", [])
            if not jobs:
                return
            job_id = self._keys.choice(jobs)["id"]
            if client.post(f"/v1/jobs/{job_id}/{verb}").is_success:
                self.wishes[verb] += 1

    def _resume_all(self) -> None:
        with suppress(httpx.HTTPError), self.cluster.client(0) as client:
            answer = client.post("/v1/jobs/bulk", json={"verb": "resume", "filter": {"status": ["paused"]}})
            if answer.is_success:
                self.wishes["resume"] += len(answer.json()["changed"])

    def _observe(self, over: threading.Event) -> None:
        looks = 0
        while not over.wait(0.5):
            looks += 1
            with suppress(SQLAlchemyError):
                self.observer.look()
            if looks % 8 == 0:
                self._resume_all()
            if looks % 12 == 4:
                self._wish()

    def _references(self) -> dict[str, dict[str, torch.Tensor]]:
        """Run each kind of job once, before anything is disturbed, and take the weights of the plain ones."""
        for name in self.specs:
            self._submit(name, f"reference-{name}", 0)
        until(lambda: self._open() == 0, 120)
        references = {}
        for job_id, name in self.accepted.items():
            with reading(self.cluster.engine) as session:
                row = session.get(ArtifactRow, (job_id, "model.safetensors"))
            assert row is not None, f"the reference run of '{name}' has failed"
            if "privacy" not in self.specs[name]:
                references[name] = load_file(self.store.local_path(row.key, into=Path()))
        return references

    def _serves(self, index: int) -> bool:
        with suppress(httpx.HTTPError), self.cluster.client(index) as client:
            return client.get("/v1/workers").is_success and any(
                worker["alive"] for worker in client.get("/v1/workers").json()["data"]
            )
        return False

    def _open(self) -> int:
        with suppress(SQLAlchemyError), reading(self.cluster.engine) as session:
            return int(
                session.scalar(select(func.count()).select_from(JobRow).where(JobRow.status.not_in(TERMINAL)))
                or 0
            )
        return OPEN_AT_ONCE

    def _is_over(self) -> bool:
        self.cluster.tend()
        return self._open() == 0

    def _is_quiet(self) -> bool:
        with suppress(SQLAlchemyError), reading(self.cluster.engine) as session:
            return not session.scalar(select(func.count()).select_from(OutboxRow))
        return False

    def _report(self, seconds: float, broken: list[str]) -> Report:
        hits: dict[str, Counter[str]] = defaultdict(Counter)
        for hit in self.injector.hits:
            hits[hit.kind][hit.phase] += 1
        with reading(self.cluster.engine) as session:
            counted = session.execute(select(JobRow.status, func.count()).group_by(JobRow.status)).all()
            statuses = {str(status): count for status, count in counted}
            attempts = {(a.job_id, a.number): a for a in session.scalars(select(AttemptRow))}
        recovery = [took for hit in self.injector.hits if (took := _recovery(hit, attempts)) is not None]
        failed = statuses.get(JobStatus.FAILED, 0)
        uncancelled = sum(statuses.values()) - statuses.get(JobStatus.CANCELLED, 0)
        if uncancelled and statuses.get(JobStatus.SUCCEEDED, 0) < SUCCEEDED * uncancelled:
            broken.append(f"only {statuses} succeeded")
        if failed:
            broken += self._failures()
        if max(recovery, default=0.0) > RECOVERY_SECONDS:
            broken.append(f"a recovery took {max(recovery):.0f} s")
        return Report(
            seed=self.seed,
            jobs=len(self.accepted),
            seconds=seconds,
            statuses=statuses,
            injected=self.injector.counts,
            hits={kind: dict(phases) for kind, phases in hits.items()},
            broken=broken,
            recovery_seconds=recovery,
            attempts=len(attempts),
            wishes=dict(self.wishes),
        )

    def _failures(self) -> list[str]:
        """Say of the failed jobs why; within what may fail they break nothing."""
        with reading(self.cluster.engine) as session:
            rows = session.execute(
                select(JobRow.id, JobRow.reason_code, JobRow.reason_message).where(
                    JobRow.status == JobStatus.FAILED
                )
            ).all()
        return [f"(failed) {row.id}: {row.reason_code}: {row.reason_message}" for row in rows]


def _recovery(hit: Hit, attempts: dict[tuple[str, int], AttemptRow]) -> float | None:
    """Return how long it took from a fault to the next attempt; None if the attempt was not interrupted."""
    following = attempts.get((hit.job_id, hit.attempt + 1))
    own = attempts.get((hit.job_id, hit.attempt))
    if not hit.interrupts or following is None or own is None or own.outcome != "interrupted":
        return None
    return (following.started_at - hit.at).total_seconds()
