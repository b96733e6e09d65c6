"""One attempt, from its folder to its last write: the runner computes, the supervisor speaks for it."""

import logging
import math
import shutil
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from pydantic import ValidationError
from sqlalchemy import Engine

from clipwise.artifacts import ArtifactStore
from clipwise.errors import ClipwiseError, NotFound, StaleToken, Unavailable
from clipwise.jobs.states import JobStatus, ReasonCode
from clipwise.store import attempts, orphans
from clipwise.store.attempts import Claimed, FinishedFile, Outcome
from clipwise.store.sessions import transaction
from clipwise_worker import outputs
from clipwise_worker.endings import death_outcome, failed, stop_outcome
from clipwise_worker.memory import oom_kills
from clipwise_worker.messages import (
    Assignment,
    Failed,
    FromRunner,
    Measured,
    PhaseChanged,
    Progressed,
    Stopped,
    Succeeded,
    Warned,
    from_runner,
)
from clipwise_worker.reporter import OUTAGE_SECONDS, Reporter, through_outages
from clipwise_worker.runner_process import COMMAND, RunnerProcess
from clipwise_worker.stopping import Stopping

log = logging.getLogger(__name__)

DEFAULT_RUNTIME_SECONDS = 86_400


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a runner that is to stop is waited for, in seconds from the first word."""

    terminate: float = 0.7
    kill: float = 1.2
    after_its_last_word: float = 10.0
    shutdown: float = 1.5
    """What a worker that stops gives the database for an attempt's last write."""


