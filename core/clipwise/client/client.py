"""`Client`: everything that the service does, as methods that give `clipwise.wire` objects."""

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, final
from urllib.parse import quote

from clipwise.client.download import download
from clipwise.client.errors import RequestConflict, WaitTimeout
from clipwise.client.location import locate
from clipwise.client.pages import items, whole
from clipwise.client.stream import EVENTS, LINES, follow
from clipwise.client.transport import Transport, idempotency_key, read, retry_after
from clipwise.client.upload import form_of
from clipwise.data.schema import DatasetSchema
from clipwise.errors import InvalidSpec, NotFound
from clipwise.jobs.spec import JobSpec
from clipwise.jobs.states import TERMINAL, JobStatus
from clipwise.wire.datasets import Dataset, Visibility
from clipwise.wire.fleet import Queue, SignInLink, Worker
from clipwise.wire.jobs import (
    Artifact,
    Attempt,
    BulkResult,
    Checkpoint,
    Deleted,
    Event,
    Job,
    JobProgressed,
    KindDescription,
    LogLine,
    MetricSeries,
    Plan,
)
from clipwise.wire.listing import WireObject

T = TypeVar("T", bound=WireObject)

PLAN_SECONDS = 300.0
UPLOAD_ANSWER_SECONDS = 3600.0
SHORTEST_POLL_SECONDS, LONGEST_POLL_SECONDS = 0.2, 2.0
Spec = JobSpec | Mapping[str, Any]
BulkVerb = Literal["cancel", "pause", "resume", "retry", "delete"]
JobOrder = Literal["-created_at", "created_at", "name", "-name"]


