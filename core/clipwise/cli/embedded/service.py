"""`EmbeddedService`: starts, watches, restarts and stops the processes of `clipwise up`."""

import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self, final

import httpx

from clipwise.cli.embedded.child import Child, dying_with_parent
from clipwise.cli.embedded.folder import held
from clipwise.cli.embedded.interrupts import uninterrupted
from clipwise.cli.embedded.ports import choose_port, reachable_url
from clipwise.client import Client
from clipwise.client.location import KEY_FILE, ServiceFile
from clipwise.errors import ClipwiseError, ConfigurationError, Unavailable
from clipwise.settings import Settings

START_SECONDS = 60.0
REGISTER_SECONDS = 30.0
KILL_AFTER_SECONDS = 4.5
CHECK_SECONDS = 0.25
STARTING_POLL_SECONDS = 0.03
LIVES, LIVES_WITHIN_SECONDS = 4, 60.0
"""An api that dies so often within so long is given up; so is a worker, which is only restarted later."""
LONGEST_PAUSE_SECONDS = 30.0


class ServiceStopped(Unavailable):
    """The embedded service cannot go on."""

    code = "service_stopped"


@final
class EmbeddedService:
    """Api, dashboard and one worker on a data folder; use it in a `with` statement, in the main thread.

    Args:
        settings: where it keeps its data and listens.
        say: told what people should know, one line at a time.
    """

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self.folder = settings.data_dir.resolve()
        self._settings = settings
        self._say = say
        self._stack = ExitStack()
        self._children: tuple[Child, ...] = ()
        self._deaths: dict[str, deque[float]] = {}
        self._restart_at: dict[str, float] = {}
        self.url = ""
        self.sign_in_url = ""
        self.timings: dict[str, float] = {}

    def __enter__(self) -> Self:
        """Start everything and return when jobs can be submitted.

        Raises:
            AlreadyRunning: if a service runs on this folder.
            ConfigurationError: if a setting is wrong, a port is taken, or the database cannot be migrated.
            ServiceStopped: if a process dies while it starts; its last lines have been said.
        """
        try:
            self._stack.enter_context(held(self.folder))
            self._stack.callback(self._stop)
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def client(self) -> Client:
        """Return a client with the service's first key."""
        return Client(self.url, api_key=_first_key(self._settings, self.folder))

    def check(self) -> None:
        """Restart what has died; call it a few times a second.

        Raises:
            ServiceStopped: if the api dies again and again.
        """
        for child in self._children:
            if child.exit_code is None:
                child.limit_log()
                continue
            now = time.monotonic()
            if child.name not in self._restart_at:
                self._plan_restart(child, now)
            elif now >= self._restart_at[child.name]:
                del self._restart_at[child.name]
                child.start()

    def serve(self) -> None:
        """Go on until a signal's exception ends it."""
        while True:
            self.check()
            time.sleep(CHECK_SECONDS)

    def _start(self) -> None:
        host, begun = self._settings.host, datetime.now(UTC)
        given = "CLIPWISE_PORT" in os.environ and self._settings.port != 0
        port = choose_port(host, self._settings.port, given=given, say=self._say)
        self.url = reachable_url(host, port)
        environment = {
            **os.environ,
            "CLIPWISE_DATA_DIR": str(self.folder),
            "CLIPWISE_HOST": host,
            "CLIPWISE_PORT": str(port),
            "PYTHONUNBUFFERED": "1",
        }
        with self._timed("migrate"):
            _migrate(environment)
        logs = self.folder / "logs"
        self._children = (
            Child("api", "clipwise_api", logs / "api.log", environment),
            Child("worker", "clipwise_worker", logs / "worker.log", environment),
        )
        for child in self._children:
            child.start()
        with self._timed("api"):
            self._wait_for_api()
        with self._timed("worker"):
            self._wait_for_worker(begun)
        with self.client() as client:
            self.sign_in_url = client.sign_in_link().url
        ServiceFile(url=self.url, pid=os.getpid()).write(self.folder)

    def _wait_for_api(self) -> None:
        # A proxy named by the environment cannot reach this machine's loopback interface.
        with httpx.Client(trust_env=False, timeout=5.0) as http:
            deadline, answer = time.monotonic() + START_SECONDS, "no answer"
            while time.monotonic() < deadline:
                self._require_alive()
                try:
                    response = http.get(f"{self.url}/readyz")
                    if response.status_code == httpx.codes.OK:
                        return
                    answer = response.text[:500]
                except httpx.TransportError:
                    pass
                time.sleep(STARTING_POLL_SECONDS)
        raise self._stopped(self._children[0], f"is not ready after {START_SECONDS:g} s ({answer})")

    def _wait_for_worker(self, begun: datetime) -> None:
        # One that a killed service left in the database may still count as alive.
        earliest = begun - timedelta(seconds=1)
        deadline = time.monotonic() + REGISTER_SECONDS
        with self.client() as client:
            while time.monotonic() < deadline:
                self._require_alive()
                if any(worker.alive and worker.started_at >= earliest for worker in client.workers()):
                    return
                time.sleep(STARTING_POLL_SECONDS)
        self._say(f"The worker has not registered after {REGISTER_SECONDS:g} s; jobs wait until it has.")

    def _require_alive(self) -> None:
        for child in self._children:
            if child.exit_code is not None:
                raise self._stopped(child, f"ended with code {child.exit_code}")

    def _plan_restart(self, child: Child, now: float) -> None:
        deaths = self._deaths.setdefault(child.name, deque(maxlen=LIVES))
        deaths.append(now)
        often = len(deaths) == LIVES and now - deaths[0] < LIVES_WITHIN_SECONDS
        if often and child.name == "api":
            raise self._stopped(child, f"ended with code {child.exit_code}, {LIVES} times in a minute")
        recent = sum(now - death < LIVES_WITHIN_SECONDS for death in deaths)
        pause = LONGEST_PAUSE_SECONDS if often else 0.5 * 2.0 ** (recent - 1)
        self._say_last_lines(child)
        self._say(f"The {child.name} ended with code {child.exit_code}; it starts again in {pause:g} s.")
        self._restart_at[child.name] = now + pause

    def _stopped(self, child: Child, what: str) -> ServiceStopped:
        self._say_last_lines(child)
        return ServiceStopped(f"the {child.name} {what}; its log is {child.log}")

    def _say_last_lines(self, child: Child) -> None:
        for line in child.last_lines():
            self._say(f"  {child.name} | {line}")

    def _stop(self) -> None:
        with uninterrupted():
            deadline = time.monotonic() + KILL_AFTER_SECONDS
            for child in self._children:
                child.terminate()
            while any(child.exit_code is None for child in self._children) and time.monotonic() < deadline:
                time.sleep(0.02)
            for child in self._children:
                if child.exit_code is None:
                    self._say(f"The {child.name} did not end by itself and was killed.")
                child.kill()

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        begun = time.monotonic()
        yield
        self.timings[what] = time.monotonic() - begun


def _migrate(environment: dict[str, str]) -> None:
    # In a process of its own, so that this one stays small for as long as it serves.
    done = subprocess.run(  # our own interpreter and package
        [sys.executable, "-m", "clipwise.cli", "migrate", "--json"],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        umask=0o077,
        preexec_fn=dying_with_parent(),  # there are no threads here
    )
    if done.returncode:
        raise ConfigurationError(f"the database could not be migrated: {_detail_of(done.stderr)}")


def _detail_of(output: str) -> str:
    for line in reversed(output.strip().splitlines()):
        try:
            return str(json.loads(line)["detail"])
        except (ValueError, KeyError, TypeError):
            continue
    return output.strip() or "it printed nothing"


def _first_key(settings: Settings, folder: Path) -> str:
    if settings.api_key is not None:
        return settings.api_key.get_secret_value()
    try:
        return (folder / KEY_FILE).read_text().strip()
    except OSError as error:
        raise ClipwiseError(f"the api made no key in '{folder / KEY_FILE}' ({error.strerror})") from error
