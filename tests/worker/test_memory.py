from pathlib import Path

import pytest

from clipwise_worker.memory import oom_kills


@pytest.mark.parametrize(
    ("membership", "file", "content"),
    [
        ("0::/\n", "memory.events", "low 0\noom 1\noom_kill 3\n"),
        ("0::/system/worker\n", "system/worker/memory.events", "oom_kill 3\n"),
        ("5:cpu:/\n4:memory:/worker\n", "memory/worker/memory.oom_control", "under_oom 0\noom_kill 3\n"),
    ],
)
def test_kills_are_read_from_the_control_group(
    tmp_path: Path, membership: str, file: str, content: str
) -> None:
    (tmp_path / "membership").write_text(membership)
    path = tmp_path / "cgroup" / file
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert oom_kills(tmp_path / "cgroup", tmp_path / "membership") == 3


def test_a_system_that_does_not_tell_counts_nothing(tmp_path: Path) -> None:
    assert oom_kills(tmp_path / "none", tmp_path / "none either") == 0
