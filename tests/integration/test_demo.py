"""`clipwise demo` from outside: what it prints, how it ends, and that nothing stays behind."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import free_port
from tests.integration.conftest import Service
from tests.integration.processes import all_gone

COMMAND = [sys.executable, "-m", "clipwise.cli", "demo"]


def environment(data_dir: Path) -> dict[str, str]:
    return {**os.environ, "CLIPWISE_DATA_DIR": str(data_dir), "CLIPWISE_PORT": str(free_port())}


def start(data_dir: Path, *arguments: str, **settings: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*COMMAND, *arguments],
        env={**environment(data_dir), **settings},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def number(name: str, text: str) -> float:
    found = re.search(rf"^{name}: ([0-9.e-]+)$", text, re.MULTILINE)
    assert found, f"no {name} in: {text}"
    return float(found[1])


def test_without_a_terminal_it_trains_prints_and_ends(tmp_path: Path) -> None:
    data = tmp_path / "data"
    process = start(data)
    said, error = process.communicate(timeout=180)
    assert process.returncode == 0, error
    assert number("accuracy", said) >= 0.9
    assert 2.5 < number("epsilon", said) <= 3.0
    assert number("delta", said) == 1e-4
    model = Path(re.findall(r"^model: (.+)$", said, re.MULTILINE)[0])
    assert model.stat().st_size > 1000
    statement = json.loads((model.parent / "privacy.json").read_text())
    assert statement
    assert re.search(r"step \d+/\d+  loss [0-9.]+  epsilon [0-9.]+  [0-9,]+ samples/s", said)
    assert "Dashboard: http://127.0.0.1:" in said
    assert "#sign-in=" not in said, "a link to a service that has ended"
    assert "\x1b" not in said
    assert all_gone(data)
    assert not (data / "service.json").exists()


def test_for_machines_and_on_a_service_that_runs(service: Service) -> None:
    done = subprocess.run(
        [*COMMAND, "--json"], env=service.environment, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["accuracy"] >= 0.9
    assert answer["job"]["status"] == "succeeded"
    assert answer["job"]["spec"]["training"]["seed"] > 0
    assert Path(answer["files"]["model.safetensors"]).is_file()
    assert answer["sign_in_url"].startswith(service.url)
    assert service.process.poll() is None


def test_a_job_that_fails_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    data = tmp_path / "data"
    # So little memory that torch cannot even be imported.
    process = start(data, CLIPWISE_RUNNER_MEMORY_BYTES=str(2**28))
    said, error = process.communicate(timeout=90)
    assert process.returncode == 1, said
    assert re.search(r"^error: job_\w+ failed \(out_of_memory: .+\)$", error, re.MULTILINE)
    assert all_gone(data)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_while_it_trains(tmp_path: Path, number: signal.Signals) -> None:
    data = tmp_path / "data"
    process = start(data)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Training on"):
            break
    begun = time.monotonic()
    process.send_signal(number)
    process.communicate(timeout=20)
    assert time.monotonic() - begun < 5.0
    assert process.returncode == 128 + number
    assert all_gone(data)


def read_until(terminal: int, word: str, seconds: float) -> str:
    deadline, text = time.monotonic() + seconds, ""
    while word not in text:
        assert time.monotonic() < deadline, text
        if select.select([terminal], [], [], 0.5)[0]:
            text += os.read(terminal, 65536).decode(errors="replace")
    return text


def test_at_a_terminal_it_goes_on_serving_until_ctrl_c(tmp_path: Path) -> None:
    data = tmp_path / "data"
    settings = environment(data) | {"TERM": "xterm", "COLUMNS": "160", "LINES": "40"}
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, COMMAND, settings)
    try:
        said = read_until(terminal, "Ctrl-C stops the service", 180)
        assert "A private model" in said
        assert re.search(r"step (\d+)/\1 ", said), said
        url = json.loads((data / "service.json").read_text())["url"]
        assert url in said
        time.sleep(1)
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
        begun = time.monotonic()
        os.write(terminal, b"\x03")
        read_until(terminal, "Stopped.", 10)
        _, status = os.waitpid(pid, 0)
        assert time.monotonic() - begun < 5.0
        assert os.waitstatus_to_exitcode(status) == 0
        assert all_gone(data)
    finally:
        os.close(terminal)
