"""One attempt, from its folder to its last write: the runner computes, the supervisor speaks for it."""

import logging
import math
import shutil
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, final

from pydantic import ValidationError
from sqlalchemy import Engine

from clipwise import logs
from clipwise.artifacts import ArtifactStore
from clipwise.errors import ClipwiseError, NotFound, StaleToken, Unavailable
from clipwise.jobs.recovery import DEFAULT_RECOVERY, Recovery
from clipwise.jobs.states import JobStatus, ReasonCode
from clipwise.privacy.accountant import EpsilonCurve
from clipwise.store import attempts, charges, checkpoints, orphans, reports
from clipwise.store.attempts import Blamed, FinishedFile, Outcome, Release
from clipwise.store.claims import Claimed
from clipwise.store.outages import is_outage
from clipwise.store.sessions import durable_transaction, transaction
from clipwise_worker import outputs
from clipwise_worker.endings import Ending, death_ending, failed, stop_ending
from clipwise_worker.keeping import Keeping
from clipwise_worker.memory import oom_kills
from clipwise_worker.messages import (
    Assignment,
    Charge,
    CheckpointWritten,
    Failed,
    FromRunner,
    Granted,
    Interrupted,
    Lease,
    Measured,
    PhaseChanged,
    Progressed,
    Stopped,
    Stored,
    Succeeded,
    Warned,
    from_runner,
)
from clipwise_worker.reporter import OUTAGE_SECONDS, Reporter, through_outages
from clipwise_worker.runner_process import RunnerProcess
from clipwise_worker.stopping import Stopping

log = logging.getLogger(__name__)