@final
class Client:
    """A connection to a Clipwise service.

    Args:
        base_url: the service's address; `CLIPWISE_URL` without, then the embedded service of this machine.
        api_key: a key; `CLIPWISE_API_KEY` without, then the embedded service's own (for that service only).
        timeout: seconds to wait for a connection, and between two pieces of an answer.
        retries: how often a request is tried again after a lost connection or a 429, 502, 503 or 504.
            A create carries an idempotency key, so that it happens once however often it is sent.

    Raises:
        ServiceUnreachable: if no address is given and no embedded service runs.
        ConfigurationError: if the address or the key cannot be one.

    Example:
        >>> with Client() as client:  # doctest: +SKIP
        ...     job = client.submit(json.loads(Path("job.json").read_text()), wait=True)
        ...     client.download(job.id, "model.safetensors", "model.safetensors")
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = 30.0,
        retries: int = 4,
    ) -> None:
        self._transport = Transport(locate(base_url, api_key), timeout=timeout, retries=retries)
        self._retries = retries

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The service's address."""
        return self._transport.location.url

    def close(self) -> None:
        """Close every connection."""
        self._transport.close()

    # Jobs

    def submit(self, spec: Spec, *, wait: bool = False, timeout: float | None = None) -> Job:
        """Submit a job, and with `wait` return when it is over.

        Raises:
            InvalidRequest: if the specification is wrong; `problems` names each field.
            WaitTimeout: if `wait` takes longer than `timeout` seconds; the job goes on.
        """
        job = read(Job, self._create("/v1/jobs", json=_document(spec)))
        return self.wait(job.id, timeout=timeout) if wait else job

    def plan(self, spec: Spec, *, timeout: float = PLAN_SECONDS) -> Plan:
        """Return what a specification comes to (steps, noise, epsilon, parameters), creating nothing.

        Raises:
            InvalidRequest: if the specification is wrong; `problems` names each field.
            WaitTimeout: if the calibration takes longer than `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            response = self._transport.request("POST", "/v1/jobs/validate", json=_document(spec))
            if response.status_code != HTTPStatus.ACCEPTED:
                return read(Plan, response)
            pause = retry_after(response, default=1.0)
            if time.monotonic() + pause > deadline:
                raise WaitTimeout(
                    f"the plan is not ready after {timeout:g} s; ask again, it is computed once"
                )
            time.sleep(pause)

    def jobs(
        self,
        *,
        status: Sequence[JobStatus | str] = (),
        dataset: str | None = None,
        model: str | None = None,
        queue: str | None = None,
        parent: str | None = None,
        created_by: str | None = None,
        tags: Sequence[str] = (),
        search: str | None = None,
        sort: JobOrder = "-created_at",
        limit: int | None = None,
    ) -> Iterator[Job]:
        """Iterate over jobs, the newest first.

        Args:
            status: one of these; all without.
            dataset: id or name of their data set.
            model: kind of their model.
            queue: name of their queue.
            parent: id of the job that they were made from.
            created_by: id of the key that submitted them; `me` for this one.
            tags: each as `key:value`; all must match.
            search: part of their name.
            sort: their order.
            limit: how many at most.
        """
        params = {
            "status": [str(one) for one in status] or None,
            "dataset": dataset,
            "model": model,
            "queue": queue,
            "parent": parent,
            "created_by": created_by,
            "tag": list(tags) or None,
            "q": search,
            "sort": sort,
        }
        return items(self._transport, "/v1/jobs", Job, params, limit=limit)

    def job(self, job_id: str) -> Job:
        """Return a job.

        Raises:
            ResourceNotFound: if there is none with this id.
        """
        return read(Job, self._transport.request("GET", f"/v1/jobs/{_id(job_id)}"))

    def cancel(self, job_id: str) -> Job:
        """Ask a job to stop; one that is stopping or was cancelled already is returned as it is.

        Raises:
            RequestConflict: if it has ended otherwise.
        """
        return self._change(job_id, "cancel", {JobStatus.CANCELLING, JobStatus.CANCELLED})

    def pause(self, job_id: str) -> Job:
        """Ask a job to write a checkpoint and wait; one that is pausing or paused is returned as it is.

        Raises:
            RequestConflict: if it neither waits nor runs.
        """
        return self._change(job_id, "pause", {JobStatus.PAUSING, JobStatus.PAUSED})

    def resume(self, job_id: str) -> Job:
        """Put a paused job back into its queue; one that waits or runs already is returned as it is.

        Raises:
            RequestConflict: if it is stopping, or has ended.
        """
        return self._change(job_id, "resume", {JobStatus.QUEUED, JobStatus.RUNNING})

    def retry(self, job_id: str, *, wait: bool = False, timeout: float | None = None) -> Job:
        """Submit a job that failed or was cancelled again, as a new one, and with `wait` see it through.

        Raises:
            RequestConflict: if it has not ended so.
            WaitTimeout: if `wait` takes longer than `timeout` seconds; the job goes on.
        """
        job = read(Job, self._create(f"/v1/jobs/{_id(job_id)}/retry"))
        return self.wait(job.id, timeout=timeout) if wait else job

    def clone(
        self,
        job_id: str,
        changes: Mapping[str, Any] | None = None,
        *,
        wait: bool = False,
        timeout: float | None = None,
    ) -> Job:
        """Submit a new job with the specification of another one, and with `wait` see it through.

        Args:
            job_id: the other one.
            changes: what is different, as a JSON merge patch (RFC 7396); None removes a field.
            wait: return when the new job is over.
            timeout: seconds to wait at most.

        Raises:
            InvalidRequest: if what comes out is wrong; `problems` names each field of it.
            WaitTimeout: if `wait` takes longer than `timeout` seconds; the job goes on.
        """
        body = {"changes": _document(changes or {})}
        job = read(Job, self._create(f"/v1/jobs/{_id(job_id)}/clone", json=body))
        return self.wait(job.id, timeout=timeout) if wait else job

    def bulk(
        self,
        verb: BulkVerb,
        *,
        ids: Sequence[str] = (),
        status: Sequence[JobStatus | str] = (),
        dataset: str | None = None,
        model: str | None = None,
        queue: str | None = None,
        parent: str | None = None,
        created_by: str | None = None,
        tags: Sequence[str] = (),
        search: str | None = None,
    ) -> BulkResult:
        """Apply a verb to every job of a selection, the oldest first; the conditions are those of `jobs`.

        Returns:
            What was changed (where it is `retry`: made), and what refused, with the reason.

        Raises:
            InvalidRequest: if there is no condition at all.
        """
        conditions = {
            "ids": list(ids),
            "status": [str(one) for one in status],
            "dataset": dataset,
            "model": model,
            "queue": queue,
            "parent": parent,
            "created_by": created_by,
            "tag": list(tags),
            "q": search,
        }
        body: dict[str, Any] = {
            "verb": verb,
            "filter": {name: value for name, value in conditions.items() if value},
        }
        found = BulkResult(changed=[], refused=[], has_more=True)
        while found.has_more:
            part = read(BulkResult, self._create("/v1/jobs/bulk", json=body))
            found = part.model_copy(
                update={
                    "changed": [*found.changed, *part.changed],
                    "refused": [*found.refused, *part.refused],
                }
            )
            body["after"] = part.next_cursor
        return found

    def delete(self, job_id: str) -> Deleted:
        """Delete a job that is over, with its artifacts.

        Raises:
            RequestConflict: if it is not over.
        """
        path = f"/v1/jobs/{_id(job_id)}"
        return read(Deleted, self._transport.request("DELETE", path, repeatable=False))

    def wait(self, job_id: str, *, timeout: float | None = None) -> Job:
        """Return the job when it has ended, however it has.

        Raises:
            WaitTimeout: after `timeout` seconds; the job goes on.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = SHORTEST_POLL_SECONDS
        while True:
            job = self.job(job_id)
            if job.status in TERMINAL:
                return job
            if deadline is not None and time.monotonic() + pause > deadline:
                raise WaitTimeout(f"{job_id} is {job.status} after {timeout:g} s; it goes on")
            time.sleep(pause)
            pause = min(pause * 1.2, LONGEST_POLL_SECONDS)

    def events(self, job_id: str, *, after: int = 0) -> Iterator[Event]:
        """Iterate over what has happened to a job so far, after event number `after`."""
        path = f"/v1/jobs/{_id(job_id)}/events"
        return items(self._transport, path, Event, {}, start=str(after) if after else None)

    def stream(self, job_id: str, *, after: int = 0) -> Iterator[Event | JobProgressed]:
        """Iterate over a job's events as they happen, each once, and its progress, until the job is over.

        Connects again by itself, from the last event on.

        Raises:
            ServiceUnreachable: if connecting again fails too often.
        """

        def is_over(last: int) -> bool:
            return self.job(job_id).status in TERMINAL and next(self.events(job_id, after=last), None) is None

        return self._follow(f"/v1/jobs/{_id(job_id)}/events", EVENTS, after=after, is_over=is_over)

    def metrics(
        self,
        job_id: str,
        *,
        names: Sequence[str] = (),
        after_step: int | None = None,
        max_points: int | None = None,
    ) -> dict[str, MetricSeries]:
        """Return a job's metrics by name: those in `names`, all without; thinned out to `max_points`."""
        params = {"name": list(names) or None, "after_step": after_step, "max_points": max_points}
        path = f"/v1/jobs/{_id(job_id)}/metrics"
        return read(dict[str, MetricSeries], self._transport.request("GET", path, params=params))

    def logs(self, job_id: str, *, after: int = 0) -> Iterator[LogLine]:
        """Iterate over what a job's runners have printed so far, after line number `after`."""
        path = f"/v1/jobs/{_id(job_id)}/logs"
        return items(self._transport, path, LogLine, {}, start=str(after) if after else None)

    def stream_logs(self, job_id: str, *, after: int = 0) -> Iterator[LogLine]:
        """Iterate over what a job's runners print, each line once, until the job is over.

        Begins behind line number `after`, or with the first line that is kept (of a job's lines the last
        10,000 are), and connects again by itself.

        Raises:
            ServiceUnreachable: if connecting again fails too often.
        """

        def is_over(last: int) -> bool:
            return self.job(job_id).status in TERMINAL and next(self.logs(job_id, after=last), None) is None

        return self._follow(f"/v1/jobs/{_id(job_id)}/logs", LINES, after=after, is_over=is_over)

    def attempts(self, job_id: str) -> Iterator[Attempt]:
        """Iterate over a job's attempts, the first one first."""
        return items(self._transport, f"/v1/jobs/{_id(job_id)}/attempts", Attempt, {})

    def checkpoints(self, job_id: str) -> list[Checkpoint]:
        """Return what a job can go on from, the newest first."""
        return whole(self._transport, f"/v1/jobs/{_id(job_id)}/checkpoints", Checkpoint)

    def download_checkpoint(self, job_id: str, step: int, path: str | Path) -> Path:
        """Download a checkpoint to `path` (a file, or a folder to put it in), its SHA-256 checked.

        Raises:
            NotFound: if the job has no checkpoint of this step.
            DownloadFailed: if it does not arrive as announced; nothing is left behind.
        """
        found = {checkpoint.step: checkpoint for checkpoint in reversed(self.checkpoints(job_id))}
        if step not in found:
            steps = ", ".join(str(one) for one in sorted(found))
            raise NotFound(f"{job_id} has no checkpoint of step {step}; it has: {steps or 'none'}")
        target = Path(path)
        return download(
            self._transport,
            f"/v1/jobs/{_id(job_id)}/checkpoints/{step}",
            target / f"checkpoint-{step}.safetensors" if target.is_dir() else target,
            what=f"the checkpoint of step {step} of {job_id}",
            sha256=found[step].sha256,
        )

    def artifacts(self, job_id: str) -> list[Artifact]:
        """Return the files that a job left."""
        return whole(self._transport, f"/v1/jobs/{_id(job_id)}/artifacts", Artifact)

    def download(self, job_id: str, name: str, path: str | Path) -> Path:
        """Download an artifact to `path` (a file, or a folder to put it in), its SHA-256 checked.

        Raises:
            NotFound: if the job has no such artifact.
            DownloadFailed: if it does not arrive as announced; nothing is left behind.
        """
        found = {artifact.name: artifact for artifact in self.artifacts(job_id)}
        if name not in found:
            raise NotFound(
                f"{job_id} has no artifact '{name}'; it has: {', '.join(sorted(found)) or 'none yet'}"
            )
        target = Path(path)
        target = target / Path(name).name if target.is_dir() else target
        return download(
            self._transport,
            f"/v1/jobs/{_id(job_id)}/artifacts/{_id(name)}",
            target,
            what=f"'{name}' of {job_id}",
            sha256=found[name].sha256,
        )

    # Data sets

    def datasets(self, *, limit: int | None = None) -> Iterator[Dataset]:
        """Iterate over the data sets."""
        return items(self._transport, "/v1/datasets", Dataset, {}, limit=limit)

    def dataset(self, dataset_id: str) -> Dataset:
        """Return a data set by its id or name."""
        return read(Dataset, self._transport.request("GET", f"/v1/datasets/{_id(dataset_id)}"))

    def add_dataset(
        self,
        path: str | Path,
        *,
        name: str | None = None,
        schema: DatasetSchema | Mapping[str, Any] | None = None,
        visibility: Visibility | None = None,
        max_rows_per_person: int | None = None,
        population: str | None = None,
        target: str | None = None,
    ) -> Dataset:
        """Upload a CSV, Parquet or NPZ file.

        Args:
            path: the file.
            name: what the data set is called; the file's name without its ending by default.
            schema: what its columns mean; without, the service proposes one for you to confirm.
            visibility: whether the people whom it is about need protection; private without.
            max_rows_per_person: how many rows one of them may own; the service asks where it is private.
            population: name of the people whom it is about; they share one privacy budget.
            target: the column to predict, for the service's proposal.

        Raises:
            InvalidRequest: if the file cannot be read; `row` and `column` say where.
        """
        key = idempotency_key()
        form = form_of(
            Path(path),
            name=name,
            schema=_document(schema) if schema is not None else None,
            visibility=visibility,
            max_rows_per_person=max_rows_per_person,
            population=population,
            target=target,
        )
        response = self._transport.request(
            "POST",
            "/v1/datasets",
            # One boundary for every try: the same request, byte by byte.
            headers={"Idempotency-Key": key, "Content-Type": f"multipart/form-data; boundary={key}"},
            body=form,
            read_timeout=UPLOAD_ANSWER_SECONDS,
        )
        return read(Dataset, response)

    def confirm_schema(
        self, dataset_id: str, schema: DatasetSchema | Mapping[str, Any] | None = None
    ) -> Dataset:
        """Confirm a data set's proposed schema, or replace it by `schema`.

        Raises:
            InvalidRequest: if the schema is wrong, or does not fit the file.
            RequestConflict: if somebody changed it meanwhile.
        """
        path = f"/v1/datasets/{_id(dataset_id)}"
        current = self._transport.request("GET", path)
        body = _document(schema) if schema is not None else json.loads(current.content)["schema"]
        etag = current.headers.get("ETag")
        response = self._transport.request(
            "PUT",
            f"{path}/schema",
            json=body,
            headers={"If-Match": etag} if etag else None,
            read_timeout=UPLOAD_ANSWER_SECONDS,
        )
        return read(Dataset, response)

    def delete_dataset(self, dataset_id: str) -> Deleted:
        """Delete a data set and its rows."""
        path = f"/v1/datasets/{_id(dataset_id)}"
        return read(Deleted, self._transport.request("DELETE", path, repeatable=False))

    # The rest

    def models(self) -> list[KindDescription]:
        """Return the catalogue of models, each with the JSON schema of its configuration."""
        return whole(self._transport, "/v1/models", KindDescription)

    def workers(self) -> list[Worker]:
        """Return the workers that have registered."""
        return whole(self._transport, "/v1/workers", Worker)

    def drain(self, worker_id: str) -> Worker:
        """Have a worker take no more jobs, and put back those that it has."""
        return read(Worker, self._transport.request("POST", f"/v1/workers/{_id(worker_id)}/drain"))

    def undrain(self, worker_id: str) -> Worker:
        """Have a worker that was drained take jobs again."""
        return read(Worker, self._transport.request("POST", f"/v1/workers/{_id(worker_id)}/undrain"))

    def queues(self) -> list[Queue]:
        """Return the queues."""
        return whole(self._transport, "/v1/queues", Queue)

    def sign_in_link(self) -> SignInLink:
        """Return a link that signs one browser in to the dashboard, once. Secret until it is used."""
        return read(SignInLink, self._create("/v1/sign_in_links"))

    def _change(self, job_id: str, verb: str, settled: Collection[JobStatus]) -> Job:
        # A conflict may be with a try of ours whose answer was lost: what was wanted is so already.
        try:
            return read(Job, self._transport.request("POST", f"/v1/jobs/{_id(job_id)}/{verb}"))
        except RequestConflict:
            job = self.job(job_id)
            if job.status in settled:
                return job
            raise

    def _follow(
        self, path: str, kinds: Mapping[str, type[T]], *, after: int, is_over: Callable[[int], bool]
    ) -> Iterator[T]:
        return follow(self._transport, path, kinds, after=after, reconnects=self._retries, is_over=is_over)

    def _create(self, path: str, *, json: Any = None) -> Any:
        headers = {"Idempotency-Key": idempotency_key()}
        return self._transport.request("POST", path, json=json, headers=headers)


def _document(given: JobSpec | DatasetSchema | Mapping[str, Any]) -> dict[str, Any]:
    document = given.as_json() if isinstance(given, JobSpec | DatasetSchema) else dict(given)
    try:
        json.dumps(document, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidSpec(
            f"this cannot be written as JSON ({error}); use finite numbers, strings and lists"
        ) from error
    return document


def _id(given: str) -> str:
    # An id becomes a part of a path: what it holds must not be read as further parts.
    return quote(given, safe="")
