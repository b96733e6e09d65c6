"""One service at a time on one folder."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clipwise.cli.embedded.folder import AlreadyRunning, held
from clipwise.client.location import ServiceFile
from clipwise.errors import ConfigurationError

HOLD = """
import sys, time
from pathlib import Path
from clipwise.cli.embedded.folder import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_it_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "data"
    with held(folder):
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder / "service.lock").stat().st_mode & 0o777 == 0o600


def test_a_second_one_is_told_where_the_first_is(tmp_path: Path) -> None:
    with held(tmp_path):
        with pytest.raises(AlreadyRunning, match="starting or stopping"), held(tmp_path):
            pass
        ServiceFile(url="http://127.0.0.1:1234", pid=os.getpid()).write(tmp_path)
        with pytest.raises(AlreadyRunning, match=r"http://127\.0\.0\.1:1234"), held(tmp_path):
            pass
        assert ServiceFile.read(tmp_path) is not None
    assert not (tmp_path / "service.json").exists()
    with held(tmp_path):
        pass


def test_the_file_goes_also_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), held(tmp_path):  # noqa: PT012
        ServiceFile(url="http://127.0.0.1:1234", pid=os.getpid()).write(tmp_path)
        raise KeyboardInterrupt
    assert not (tmp_path / "service.json").exists()


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    ServiceFile(url="http://127.0.0.1:1234", pid=process.pid).write(tmp_path)
    with pytest.raises(AlreadyRunning), held(tmp_path):
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with held(tmp_path):
        assert not (tmp_path / "service.json").exists()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="CLIPWISE_DATA_DIR"), held(tmp_path / "file"):
        pass