DEFAULT_RUNTIME_SECONDS = 86_400
LAST_WORDS = 20
Spawn = Callable[[Path, Mapping[str, str]], RunnerProcess]
LastMessage = Succeeded | Failed | Stopped | Interrupted


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long things are waited for, in seconds.

    Attributes:
        terminate: from the word to stop to SIGTERM, where nothing is worth keeping.
        kill: from there to SIGKILL.
        pause: for a step and a checkpoint, when the job is paused or its worker drained.
        drain: the same when the worker itself stops.
        after_its_last_word: for a runner to end that has said how it ended.
        shutdown: what a worker that stops gives the database for an attempt's last write.
        store: for the artifact store to take the files of a job that has succeeded.
        news: for which a runner waits for its supervisor.
    """

    terminate: float = 0.7
    kill: float = 0.5
    pause: float = 120.0
    drain: float = 2.6
    after_its_last_word: float = 10.0
    shutdown: float = 1.5
    store: float = 60.0
    news: float = 900.0


@final
class Supervisor:
    """Runs one attempt in a fresh process and writes what comes of it.

    Args:
        claimed: the job and the attempt that owns it.
        engine: the database.
        artifacts: the artifact store.
        folder: the attempt's own folder; it is made, and removed at the end.
        spawn: gives the runner of the attempt that lies in a folder, with these variables beside its own.
        lease_until: when the claim's lease ends, on this machine's monotonic clock.
        patience: how long things are waited for.
        recovery: after which pauses an interrupted job is taken up again.
        memory_bytes: what the runner may allocate.
    """

    def __init__(
        self,
        claimed: Claimed,
        *,
        engine: Engine,
        artifacts: ArtifactStore,
        folder: Path,
        spawn: Spawn,
        lease_until: float = math.inf,
        patience: Patience = Patience(),
        recovery: Recovery = DEFAULT_RECOVERY,
        memory_bytes: int | None = None,
    ) -> None:
        self.claimed = claimed
        self._engine = engine
        self._artifacts = artifacts
        self._folder = folder
        self._spawn = spawn
        self._lease_until = lease_until
        self._patience = patience
        self._recovery = recovery
        self._memory_bytes = memory_bytes
        self._keeping = Keeping(engine, artifacts, claimed.attempt, claimed.spec)
        self._charged = claimed.charged_steps
        self._curve = _curve(claimed.plan)
        self._deciding = threading.Lock()
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._stopping: Stopping | None = None
        self._stopped_at = math.inf
        self._broken = ""
        self._last_message: LastMessage | None = None
        self._last_message_at = math.inf
        self._last_words: deque[str] = deque(maxlen=LAST_WORDS)
        self._ended = False
        self._process: RunnerProcess | None = None

    def stop(self, why: Stopping, message: str = "") -> None:
        """Stop the attempt; from any thread. A reason that overrules the one before counts."""
        with self._deciding:
            if why.overrules(self._stopping):
                if self._stopping is None or self._stopping.keeps:
                    self._stopped_at = time.monotonic()
                self._stopping, self._broken = why, message
        self._wake.set()

    def renewed(self, lease_until: float) -> None:
        """Take note of a renewed lease, in this machine's monotonic time, and tell the runner."""
        self._lease_until = lease_until
        self._tell_lease()

    def run(self) -> JobStatus | None:
        """Run the attempt to its end and return the job's status, or None if the job was lost."""
        attempt = self.claimed.attempt
        with logs.context(job_id=attempt.job_id, attempt=attempt.number, request_id=self.claimed.request_id):
            log.info("the attempt starts")
            try:
                try:
                    ending, files = self._run()
                except StaleToken:
                    self._stopping = Stopping.LOST
                    ending, files = stop_ending(Stopping.LOST, ""), {}
                except ClipwiseError as error:
                    ending, files = failed(ReasonCode.INTERNAL, error.detail), {}
                except Exception as error:
                    log.exception("the attempt could not be run")
                    why = f"the worker failed: {type(error).__name__}"
                    ending, files = Release(message=why, blames=Blamed.WORKER), {}
                status = None if self._stopping is Stopping.LOST else self._finish(ending, files)
            finally:
                self._closed.set()
                shutil.rmtree(self._folder, ignore_errors=True)
            log.info("the attempt has ended: %s", status or "lost to another worker")
        return status

    def _run(self) -> tuple[Ending, dict[str, Path]]:
        try:
            self._prepare()
        except NotFound as error:
            why = f"the rows of the data set cannot be read: {error.detail}"
            return failed(ReasonCode.DATASET_UNAVAILABLE, why), {}
        except Unavailable as error:
            return Release(message=error.detail, blames=Blamed.WORKER), {}
        kills_before = oom_kills()
        reporter = Reporter(
            self._engine,
            self.claimed.attempt,
            on_lost=lambda: self.stop(Stopping.LOST),
            on_failed=lambda message: self.stop(Stopping.BROKEN, message),
        )
        try:
            # A job that is not given a GPU must not see one: it may belong to another.
            visible = {"CUDA_VISIBLE_DEVICES": ",".join(self.claimed.devices)}
            process = self._spawn(self._folder, {"TMPDIR": str(self._folder / "tmp"), **visible})
            self._process = process
            try:
                if self._memory_bytes is not None:
                    process.limit_memory(self._memory_bytes)
                self._tell_lease()
                process.read(
                    lambda message: self._on_message(message, reporter),
                    lambda stream, line: self._on_line(stream, line, reporter),
                    self._on_end,
                )
                self._wait(process)
            finally:
                self._closed.set()
                process.end()
        finally:
            quickly = self._stopping in {Stopping.WORKER_STOPS, Stopping.LOST}
            reporter.close(self._patience.shutdown if quickly else OUTAGE_SECONDS)
        return self._ending(process.returncode or 0, killed_for_memory=oom_kills() > kills_before)

    def _prepare(self) -> None:
        output = self._folder / "output"
        for folder in (self._folder, output, self._folder / "tmp"):
            folder.mkdir(parents=True, mode=0o700)
        claimed = self.claimed
        rows = None
        if claimed.rows_key is not None:
            rows = str(self._artifacts.local_path(claimed.rows_key, into=self._folder))
        found = None
        if claimed.attempt.number > 1:
            found = self._keeping.find(self._folder)
            with transaction(self._engine) as session:
                reports.record_start(session, claimed.attempt, found[0] if found else 0)
        assignment = Assignment(
            job_id=claimed.attempt.job_id,
            attempt=claimed.attempt.number,
            request_id=claimed.request_id,
            spec=dict(claimed.spec),
            plan=dict(claimed.plan),
            dataset_schema=dict(claimed.dataset_schema),
            rows=rows,
            builtin=claimed.builtin,
            output=str(output),
            checkpoint=None if found is None else str(found[1]),
            charged_steps=claimed.charged_steps,
            wait_seconds=self._patience.news,
        )
        (self._folder / "attempt.json").write_text(assignment.model_dump_json(), encoding="utf-8")

    def _wait(self, process: RunnerProcess) -> None:
        """Wait for the runner's end; stop it when it is told to, or has had its time."""
        limits = self.claimed.spec.get("limits", {})
        allowed = limits.get("max_runtime_seconds", DEFAULT_RUNTIME_SECONDS) - self.claimed.ran_seconds
        deadline = time.monotonic() + allowed
        told: Stopping | None = None
        sent = 0
        while not self._ended:
            now = time.monotonic()
            if now >= deadline and self._last_message is None:
                self.stop(Stopping.MAX_RUNTIME)
            overstays = now >= self._last_message_at + self._patience.after_its_last_word
            if self._stopping in {Stopping.LOST, Stopping.HINDERED, Stopping.BROKEN} or overstays:
                process.signal_group(signal.SIGKILL)
            why = self._stopping
            if told is not why:
                told, sent = why, 0
            terminate = self._stopped_at + self._grace(why)
            steps = (
                (self._stopped_at, partial(process.ask_to_stop, keep=why is not None and why.keeps)),
                (terminate, lambda: process.signal_group(signal.SIGTERM)),
                (terminate + self._patience.kill, lambda: process.signal_group(signal.SIGKILL)),
            )
            while sent < len(steps) and now >= steps[sent][0]:
                steps[sent][1]()
                sent += 1
            self._wake.clear()
            moments = (deadline, self._last_message_at + self._patience.after_its_last_word)
            nearest = min(*moments, steps[sent][0] if sent < len(steps) else math.inf)
            # The cap is for what is set between the checks above and the wait; a moment that has passed
            # and has had its effect must not spin.
            self._wake.wait(min(max(nearest - time.monotonic(), 0.02), 0.25))

    def _grace(self, why: Stopping | None) -> float:
        match why:
            case Stopping.PAUSED | Stopping.DRAINED:
                return self._patience.pause
            case Stopping.WORKER_STOPS:
                return self._patience.drain
            case _:
                return self._patience.terminate

    def _tell_lease(self) -> None:
        if self._process is not None and not math.isinf(self._lease_until):
            self._process.send(Lease(seconds=self._lease_until - time.monotonic()))

    def _on_end(self) -> None:
        self._ended = True
        self._wake.set()

    def _on_line(self, stream: str, line: str, reporter: Reporter) -> None:
        if stream == "stderr":
            self._last_words.append(line)
        reporter.line(stream, line)

    def _on_message(self, line: bytes, reporter: Reporter) -> None:
        try:
            message: FromRunner = from_runner.validate_json(line)
        except ValidationError:
            # What it says is not repeated: it may hold anything.
            self.stop(Stopping.BROKEN, "the runner sent a message that cannot be read")
            return
        match message:
            case PhaseChanged():
                reporter.phase(message.phase)
            case Progressed():
                reporter.progress(message)
            case Measured():
                reporter.metrics(message)
            case Warned():
                reporter.warning(message.message)
            case Charge():
                self._answer(lambda: self._charge(message.charged_steps))
            case CheckpointWritten():
                self._answer(lambda: self._store_checkpoint(message))
            case Succeeded() | Failed() | Stopped() | Interrupted():
                if isinstance(message, Failed) and message.traceback:
                    for text in message.traceback.splitlines():
                        reporter.line("stderr", text)
                self._last_message = self._last_message or message
                self._last_message_at = min(self._last_message_at, time.monotonic())
                self._wake.set()

    def _answer(self, act: Callable[[], None]) -> None:
        try:
            through_outages(act, OUTAGE_SECONDS, self._closed)
        except StaleToken:
            self.stop(Stopping.LOST)
        except Exception as error:
            if self._stopping is not None and not self._stopping.keeps:
                return  # the runner has taken back what it asked for
            if is_outage(error):
                # Nobody can say whose the job is by now: whoever finds the lease over puts it back.
                self.stop(Stopping.LOST)
                return
            log.exception("what the runner asked for could not be done")
            self.stop(
                Stopping.HINDERED, f"the worker could not keep the job's books ({type(error).__name__})"
            )

    def _charge(self, charged_steps: int) -> None:
        self._write_charge(charged_steps)
        self._charged = charged_steps
        self._tell(Granted(charged_steps=charged_steps))

    def _write_charge(self, charged_steps: int) -> None:
        if self._curve is None:
            raise ClipwiseError("the runner of a job without privacy asked for noisy steps")
        with durable_transaction(self._engine) as session:
            charges.charge(
                session,
                self.claimed.attempt,
                charged_steps,
                epsilon=self._curve.after(charged_steps),
                delta=float(self.claimed.plan["delta"]),
            )

    def _store_checkpoint(self, written: CheckpointWritten) -> None:
        try:
            self._keeping.store(self._folder / "output", written)
        except Unavailable as error:
            log.warning("the checkpoint of step %d cannot be stored: %s", written.step, error.detail)
            self._tell(Stored(step=written.step, ok=False))
        else:
            self._tell(Stored(step=written.step, ok=True))

    def _tell(self, message: Granted | Stored) -> None:
        if self._process is not None:
            self._process.send(message)

    def _ending(self, returncode: int, *, killed_for_memory: bool) -> tuple[Ending, dict[str, Path]]:
        said = self._last_message
        if isinstance(said, Succeeded) and self._stopping not in {Stopping.HINDERED, Stopping.BROKEN}:
            files = outputs.checked(self._folder / "output", said.artifacts)
            metrics = {name: value for name, value in said.metrics.items() if math.isfinite(value)}
            result: dict[str, Any] = {"metrics": metrics, "released": said.released}
            outcome = Outcome(
                status=JobStatus.SUCCEEDED, result=result, epsilon=said.epsilon, delta=said.delta
            )
            return outcome, files
        if self._stopping is not None:
            return stop_ending(self._stopping, self._broken), {}
        if isinstance(said, Failed):
            return failed(said.code, said.message), {}
        if isinstance(said, Interrupted):
            return Release(message=said.message, blames=Blamed.WORKER), {}
        return death_ending(
            returncode, killed_for_memory=killed_for_memory, last_words=tuple(self._last_words)
        ), {}

    def _finish(self, ending: Ending, files: dict[str, Path]) -> JobStatus | None:
        """Store the files, then make them, the result and the status visible in one fenced transaction."""
        stored: list[FinishedFile] = []
        try:
            if files and isinstance(ending, Outcome):
                try:
                    stored = self._store_files(files)
                    ending = replace(ending, artifacts=tuple(stored))
                except Exception as error:
                    log.exception("the job's files could not be stored")
                    detail = error.detail if isinstance(error, ClipwiseError) else type(error).__name__
                    ending = Release(message=f"its model could not be stored: {detail}", blames=Blamed.WORKER)
            quickly = self._stopping is Stopping.WORKER_STOPS
            became: list[JobStatus] = []
            through_outages(
                lambda: became.append(self._write_ending(ending, stored)),
                self._patience.shutdown if quickly else OUTAGE_SECONDS,
                threading.Event(),
            )
        except StaleToken:
            self._let_go(stored)
            return None
        except Exception:
            # The lease passes, and whoever looks for those puts the job back.
            log.exception("the attempt's end could not be written")
            return None
        return became[-1]

    def _write_ending(self, ending: Ending, stored: list[FinishedFile]) -> JobStatus:
        attempt, said = self.claimed.attempt, self._last_message
        with transaction(self._engine) as session:
            if isinstance(said, Stopped | Interrupted) and self._curve is not None:
                # It has said how far it came: what was charged beyond that was never run.
                ran = max(said.charged_steps or 0, self.claimed.charged_steps)
                if said.charged_steps is not None and ran < self._charged:
                    delta = float(self.claimed.plan["delta"])
                    charges.charge(session, attempt, ran, epsilon=self._curve.after(ran), delta=delta)
            if isinstance(ending, Release):
                return attempts.release(session, attempt, ending, self._recovery)
            orphans.keep(session, [file.key for file in stored])
            attempts.finish(session, attempt, ending)
            if ending.status is JobStatus.SUCCEEDED:
                checkpoints.end(session, attempt.job_id, self._keeping.policy)
            return ending.status

    def _store_files(self, files: dict[str, Path]) -> list[FinishedFile]:
        """Store the files; a store that is full or away for a moment is waited for."""
        deadline = time.monotonic() + self._patience.store
        pause = 0.5
        while True:
            try:
                return outputs.store(self._engine, self._artifacts, self.claimed.attempt, files)
            except Unavailable:
                if time.monotonic() + pause > deadline or self._stopping is not None:
                    raise
                log.warning("the artifact store takes no files now; trying again in %.1f s", pause)
            time.sleep(pause)
            pause = min(2 * pause, 10.0)

    def _let_go(self, stored: list[FinishedFile]) -> None:
        with transaction(self._engine) as session:
            orphans.expire(session, [file.key for file in stored])


def _curve(plan: Mapping[str, Any]) -> EpsilonCurve | None:
    curve = plan.get("epsilon_curve")
    return None if curve is None else EpsilonCurve(steps=curve["step"], epsilons=curve["value"])
