"""Children end with their parent, as a group, and their logs stay small."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from clipwise.cli.embedded import child as module
from clipwise.cli.embedded.child import Child

FAMILY = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print("family", os.getpid(), grandchild.pid, flush=True)
time.sleep(60)
"""
PARENT = """
import os, sys, time
from pathlib import Path
from clipwise.cli.embedded.child import Child
child = Child("child", "sleeper", Path(sys.argv[1]), os.environ)
child.start()
time.sleep(60)
"""


def start(tmp_path: Path, code: str, name: str = "sleeper") -> Child:
    (tmp_path / f"{name}.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    child = Child("child", name, tmp_path / "child.log", environment)
    child.start()
    return child


def wait_for_log(log: Path, word: str) -> list[str]:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if log.exists() and word in log.read_text():
            return log.read_text().split()
        time.sleep(0.02)
    raise AssertionError(f"'{word}' is not in {log}")


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


def test_killing_takes_its_group_along(tmp_path: Path) -> None:
    child = start(tmp_path, FAMILY)
    _, pid, grandchild = wait_for_log(tmp_path / "child.log", "family")
    child.terminate()
    time.sleep(0.1)
    assert child.exit_code is None
    child.kill()
    assert child.exit_code == -signal.SIGKILL
    assert gone(int(pid))
    assert gone(int(grandchild))


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel does this on Linux")
def test_a_killed_parent_takes_its_child_along(tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text(
        "import os, time; print('up', os.getpid(), flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "child.log")],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    pid = int(wait_for_log(tmp_path / "child.log", "up")[1])
    assert psutil.pid_exists(pid)
    parent.kill()
    parent.wait()
    assert gone(pid)


def test_the_last_lines_are_those_of_the_last_start(tmp_path: Path) -> None:
    (tmp_path / "child.log").write_text("from long ago\n")
    child = start(tmp_path, "print('one'); print('two'); raise SystemExit(3)")
    while child.exit_code is None:
        time.sleep(0.01)
    assert child.exit_code == 3
    assert child.last_lines() == ["one", "two"]
    assert child.last_lines(1) == ["two"]


def test_a_large_log_is_moved_aside_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGEST_LOG_BYTES", 1000)
    child = start(
        tmp_path, "import time\nprint('x' * 2000 + 'end', flush=True)\ntime.sleep(1)\nprint('after')"
    )
    wait_for_log(tmp_path / "child.log", "end")
    child.limit_log()
    assert (tmp_path / "child.log").stat().st_size == 0
    assert (tmp_path / "child.log.1").stat().st_size == 2004
    wait_for_log(tmp_path / "child.log", "after")
    assert (tmp_path / "child.log").read_text() == "after\n"
    child.kill()
