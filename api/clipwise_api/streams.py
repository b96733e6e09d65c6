"""Live events: one asynchronous poller per process asks the database and fans out to every stream."""

import asyncio
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from clipwise.jobs.states import TERMINAL
from clipwise.store import job_feed, keys
from clipwise.store.job_feed import Watched
from clipwise.store.sessions import reading
from clipwise.store.tables import EventRow

log = logging.getLogger(__name__)

POLL_SECONDS = 0.25
PAUSE_AFTER_FAILURE_SECONDS = 2.0
CAPACITY = 256
EVENTS_AT_ONCE = 500
POLLS_BETWEEN_KEY_CHECKS = 40

Item = EventRow | Watched


class Subscription:
    """One stream's share: what it still has to send. Used on the event loop only.

    A consumer that does not keep up is not sent more until it does; what it misses meanwhile is read
    again from the database, so nothing is lost and nothing piles up.
    """

    def __init__(self, job_id: str, after: int, key_id: str) -> None:
        self.job_id = job_id
        self.key_id = key_id
        self.cursor = after
        self.seen: Watched | None = None
        self.ended = False
        self._items: deque[Item] = deque()
        self._changed = asyncio.Event()

    @property
    def has_room(self) -> bool:
        """Whether the consumer keeps up."""
        return len(self._items) < CAPACITY

    @property
    def is_empty(self) -> bool:
        """Whether everything was handed out."""
        return not self._items

    def deliver(self, now: Watched, events: Sequence[EventRow]) -> None:
        """Take what is new; where the job is comes before the events, so that the last item is an event."""
        fresh = [event for event in events if event.id > self.cursor]
        if fresh:
            self.cursor = fresh[-1].id
        if self.seen is None or _shown(now) != _shown(self.seen):
            self._items.append(now)
        self.seen = now
        self._items.extend(fresh)
        if now.status in TERMINAL and self.cursor >= now.last_event_id:
            self.ended = True
        if self._items or self.ended:
            self._changed.set()

    def end(self) -> None:
        """End the stream after what it has."""
        self.ended = True
        self._changed.set()

    async def next(self, timeout: float) -> list[Item]:
        """Wait for items, at most `timeout` seconds, and return them."""
        if not self._items and not self.ended:
            try:
                async with asyncio.timeout(timeout):
                    await self._changed.wait()
            except TimeoutError:
                return []
        self._changed.clear()
        items = list(self._items)
        self._items.clear()
        return items


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What one look at the database brought."""

    jobs: Mapping[str, Watched]
    events: Mapping[str, Sequence[EventRow]]
    working_keys: frozenset[str] | None


class Streams:
    """All event streams of the process, and their poller."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._open: set[Subscription] = set()
        self._wanted = asyncio.Event()
        self._closing = False
        self._failing = False
        # A thread of its own: streams neither wait for requests nor take threads from them.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="streams")

    def __len__(self) -> int:
        return len(self._open)

    def subscribe(self, job_id: str, after: int, key_id: str) -> Subscription:
        """Open a stream that starts behind event number `after`."""
        subscription = Subscription(job_id, after, key_id)
        if self._closing:
            subscription.end()
        self._open.add(subscription)
        self._wanted.set()
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Forget a stream."""
        self._open.discard(subscription)

    def close(self) -> None:
        """End every stream; call it on the event loop, as soon as the server begins to stop."""
        self._closing = True
        for subscription in self._open:
            subscription.end()

    async def run(self) -> None:
        """Poll until cancelled; without streams nothing is asked."""
        polls = 0
        try:
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                while self._open:
                    polls += 1
                    pause = await self._poll(check_keys=polls % POLLS_BETWEEN_KEY_CHECKS == 0)
                    await self._pause(pause)
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _pause(self, seconds: float) -> None:
        # A new stream is served at once, but not more often than every 50 ms.
        await asyncio.sleep(0.05)
        try:
            async with asyncio.timeout(seconds - 0.05):
                await self._wanted.wait()
        except TimeoutError:
            return
        self._wanted.clear()

    async def _poll(self, *, check_keys: bool) -> float:
        waiting = [subscription for subscription in self._open if subscription.has_room]
        positions: dict[str, int] = {}
        for subscription in waiting:
            known = positions.get(subscription.job_id, subscription.cursor)
            positions[subscription.job_id] = min(known, subscription.cursor)
        key_ids = frozenset(s.key_id for s in self._open) if check_keys else None
        look = partial(self._look, positions, key_ids)
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._thread, look)
        except SQLAlchemyError as error:
            if not self._failing:
                log.warning("event streams wait, the database does not answer: %s", type(error).__name__)
            self._failing = True
            return PAUSE_AFTER_FAILURE_SECONDS
        self._failing = False
        for subscription in waiting:
            job = found.jobs.get(subscription.job_id)
            if job is None:
                subscription.end()
            else:
                subscription.deliver(job, found.events.get(subscription.job_id, ()))
        if found.working_keys is not None:
            for subscription in [s for s in self._open if s.key_id not in found.working_keys]:
                subscription.end()
        return POLL_SECONDS

    def _look(self, positions: Mapping[str, int], key_ids: frozenset[str] | None) -> _Found:
        with reading(self._engine) as session:
            jobs = job_feed.watch(session, positions)
            events = {
                job_id: job_feed.events_after(session, job_id, positions[job_id], EVENTS_AT_ONCE)
                for job_id, job in jobs.items()
                if job.last_event_id > positions[job_id]
            }
            working = keys.working(session, key_ids) if key_ids is not None else None
        return _Found(jobs=jobs, events=events, working_keys=working)


def _shown(job: Watched) -> tuple[object, ...]:
    return (job.status, job.phase, job.step, job.steps, job.eta_seconds, job.epsilon, job.samples_per_second)
