"""What processes log: in both formats, with ids, without secrets; seen from outside, on standard error."""

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from clipwise import logs
from clipwise.logs import LineFormatter
from clipwise.settings import Settings

Line = Callable[..., str]
log = logging.getLogger("clipwise.some.module")


@pytest.fixture(params=["text", "json"])
def line(request: pytest.FixtureRequest) -> Line:
    """Return a function that makes the line of a record, in both formats."""

    def make(message: str, *arguments: object, secrets: tuple[str, ...] = (), **options: Any) -> str:
        record = log.makeRecord(log.name, logging.WARNING, "file.py", 1, message, arguments, None, **options)
        return LineFormatter(request.param, "api", {"worker_id": "worker_1"}, secrets).format(record)

    return make


def error(text: str) -> Exception:
    try:
        raise RuntimeError(text)
    except RuntimeError as raised:
        return raised


def as_json(message: str, **options: Any) -> dict[str, Any]:
    record = log.makeRecord(log.name, logging.WARNING, "file.py", 1, message, (), None, **options)
    document: dict[str, Any] = json.loads(LineFormatter("json", "api").format(record))
    return document


def test_a_line_of_text_has_level_logger_message_and_ids(line: Line) -> None:
    record = log.makeRecord(log.name, logging.INFO, "file.py", 1, "hello %s", ("you",), None)
    with logs.context(request_id="req_1", job_id="job_1", attempt=2):
        text = LineFormatter("text", "api").format(record)
    assert text.endswith(" INFO clipwise.some.module: hello you [request_id=req_1 job_id=job_1 attempt=2]")
    assert LineFormatter("text", "api").format(record).endswith("hello you")


def test_a_line_of_json_has_a_time_in_utc_and_everything_by_name() -> None:
    with logs.context(job_id="job_1", attempt=2):
        found = as_json("hello\nthere")
    at = datetime.fromisoformat(found.pop("timestamp"))
    assert at.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - at) < timedelta(minutes=1)
    assert found == {
        "level": "WARNING",
        "logger": "clipwise.some.module",
        "message": "hello\nthere",
        "service": "api",
        "job_id": "job_1",
        "attempt": 2,
    }


def test_fields_of_a_call_become_fields_of_the_line_and_numbers_stay_numbers() -> None:
    found = as_json(
        "GET", extra={"status": 200, "route": "/v1/jobs/{job_id}", "seconds": 0.5, "key_id": None}
    )
    assert (found["status"], found["route"], found["seconds"]) == (200, "/v1/jobs/{job_id}", 0.5)
    assert found["key_id"] is None


def test_a_traceback_is_part_of_the_line_of_json() -> None:
    raised = error("broken")
    record = log.makeRecord(
        log.name, logging.ERROR, "f", 1, "x", (), (type(raised), raised, raised.__traceback__)
    )
    text = LineFormatter("json", "api").format(record)
    assert "\n" not in text
    assert json.loads(text)["exception"].endswith("RuntimeError: broken")


def test_no_secret_is_left_wherever_it_stands(line: Line) -> None:
    url = "postgresql://u:S3cr3t@db/x"
    raised = error(url)
    record = log.makeRecord(
        log.name, logging.ERROR, "f", 1, "%s", (url,), (type(raised), raised, raised.__traceback__)
    )
    for log_format in ("text", "json"):
        assert "S3cr3t" not in LineFormatter(log_format, "api").format(record)  # type: ignore[arg-type]
    assert "S3cr3t" not in line("%s and %r", url, {"password": "S3cr3t"})
    assert "S3cr3t" not in line(
        "x", extra={"where": url, "headers": {"authorization": "Bearer S3cr3tS3cr3t"}}
    )
    with logs.context(request_id="cw_S3cr3tS3cr3tS3cr3tS3cr3tS3cr3t"):
        assert "S3cr3t" not in line("x")


