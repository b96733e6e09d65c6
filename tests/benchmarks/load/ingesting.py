"""Metrics written: by our workers to the database, and through MLflow's tracking server to the same one.

Both write ten metrics a step, of as many attempts or runs at once. MLflow is sent batches of the thousand
metrics that a request may have, as JSON that was made beforehand, over connections that are kept: what its
own client would take is left out.
"""

import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import Engine, create_engine, func, make_url, select, text

from clipwise.store.attempts import Attempt
from clipwise.store.sessions import reading
from clipwise.store.tables import MetricRow
from tests.benchmarks.load import claiming, telling
from tests.benchmarks.load.arrivals import ROOT
from tests.benchmarks.load.stack import ALL_CORES, Served, Stack, api, migrated, pinned, served

ATTEMPTS = 4
METRICS_OF_A_REQUEST = 1000
STEPS_OF_A_REQUEST = METRICS_OF_A_REQUEST // len(telling.NAMES)
MLFLOW_SETTINGS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
"""Nothing that runs beside its tracking server."""
MLFLOW = ROOT / ".venv" / "mlflow" / "bin" / "mlflow"


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Points a second of each round, ours and MLflow's."""

    ours: Sequence[float]
    mlflow: Sequence[float]
    mlflow_version: str

    @property
    def ratios(self) -> list[float]:
        """Return ours over MLflow's, round by round."""
        return [a / b for a, b in zip(self.ours, self.mlflow, strict=True)]


def measure(stack: Stack, rounds: int, seconds: float, mlflow: Path = MLFLOW) -> Rates:
    """Return the rates, taken in turns; all servers and writers share all cores."""
    ours: list[float] = []
    theirs: list[float] = []
    database = make_url(stack.database("mlflow")).set(drivername="postgresql+psycopg2")
    command = [
        *(str(mlflow), "server", "--host", "127.0.0.1", "--port", "{port}", "--workers", str(ATTEMPTS)),
        *("--backend-store-uri", database.render_as_string(hide_password=False)),
        *("--artifacts-destination", str(stack.folder / "mlartifacts")),
    ]
    with (
        migrated(stack, "metrics") as engine,
        served(
            command, MLFLOW_SETTINGS, "PORT", "/health", stack.folder / "mlflow.log", cores=ALL_CORES
        ) as peer,
    ):
        with api(stack, engine):
            pass  # its first start makes the key and the data sets
        runs = [_run(peer) for _ in range(ATTEMPTS)]
        for number in range(rounds):
            first = 1 + number * 10_000_000
            ours.append(_ours(engine, claiming.owned(engine, ATTEMPTS), first, seconds))
            theirs.append(_mlflow(peer, runs, first, seconds))
        _check(database.set(drivername="postgresql+psycopg").render_as_string(hide_password=False), runs)
    version = subprocess.run([str(mlflow), "--version"], capture_output=True, text=True, check=True).stdout
    return Rates(ours=ours, mlflow=theirs, mlflow_version=version.split()[-1])


def _ours(engine: Engine, attempts: Sequence[Attempt], first: int, seconds: float) -> float:
    before = _count(engine)
    with pinned(ALL_CORES):
        workers = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.benchmarks.load.telling"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=ROOT,
                text=True,
            )
            for _ in attempts
        ]
    for worker, attempt in zip(workers, attempts, strict=True):
        given = {
            "database": engine.url.render_as_string(hide_password=False),
            "attempt": asdict(attempt),
            "first": first,
            "seconds": seconds,
        }
        _say(worker, json.dumps(given))
    for worker in workers:
        assert _hear(worker) == "ready"
    for worker in workers:
        _say(worker, "go")
    told = [json.loads(_hear(worker)) for worker in workers]
    for worker in workers:
        worker.communicate()
    points = sum(each["points"] for each in told)
    if (written := _count(engine) - before) != points:
        raise RuntimeError(f"{written} points were written instead of {points}")
    return sum(each["points"] / each["seconds"] for each in told)


def _say(worker: subprocess.Popen[str], line: str) -> None:
    assert worker.stdin is not None
    worker.stdin.write(f"{line}\n")
    worker.stdin.flush()


def _hear(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout is not None
    return worker.stdout.readline().strip()


def _count(engine: Engine) -> int:
    with reading(engine) as session:
        return session.execute(select(func.count()).select_from(MetricRow)).scalar_one()


def _run(peer: Served) -> str:
    connection = http.client.HTTPConnection(urlsplit(peer.url).netloc)
    body = json.dumps({"experiment_id": "0", "start_time": int(time.time() * 1000)})
    answer = _post(connection, "runs/create", body)
    connection.close()
    return str(json.loads(answer)["run"]["info"]["run_id"])


def _mlflow(peer: Served, runs: Sequence[str], first: int, seconds: float) -> float:
    rates: list[float] = []
    ready = threading.Barrier(len(runs))
    writers = [
        threading.Thread(target=lambda run=run: rates.append(_write(peer, run, first, seconds, ready)))
        for run in runs
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    if len(rates) != len(runs):
        raise RuntimeError("MLflow did not take what it was sent")
    return sum(rates)


def _write(peer: Served, run: str, first: int, seconds: float, ready: threading.Barrier) -> float:
    connection = http.client.HTTPConnection(urlsplit(peer.url).netloc)
    _post(connection, "runs/log-batch", _batch(run, first - 1, 1))  # opens the connection, on both sides
    waiting = [_batch(run, first + STEPS_OF_A_REQUEST * n, STEPS_OF_A_REQUEST) for n in range(10)]
    ready.wait()
    begun, sent = time.monotonic(), 0
    while time.monotonic() < begun + seconds:
        paused = time.monotonic()
        if not waiting:
            waiting = [
                _batch(run, first + STEPS_OF_A_REQUEST * (sent + n), STEPS_OF_A_REQUEST) for n in range(10)
            ]
        begun += time.monotonic() - paused
        _post(connection, "runs/log-batch", waiting.pop(0))
        sent += 1
    connection.close()
    return sent * METRICS_OF_A_REQUEST / (time.monotonic() - begun)


def _batch(run: str, first: int, steps: int) -> str:
    now = int(time.time() * 1000)
    metrics = [
        {"key": name, "value": telling.value(number, step), "timestamp": now, "step": step}
        for step in range(first, first + steps)
        for number, name in enumerate(telling.NAMES)
    ]
    return json.dumps({"run_id": run, "metrics": metrics})


def _post(connection: http.client.HTTPConnection, path: str, body: str) -> bytes:
    connection.request("POST", f"/api/2.0/mlflow/{path}", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"MLflow answered {answer.status}: {content[:500]!r}")
    return content


def _check(url: str, runs: Sequence[str]) -> None:
    """See that MLflow has written every run's metrics, so that no answer was empty words."""
    engine = create_engine(url)
    with engine.connect() as connection:
        found = connection.execute(text("SELECT count(DISTINCT run_uuid) FROM metrics")).scalar_one()
    engine.dispose()
    if found != len(runs):
        raise RuntimeError(f"MLflow has metrics of {found} runs instead of {len(runs)}")