@final
class Supervisor:
    """Runs one attempt in a fresh process and writes what comes of it.

    Args:
        claimed: the job and the attempt that owns it.
        engine: the database.
        artifacts: the artifact store.
        folder: the attempt's own folder; it is made, and removed at the end.
        environment: the runner's whole environment.
        command: the runner's command; `--messages FD FOLDER` is added.
        patience: how long a runner is waited for.
    """

    def __init__(
        self,
        claimed: Claimed,
        *,
        engine: Engine,
        artifacts: ArtifactStore,
        folder: Path,
        environment: Mapping[str, str],
        command: Sequence[str] = COMMAND,
        patience: Patience = Patience(),
    ) -> None:
        self.claimed = claimed
        self._engine = engine
        self._artifacts = artifacts
        self._folder = folder
        self._environment = environment
        self._command = command
        self._patience = patience
        self._wake = threading.Event()
        self._stopping: Stopping | None = None
        self._stopped_at = math.inf
        self._broken = ""
        self._final: Succeeded | Failed | Stopped | None = None
        self._final_at = math.inf
        self._ended = False
        self._process: RunnerProcess | None = None

    def stop(self, why: Stopping, message: str = "") -> None:
        """Stop the attempt; from any thread. The first reason counts, but a lost job overrules it."""
        if self._stopping is None or why is Stopping.LOST:
            self._stopping, self._broken = why, message
            self._stopped_at = min(self._stopped_at, time.monotonic())
        self._wake.set()

    def run(self) -> JobStatus | None:
        """Run the attempt to its end and return the job's status, or None if the job was lost."""
        attempt = self.claimed.attempt
        log.info("job %s, attempt %d: started", attempt.job_id, attempt.number)
        try:
            try:
                outcome, files = self._run()
            except ClipwiseError as error:
                outcome, files = failed(ReasonCode.INTERNAL, error.detail), {}
            except Exception as error:
                log.exception("job %s: the attempt could not be run", attempt.job_id)
                outcome, files = failed(ReasonCode.INTERNAL, f"the worker failed: {type(error).__name__}"), {}
            status = None if self._stopping is Stopping.LOST else self._finish(outcome, files)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
        log.info("job %s, attempt %d: %s", attempt.job_id, attempt.number, status or "lost to another worker")
        return status

    def _run(self) -> tuple[Outcome, dict[str, Path]]:
        try:
            self._prepare()
        except (NotFound, Unavailable) as error:
            why = f"the rows of the data set cannot be read: {error.detail}"
            return failed(ReasonCode.DATASET_UNAVAILABLE, why), {}
        kills_before = oom_kills()
        reporter = Reporter(
            self._engine,
            self.claimed.attempt,
            self.claimed.plan.get("delta"),
            on_lost=lambda: self.stop(Stopping.LOST),
            on_failed=lambda message: self.stop(Stopping.BROKEN, message),
        )
        try:
            self._process = RunnerProcess(self._command, self._folder, self._environment, self._on_end)
            try:
                self._process.read(lambda message: self._on_message(message, reporter), reporter.line)
                self._wait(self._process)
            finally:
                self._process.end()
        finally:
            quickly = self._stopping in {Stopping.WORKER_STOPS, Stopping.LOST}
            reporter.close(self._patience.shutdown if quickly else OUTAGE_SECONDS)
        return self._outcome(self._process.returncode or 0, killed_for_memory=oom_kills() > kills_before)

    def _prepare(self) -> None:
        output = self._folder / "output"
        for folder in (self._folder, output, self._folder / "tmp"):
            folder.mkdir(parents=True, mode=0o700)
        rows = None
        if self.claimed.rows_key is not None:
            rows = str(self._artifacts.local_path(self.claimed.rows_key, into=self._folder))
        assignment = Assignment(
            spec=dict(self.claimed.spec),
            plan=dict(self.claimed.plan),
            dataset_schema=dict(self.claimed.dataset_schema),
            rows=rows,
            builtin=self.claimed.builtin,
            output=str(output),
        )
        (self._folder / "attempt.json").write_text(assignment.model_dump_json(), encoding="utf-8")

    def _wait(self, process: RunnerProcess) -> None:
        """Wait for the runner's end; stop it when it is told to, or has had its time."""
        limits = self.claimed.spec.get("limits", {})
        deadline = time.monotonic() + limits.get("max_runtime_seconds", DEFAULT_RUNTIME_SECONDS)
        sent = 0
        while not self._ended:
            now = time.monotonic()
            if now >= deadline and self._final is None:
                self.stop(Stopping.MAX_RUNTIME)
            if now >= self._final_at + self._patience.after_its_last_word:
                self._stopped_at = min(self._stopped_at, now - self._patience.kill)
            steps = (
                (self._stopped_at, process.ask_to_stop),
                (self._stopped_at + self._patience.terminate, lambda: process.signal_group(signal.SIGTERM)),
                (self._stopped_at + self._patience.kill, lambda: process.signal_group(signal.SIGKILL)),
            )
            if self._stopping in {Stopping.LOST, Stopping.BROKEN}:
                process.signal_group(signal.SIGKILL)
            while sent < len(steps) and now >= steps[sent][0]:
                steps[sent][1]()
                sent += 1
            self._wake.clear()
            moments = (deadline, self._final_at + self._patience.after_its_last_word)
            nearest = min(*moments, steps[sent][0] if sent < len(steps) else math.inf)
            # The cap is for what is set between the checks above and the wait; a moment that has passed
            # and has had its effect must not spin.
            self._wake.wait(min(max(nearest - time.monotonic(), 0.02), 0.25))

    def _on_end(self) -> None:
        self._ended = True
        self._wake.set()

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
            case Succeeded() | Failed() | Stopped():
                if isinstance(message, Failed) and message.traceback:
                    for text in message.traceback.splitlines():
                        reporter.line("stderr", text)
                self._final = self._final or message
                self._final_at = min(self._final_at, time.monotonic())
                self._wake.set()

    def _outcome(self, returncode: int, *, killed_for_memory: bool) -> tuple[Outcome, dict[str, Path]]:
        said = self._final
        if isinstance(said, Succeeded) and self._stopping is not Stopping.BROKEN:
            files = outputs.checked(self._folder / "output", said.artifacts)
            metrics = {name: value for name, value in said.metrics.items() if math.isfinite(value)}
            result: dict[str, Any] = {"metrics": metrics, "released": said.released}
            outcome = Outcome(
                status=JobStatus.SUCCEEDED, result=result, epsilon=said.epsilon, delta=said.delta
            )
            return outcome, files
        if self._stopping is not None:
            return stop_outcome(self._stopping, self._broken), {}
        if isinstance(said, Failed):
            return failed(said.code, said.message), {}
        return death_outcome(returncode, killed_for_memory=killed_for_memory), {}

    def _finish(self, outcome: Outcome, files: dict[str, Path]) -> JobStatus | None:
        """Store the files, then make them, the result and the status visible in one fenced transaction."""
        attempt = self.claimed.attempt
        stored: list[FinishedFile] = []

        def write() -> None:
            with transaction(self._engine) as session:
                orphans.keep(session, [file.key for file in stored])
                attempts.finish(session, attempt, outcome)

        quickly = self._stopping is Stopping.WORKER_STOPS
        try:
            if files:
                try:
                    stored = outputs.store(self._engine, self._artifacts, attempt, files)
                    outcome = Outcome(**{**vars(outcome), "artifacts": tuple(stored)})
                except Exception as error:
                    log.exception("job %s: its files could not be stored", attempt.job_id)
                    why = f"the model could not be stored ({type(error).__name__}); submit the job again"
                    outcome = failed(ReasonCode.INTERNAL, why)
            seconds = self._patience.shutdown if quickly else OUTAGE_SECONDS
            through_outages(write, seconds, threading.Event())
        except StaleToken:
            self._let_go(stored)
            return None
        except Exception:
            # Whoever looks for lost attempts will end it.
            log.exception("job %s: its end could not be written", attempt.job_id)
            return None
        return outcome.status

    def _let_go(self, stored: Sequence[FinishedFile]) -> None:
        with transaction(self._engine) as session:
            orphans.add(session, [file.key for file in stored])
