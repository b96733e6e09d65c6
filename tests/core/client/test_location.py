"""Where the client looks for the service and its key."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clipwise.client import ServiceUnreachable
from clipwise.client.location import DEFAULT_URL, Location, ServiceFile, locate
from clipwise.errors import ConfigurationError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("CLIPWISE_URL", "CLIPWISE_API_KEY", "CLIPWISE_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLIPWISE_DATA_DIR", str(tmp_path))
    return tmp_path


def running_service(folder: Path, url: str = "http://127.0.0.1:9999") -> None:
    ServiceFile(url=url, pid=os.getpid()).write(folder)
    (folder / "api_key").write_text("embedded\n")


def test_arguments_come_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running_service(folder)
    monkeypatch.setenv("CLIPWISE_URL", "https://from.environment")
    monkeypatch.setenv("CLIPWISE_API_KEY", "environment")
    assert locate("https://given/", "argument") == Location(url="https://given", key="argument")
    assert locate() == Location(url="https://from.environment", key="environment")


def test_the_embedded_service(folder: Path) -> None:
    running_service(folder)
    assert locate() == Location(url="http://127.0.0.1:9999", key="embedded")
    assert locate("http://127.0.0.1:9999").key == "embedded"


def test_the_embedded_key_goes_nowhere_else(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running_service(folder)
    assert locate("http://127.0.0.1:9998").key is None
    assert locate("https://elsewhere.example").key is None
    monkeypatch.setenv("CLIPWISE_URL", "http://elsewhere.example")
    assert locate().key is None


def test_an_api_started_by_itself(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "api_key").write_text("embedded\n")
    assert locate() == Location(url=DEFAULT_URL, key="embedded")
    monkeypatch.setenv("CLIPWISE_PORT", "8123")
    assert locate().url == "http://127.0.0.1:8123"


def test_no_service_says_how_to_get_one() -> None:
    with pytest.raises(ServiceUnreachable, match="clipwise up"):
        locate()


def test_a_file_of_a_dead_service_does_not_count(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    )
    ServiceFile(url="http://127.0.0.1:9999", pid=int(done.stdout)).write(folder)
    assert ServiceFile.read(folder) is None


@pytest.mark.parametrize("content", ["", "[]", "{", '{"url": 1}', '{"url": "x", "pid": "y"}'])
def test_a_broken_file_does_not_count(folder: Path, content: str) -> None:
    (folder / "service.json").write_text(content)
    assert ServiceFile.read(folder) is None


@pytest.mark.parametrize(
    "url", ["ftp://x", "x", "http://", "http://u:secret@x", "http://x/?key=secret", "http://x:y"]
)
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(ConfigurationError, match="CLIPWISE_URL") as raised:
        locate(url)
    assert "secret" not in str(raised.value)


def test_the_key_is_not_in_the_repr() -> None:
    assert "hidden" not in repr(Location(url="http://x", key="hidden"))


def test_a_client_needs_none_of_the_services_packages() -> None:
    code = """
import sys
for name in "sqlalchemy alembic celery fastapi pydantic_settings ulid fsspec pyarrow torch".split():
    sys.modules[name] = None  # an import of it fails
import clipwise.client, clipwise.cli.program
clipwise.cli.program.run(["jobs"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.startswith("error: no service runs on")


def test_an_empty_variable_is_no_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running_service(folder)
    monkeypatch.setenv("CLIPWISE_API_KEY", "")
    assert locate().key == "embedded"
    assert locate("http://elsewhere").key is None
