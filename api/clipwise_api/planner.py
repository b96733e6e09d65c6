"""Plans: calibrations that everyone shares, and the jobs that wait for theirs."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeVar

from sqlalchemy import Engine

from clipwise import logs
from clipwise.data.schema import DatasetSchema
from clipwise.errors import ClipwiseError, InvalidSpec, PlanPending, Unavailable
from clipwise.jobs.planning import Outline, complete, outline
from clipwise.jobs.spec import JobSpec
from clipwise.jobs.states import ReasonCode
from clipwise.privacy.calibration import Calibration, NoiseRequest
from clipwise.store import datasets, job_changes, jobs
from clipwise.store.sessions import reading, transaction
from clipwise_api.calibrators import Calibrators

log = logging.getLogger(__name__)

T = TypeVar("T")

LOOK_SECONDS = 1.0
PATIENCE_SECONDS = 10.0
RETRY_AFTER_SECONDS = 2
REMEMBERED = 1000
MOST_AT_ONCE = 64
MOST_FAILURES = 5
LEFT_BEHIND = timedelta(seconds=20)
"""A job that another process was given, and that still has no plan then, is planned here as well."""


class Planner:
    """Calibrates noise in processes of its own, remembers the answers, and queues jobs that waited.

    Its methods belong to the event loop, but for `known` and `expect`.
    """

    def __init__(
        self, engine: Engine, loop: asyncio.AbstractEventLoop, on_queued: Callable[[], None]
    ) -> None:
        self._engine = engine
        self._loop = loop
        self._on_queued = on_queued
        self._calibrators = Calibrators()
        self._answers: OrderedDict[NoiseRequest, Calibration | InvalidSpec] = OrderedDict()
        self._asked: dict[NoiseRequest, asyncio.Task[Calibration]] = {}
        self._planning: dict[str, asyncio.Task[None]] = {}
        self._failures: dict[str, int] = {}
        self._mine: set[str] = set()
        self._submitted = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="planner")

    def known(self, noise: NoiseRequest) -> Calibration | None:
        """Return a calibration that was made before; callable from any thread.

        Raises:
            InvalidSpec: if it is known that there is none.
        """
        answer = self._answers.get(noise)
        if isinstance(answer, InvalidSpec):
            raise InvalidSpec(answer.detail, answer.problems)
        return answer

    def expect(self, job_id: str) -> None:
        """Plan a job that was just submitted; callable from any thread."""
        self._mine.add(job_id)
        self._loop.call_soon_threadsafe(self._submitted.set)

    async def calibration(
        self, noise: NoiseRequest, patience: float | None = PATIENCE_SECONDS
    ) -> Calibration:
        """Return a calibration, made before or made now.

        Raises:
            InvalidSpec: if there is none.
            PlanPending: if it takes longer than `patience` seconds; it goes on.
            Unavailable: if too many are being made.
        """
        answer = self.known(noise)
        if answer is not None:
            return answer
        task = self._asked.get(noise)
        if task is None:
            if len(self._asked) >= MOST_AT_ONCE and patience is not None:
                raise Unavailable("too many plans are being computed now; ask again in a minute")
            task = self._asked[noise] = asyncio.create_task(self._calibrate(noise))
        try:
            async with asyncio.timeout(patience):
                return await asyncio.shield(task)
        except TimeoutError:
            raise PlanPending(
                "the noise is still being calibrated; ask again with the same body", RETRY_AFTER_SECONDS
            ) from None

    async def run(self) -> None:
        """Plan jobs until cancelled."""
        everything = True
        while True:
            try:
                await self._look(everything=everything)
                everything = False
            except Exception as error:
                log.warning("jobs wait for their plans: %s", type(error).__name__, exc_info=error)
                await asyncio.sleep(LOOK_SECONDS)
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._submitted.wait()
            except TimeoutError:
                continue
            self._submitted.clear()

    def close(self) -> None:
        """End the processes and what waits for them."""
        for task in (*self._planning.values(), *self._asked.values()):
            task.cancel()
        self._calibrators.close()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _calibrate(self, noise: NoiseRequest) -> Calibration:
        try:
            answer = await asyncio.wrap_future(self._calibrators.submit(noise))
        except InvalidSpec as error:
            self._remember(noise, error)
            raise
        else:
            self._remember(noise, answer)
            return answer
        finally:
            self._asked.pop(noise, None)

    def _remember(self, noise: NoiseRequest, answer: Calibration | InvalidSpec) -> None:
        self._answers[noise] = answer
        while len(self._answers) > REMEMBERED:
            self._answers.popitem(last=False)

    async def _look(self, *, everything: bool) -> None:
        waiting = await self._in_thread(self._waiting)
        now = datetime.now(UTC)
        for job_id, created_at in waiting:
            ours = everything or job_id in self._mine or now - created_at > LEFT_BEHIND
            if ours and job_id not in self._planning:
                task = asyncio.create_task(self._plan(job_id))
                self._planning[job_id] = task

    async def _plan(self, job_id: str) -> None:
        try:
            drawn = await self._in_thread(partial(self._drawn, job_id))
            calibration = await self.calibration(drawn.noise, None) if drawn.noise else None
            plan = complete(drawn, calibration).model_dump(mode="json")
            await self._in_thread(partial(self._queue, job_id, plan))
            self._on_queued()
        except ClipwiseError as error:
            await self._in_thread(partial(self._refuse, job_id, ReasonCode.VALIDATION_FAILED, error.detail))
        except Exception as error:
            failures = self._failures[job_id] = self._failures.get(job_id, 0) + 1
            with logs.context(job_id=job_id):
                log.warning("the job has no plan yet: %s", type(error).__name__, exc_info=error)
            if failures >= MOST_FAILURES:
                message = "the plan could not be computed; the api's log says more"
                await self._in_thread(partial(self._refuse, job_id, ReasonCode.INTERNAL, message))
        finally:
            self._planning.pop(job_id, None)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _waiting(self) -> list[tuple[str, datetime]]:
        with reading(self._engine) as session:
            waiting = [(r.job.id, r.job.created_at) for r in jobs.waiting_for_plans(session)]
        open_ids = {job_id for job_id, _ in waiting}
        # What was only just submitted may not be in this answer; what was planned is in no later one.
        self._failures = {job_id: n for job_id, n in self._failures.items() if job_id in open_ids}
        return waiting

    def _drawn(self, job_id: str) -> Outline:
        with reading(self._engine) as session:
            job = jobs.get(session, job_id).job
            dataset = datasets.of_job(session, job.dataset_id)
            schema = DatasetSchema.model_validate(dataset.dataset_schema)
            spec = JobSpec.model_validate(job.spec)
        # A kind that only a worker has was checked when the job was submitted.
        return outline(spec, schema, model_kinds={job.model_kind})

    def _queue(self, job_id: str, plan: dict[str, object]) -> None:
        with transaction(self._engine) as session:
            job_changes.planned(session, job_id, plan)
        self._mine.discard(job_id)

    def _refuse(self, job_id: str, code: ReasonCode, message: str) -> None:
        with transaction(self._engine) as session:
            job_changes.refused(session, job_id, code, message)
        self._mine.discard(job_id)
