"""The command line without a service: help, usage, errors, exit codes, as a user sees them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import clipwise
from clipwise.cli.program import run
from tests.conftest import free_port

COMMANDS = (
    *("demo", "up", "api", "worker", "migrate", "submit", "plan", "jobs", "show", "watch"),
    *("cancel", "pause", "resume", "retry", "clone", "delete"),
    *("events", "logs", "attempts", "checkpoints", "download"),
    *("models", "datasets", "workers", "queues", "signin", "version"),
)


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CLIPWISE_URL", "CLIPWISE_API_KEY", "CLIPWISE_PORT", "CLIPWISE_TRACEBACK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLIPWISE_DATA_DIR", str(tmp_path / "data"))


def call(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "clipwise.cli", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )


def test_help_loads_neither_client_nor_service() -> None:
    code = "import sys; from clipwise.cli.program import run; run(['--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "typer" in loaded
    assert not loaded & {"httpx", "torch", "sqlalchemy", "pydantic_settings", "clipwise.wire"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    assert f"clipwise {command}" in capsys.readouterr().out


def test_nothing_asked_for_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    assert "Usage" in capsys.readouterr().out


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert run(["version"]) == 0
    assert capsys.readouterr().out == f"clipwise {clipwise.__version__}\n" * 2
    assert run(["version", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"version": clipwise.__version__}


@pytest.mark.parametrize(
    ("arguments", "stdin", "said"),
    [
        (["frobnicate"], "", "frobnicate"),
        (["submit"], "", "FILE"),
        (["jobs", "--frob"], "", "--frob"),
        (["jobs", "--limit", "0"], "", "--limit"),
        (["datasets", "frob"], "", "frob"),
        (["datasets", "add", "x.csv", "--visibility", "secret"], "", "visibility"),
        (["submit", "/no/such/file"], "", "/no/such/file"),
        (["submit", "-"], "{", "line 1, column 2"),
        (["submit", "-"], "[]", "must be an object"),
        (["submit", "-"], '{"a": NaN}', "NaN"),
        (["submit", "-"], '{"a": 1, "a": 2}', "'a' is given twice"),
        (["plan", "-"], "[" * 100_000, "cannot be used"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(arguments: list[str], stdin: str, said: str) -> None:
    done = call(*arguments, stdin=stdin)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    as_json = call(*arguments, "--json", stdin=stdin)
    assert (as_json.returncode, as_json.stdout) == (2, "")
    assert said in json.loads(as_json.stderr)["detail"]


def test_a_toml_file_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "job.toml"
    file.write_text("dataset = ")
    assert run(["submit", str(file)]) == 2
    assert "not TOML" in capsys.readouterr().err
    file.write_bytes(b"name = '\xff'")
    assert run(["submit", str(file)]) == 2
    assert "UTF-8" in capsys.readouterr().err


def test_no_service_is_one_line_and_code_1() -> None:
    done = call("jobs")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "clipwise up" in done.stderr
    as_json = call("jobs", "--json")
    assert (as_json.returncode, as_json.stdout) == (1, "")
    assert json.loads(as_json.stderr)["code"] == "unreachable"


def test_an_address_where_nobody_is() -> None:
    done = call("models", CLIPWISE_URL=f"http://127.0.0.1:{free_port()}", CLIPWISE_API_KEY="k")
    assert done.returncode == 1
    assert done.stderr.startswith("error: no answer from http://127.0.0.1:")
    assert "Traceback" not in done.stderr


def test_an_error_of_ours_is_one_line_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("clipwise.cli.fleet.connect", broken)
    assert run(["models"]) == 1
    assert capsys.readouterr().err.startswith("error: unexpected RuntimeError: a bug")
    monkeypatch.setenv("CLIPWISE_TRACEBACK", "1")
    with pytest.raises(RuntimeError):
        run(["models"])


def test_a_missing_extra_names_the_command_that_brings_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import importlib.util

    found = importlib.util.find_spec

    def without(name: str) -> object:
        return None if name in ("fastapi", "torch", "alembic") else found(name)

    monkeypatch.setattr("importlib.util.find_spec", without)
    for command, extra in (("api", "api"), ("worker", "worker"), ("migrate", "api"), ("up", "api")):
        assert run([command]) == 1
        assert f"pip install 'clipwise[{extra}]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CLIPWISE_PORT", "eighty"),
        ("CLIPWISE_PORT", "70000"),
        ("CLIPWISE_HOST", "no such host"),
        ("CLIPWISE_HOST", "203.0.113.1"),
        ("CLIPWISE_DATA_DIR", "/proc/nothing"),
    ],
)
def test_a_wrong_setting_is_named(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, value)
    assert run(["up"]) == 1
    assert name in capsys.readouterr().err