def test_the_record_itself_stays_as_it_was_for_other_handlers() -> None:
    record = log.makeRecord(log.name, logging.INFO, "f", 1, "%s", ("redis://:pw@h",), None)
    before = dict(vars(record))
    LineFormatter("json", "api", {"worker_id": "w"}).format(record)
    assert vars(record) == before


def test_the_secrets_of_the_settings_are_replaced_wherever_they_are_quoted(line: Line) -> None:
    settings = Settings(
        api_key=SecretStr("0123456789abcdef0123456789abcdef"),
        database_url="postgresql+psycopg://u:p%40ssw0rd-of-db@db/x",
        broker_url="redis://:brokers-password@redis/0",
        artifacts_url="s3://bucket",
    )
    secrets = logs.secrets_of(settings)
    text = line(
        "refused 0123456789abcdef0123456789abcdef, p@ssw0rd-of-db, p%40ssw0rd-of-db, brokers-password",
        secrets=secrets,
    )
    for secret in ("0123456789abcdef", "ssw0rd-of-db", "brokers-password"):
        assert secret not in text
    assert text.count(logs.MASK) == 4


def test_a_short_password_does_not_tear_lines_apart() -> None:
    assert (
        logs.secrets_of(Settings(database_url="postgresql+psycopg://u:a@db/x", api_key=SecretStr("b"))) == ()
    )


def test_contexts_nest_and_end() -> None:
    with logs.context(request_id="req_1"):
        with logs.context(job_id="job_1", attempt=1), logs.context(attempt=2, job_id=None):
            found = as_json("x")
            assert (found["request_id"], found["job_id"], found["attempt"]) == ("req_1", "job_1", 2)
        assert "job_id" not in as_json("x")
    assert "request_id" not in as_json("x")


def test_threads_and_tasks_do_not_see_the_context_of_others() -> None:
    def within(number: int) -> tuple[int, int]:
        with logs.context(attempt=number):
            return number, as_json("x")["attempt"]

    with logs.context(job_id="job_1"), ThreadPoolExecutor(8) as pool:
        assert all(wanted == found for wanted, found in pool.map(within, range(200)))

    async def task(number: int) -> tuple[int, int]:
        with logs.context(attempt=number):
            await asyncio.sleep(0)
            return number, as_json("x")["attempt"]

    async def tasks() -> list[tuple[int, int]]:
        return await asyncio.gather(*(task(number) for number in range(200)))

    assert all(wanted == found for wanted, found in asyncio.run(tasks()))


CONFIGURE = {
    "api": "logs.configure('api', Settings())",
    "worker": "logs.configure('worker', Settings(), worker_id='worker_7')",
    "runner": "logs.configure_runner('json', job_id='job_7', attempt=3)",
}
SCRIPT = """
import logging, threading, warnings
from clipwise import logs
from clipwise.settings import Settings
logs.configure("before")
{configure}
threading.Thread(target=logging.getLogger("clipwise.x").info, args=("hello redis://:S3cr3t@h",)).start()
logging.getLogger("kombu.transport").info("chatter")
logging.getLogger("clipwise.x").debug("too much")
warnings.warn("careful")
"""


@pytest.mark.parametrize("service", CONFIGURE)
def test_a_process_logs_json_to_standard_error_and_nothing_twice(service: str) -> None:
    script = SCRIPT.format(configure=CONFIGURE[service])
    environment = {"CLIPWISE_LOG_FORMAT": "json", "PATH": "", "HOME": "/nowhere"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout == ""
    found = [json.loads(text) for text in done.stderr.splitlines() if text.startswith("{")]
    (hello,) = (one for one in found if one["logger"] == "clipwise.x")
    assert (hello["message"], hello["service"]) == ("hello redis://:***@h", service)
    assert not [one for one in found if "chatter" in one["message"]]
    if service == "worker":
        assert hello["worker_id"] == "worker_7"
    if service == "runner":
        assert (hello["job_id"], hello["attempt"]) == ("job_7", 3)
    else:
        assert any("careful" in one["message"] for one in found if one["logger"] == "py.warnings")
