"""Live streams: one asynchronous poller per process asks the database and fans out to every stream.

What it asks does not grow with the number of streams: one query for all jobs that somebody watches, and a
few for what is new of them. Streams that are at the same place share what was read.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from clipwise.jobs.states import TERMINAL
from clipwise.store import job_feed, keys
from clipwise.store.job_feed import Span, Watched
from clipwise.store.sessions import reading

log = logging.getLogger(__name__)

T = TypeVar("T")

POLL_SECONDS = 0.25
SHORTEST_PAUSE_SECONDS = 0.05
PAUSE_AFTER_FAILURE_SECONDS = 2.0
CAPACITY = 256
ITEMS_AT_ONCE = 500
POLLS_BETWEEN_KEY_CHECKS = 40


@dataclass(frozen=True, kw_only=True)
class Feed(Generic[T]):
    """Something of a job that is numbered and can be followed, such as its events.

    Attributes:
        newest: the number of the newest one, as the poller sees the job.
        gone: the number up to which they may have been deleted.
        read: reads what is in some spans, in the poller's thread.
        progress: what a stream shows when the job itself has moved; None for nothing.
    """

    newest: Callable[[Watched], int]
    gone: Callable[[Watched], int]
    read: Callable[[Session, Sequence[Span]], Mapping[Span, Sequence[T]]]
    progress: Callable[[Watched], T] | None


@dataclass(frozen=True, kw_only=True)
class Batch(Generic[T]):
    """What was read for the streams at one place, and the number up to which it goes."""

    items: Sequence[T]
    until: int


class Subscription(Generic[T]):
    """One stream's share: what it still has to send. Used on the event loop only.

    A consumer that does not keep up is not sent more until it does; what it misses meanwhile is read
    again from the database, so nothing is lost and nothing piles up.
    """

    def __init__(self, feed: Feed[T], job_id: str, after: int, key_id: str) -> None:
        self.feed = feed
        self.job_id = job_id
        self.key_id = key_id
        self.cursor = after
        self.seen: Watched | None = None
        self.ended = False
        self._items: deque[T] = deque()
        self._changed = asyncio.Event()

    @property
    def has_room(self) -> bool:
        """Whether the consumer keeps up."""
        return len(self._items) < CAPACITY

    @property
    def is_empty(self) -> bool:
        """Whether everything was handed out."""
        return not self._items

    @property
    def is_behind(self) -> bool:
        """Whether there was more than could be delivered at once."""
        return self.seen is not None and self.cursor < self.feed.newest(self.seen)

    def deliver(self, now: Watched, batch: Batch[T] | None) -> None:
        """Take what is new; where the job is comes first, so that the last item is one of the feed."""
        if self.feed.progress is not None and (self.seen is None or _shown(now) != _shown(self.seen)):
            self._items.append(self.feed.progress(now))
        self.seen = now
        if batch is not None:
            self._items.extend(batch.items)
            self.cursor = batch.until
        if now.status in TERMINAL and not self.is_behind:
            self.ended = True
        if self._items or self.ended:
            self._changed.set()

    def end(self) -> None:
        """End the stream after what it has."""
        self.ended = True
        self._changed.set()

    async def next(self, timeout: float) -> list[T]:
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


class _Place(NamedTuple):
    """Where one or many streams are."""

    feed: Feed[Any]
    job_id: str
    cursor: int


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What one look at the database brought."""

    jobs: Mapping[str, Watched]
    batches: Mapping[_Place, Batch[Any]]
    working_keys: frozenset[str] | None


class Streams:
    """All live streams of the process, and their poller."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._open: set[Subscription[Any]] = set()
        self._wanted = asyncio.Event()
        self._closing = False
        self._failing = False
        # A thread of its own: streams neither wait for requests nor take threads from them.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="streams")

    def __len__(self) -> int:
        return len(self._open)

    def subscribe(self, feed: Feed[T], job_id: str, after: int, key_id: str) -> Subscription[T]:
        """Open a stream that starts behind number `after`."""
        subscription = Subscription(feed, job_id, after, key_id)
        if self._closing:
            subscription.end()
        self._open.add(subscription)
        self._wanted.set()
        return subscription

    def unsubscribe(self, subscription: Subscription[Any]) -> None:
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
        await asyncio.sleep(SHORTEST_PAUSE_SECONDS)
        try:
            async with asyncio.timeout(seconds - SHORTEST_PAUSE_SECONDS):
                await self._wanted.wait()
        except TimeoutError:
            return
        self._wanted.clear()

    async def _poll(self, *, check_keys: bool) -> float:
        places = {s: _Place(s.feed, s.job_id, s.cursor) for s in self._open if s.has_room}
        key_ids = frozenset(s.key_id for s in self._open) if check_keys else None
        look = partial(self._look, frozenset(places.values()), key_ids)
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._thread, look)
        except SQLAlchemyError as error:
            if not self._failing:
                log.warning("live streams wait, the database does not answer: %s", type(error).__name__)
            self._failing = True
            return PAUSE_AFTER_FAILURE_SECONDS
        self._failing = False
        for subscription, place in places.items():
            job = found.jobs.get(subscription.job_id)
            if job is None:
                subscription.end()
            else:
                subscription.deliver(job, found.batches.get(place))
        if found.working_keys is not None:
            for subscription in [s for s in self._open if s.key_id not in found.working_keys]:
                subscription.end()
        # Who has a long way to go is not kept waiting.
        behind = any(subscription.is_behind for subscription in places)
        return SHORTEST_PAUSE_SECONDS if behind else POLL_SECONDS

    def _look(self, places: frozenset[_Place], key_ids: frozenset[str] | None) -> _Found:
        with reading(self._engine) as session:
            jobs = job_feed.watch(session, {place.job_id for place in places}) if places else {}
            batches: dict[_Place, Batch[Any]] = {}
            for feed in {place.feed for place in places}:
                batches |= _news(session, feed, jobs, [place for place in places if place.feed is feed])
            working = keys.working(session, key_ids) if key_ids is not None else None
        return _Found(jobs=jobs, batches=batches, working_keys=working)


def _news(
    session: Session, feed: Feed[T], jobs: Mapping[str, Watched], places: Sequence[_Place]
) -> dict[_Place, Batch[T]]:
    spans: dict[_Place, Span] = {}
    for place in places:
        job = jobs.get(place.job_id)
        if job is not None and feed.newest(job) > place.cursor:
            after = max(place.cursor, feed.gone(job))
            until = min(feed.newest(job), after + ITEMS_AT_ONCE)
            spans[place] = Span(job_id=place.job_id, after=after, until=until)
    found = feed.read(session, list(set(spans.values())))
    return {place: Batch(items=found[span], until=span.until) for place, span in spans.items()}


def _shown(job: Watched) -> tuple[object, ...]:
    return (job.status, job.phase, job.step, job.steps, job.eta_seconds, job.epsilon, job.samples_per_second)
