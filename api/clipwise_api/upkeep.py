"""What runs beside the requests: outbox, plans, lost attempts, files without an owner, expired rows, keys."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from clipwise import logs
from clipwise.jobs.recovery import Recovery
from clipwise.store import access, idempotency, keys, orphans, outbox, reaper
from clipwise.store.sessions import transaction
from clipwise_api.services import ServiceSet

log = logging.getLogger(__name__)

T = TypeVar("T")

RELAY_SECONDS = 1.0
RELAY_PAUSE_SECONDS = 0.05
"""Between two looks at the outbox: what is submitted meanwhile goes out together."""
FILES_SECONDS = 5.0
EXPIRY_SECONDS = 600.0
KEYS_SECONDS = 30.0
LONGEST_PAUSE_SECONDS = 30.0


class Upkeep:
    """The process's background work; every part goes on after a failure, and says so once."""

    def __init__(self, services: ServiceSet) -> None:
        self._services = services
        self._recovery = Recovery(first_seconds=services.settings.retry_seconds)
        # One thread for each part: a broker or a store that hangs holds up neither requests nor the reaper.
        self._threads = ThreadPoolExecutor(5, thread_name_prefix="upkeep")

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._services.streams.run())
                group.create_task(self._services.planner.run())
                group.create_task(self._relay())
                group.create_task(self._every(reaper.EVERY_SECONDS, self._reap))
                group.create_task(self._every(FILES_SECONDS, self._delete_files))
                group.create_task(self._every(EXPIRY_SECONDS, self._remove_expired))
                group.create_task(self._every(KEYS_SECONDS, self._note_used_keys))
        finally:
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def _relay(self) -> None:
        wake = self._services.outbox_filled

        async def relay() -> None:
            sent = await self._in_thread(self._services.delivery.relay)
            if sent == outbox.AT_ONCE:
                return  # there may be more
            await asyncio.sleep(RELAY_PAUSE_SECONDS)
            try:
                async with asyncio.timeout(RELAY_SECONDS):
                    await wake.wait()
            except TimeoutError:
                return
            wake.clear()

        await self._forever("the outbox", relay)

    async def _every(self, seconds: float, work: Callable[[], object]) -> None:
        async def once() -> None:
            await self._in_thread(work)
            await asyncio.sleep(seconds)

        await self._forever(work.__name__, once)

    async def _forever(self, what: str, work: Callable[[], Awaitable[None]]) -> None:
        failures = 0
        while True:
            try:
                await work()
                failures = 0
            except Exception as error:
                failures += 1
                if failures == 1:
                    log.warning("%s has to wait: %s", what, type(error).__name__, exc_info=error)
                await asyncio.sleep(min(2.0**failures, LONGEST_PAUSE_SECONDS))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _reap(self) -> None:
        with transaction(self._services.engine) as session:
            grace = 2 * self._services.settings.heartbeat_seconds
            reaped = reaper.reap(session, self._recovery, grace_seconds=grace)
        for job_id in reaped.interrupted:
            with logs.context(job_id=job_id):
                log.warning("the reaper took the job from its worker; it is put back")
        for job_id in reaped.ended:
            with logs.context(job_id=job_id):
                log.warning("the reaper ended the job; its events say why")
        if reaped:
            self._services.wake_relay()

    def _delete_files(self) -> None:
        store = self._services.artifacts

        def delete(key: str) -> None:
            # A reservation is a folder: that of a data set whose upload never came to its end.
            if key.count("/") == 1 and key.startswith("datasets/"):
                store.delete_prefix(key)
            else:
                store.delete(key)

        orphans.sweep(self._services.engine, delete)

    def _remove_expired(self) -> None:
        with transaction(self._services.engine) as session:
            access.remove_expired(session)
            idempotency.remove_expired(session)
        self._services.artifacts.sweep()

    def _note_used_keys(self) -> None:
        used = self._services.used_keys
        taken = {used.pop() for _ in range(len(used))}
        if taken:
            with transaction(self._services.engine) as session:
                keys.mark_used(session, taken)
