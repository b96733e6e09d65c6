"""Artifacts arrive whole and as announced, or not at all."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from clipwise.client import Client, DownloadFailed
from clipwise.errors import NotFound
from tests.core.client.conftest import Answer, Script

CONTENT = b"weights" * 1000


def listing(sha256: str = hashlib.sha256(CONTENT).hexdigest()) -> Answer:
    artifact: dict[str, Any] = {"name": "model.safetensors", "size": len(CONTENT), "sha256": sha256}
    artifact |= {"object": "artifact", "created_at": "2026-01-01T00:00:00.000Z"}
    return Answer(200, {"object": "list", "data": [artifact]})


def test_to_a_file_or_into_a_folder(server: Script, client: Client, tmp_path: Path) -> None:
    for target in (tmp_path / "made" / "m.bin", tmp_path):
        server.play(listing(), Answer(200, CONTENT))
        path = client.download("job_1", "model.safetensors", target)
        assert path.read_bytes() == CONTENT
    assert path == tmp_path / "model.safetensors"


def test_other_bytes_leave_the_old_file(server: Script, client: Client, tmp_path: Path) -> None:
    target = tmp_path / "m.bin"
    target.write_bytes(b"old")
    server.play(listing("0" * 64), Answer(200, CONTENT))
    with pytest.raises(DownloadFailed, match="SHA-256"):
        client.download("job_1", "model.safetensors", target)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_broken_download_leaves_nothing(server: Script, client: Client, tmp_path: Path) -> None:
    server.play(listing(), Answer(200, CONTENT, cut=True))
    with pytest.raises(DownloadFailed, match="try again"):
        client.download("job_1", "model.safetensors", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_the_job_does_not_have(server: Script, client: Client, tmp_path: Path) -> None:
    server.play(listing())
    with pytest.raises(NotFound, match=r"it has: model\.safetensors"):
        client.download("job_1", "other", tmp_path)
