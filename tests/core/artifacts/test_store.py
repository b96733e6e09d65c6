"""The artifact store: whole files or nothing, in a folder and in a remote kind of store."""

import errno
import hashlib
import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from clipwise.artifacts import ArtifactStore
from clipwise.errors import ConfigurationError, InvalidInput, NotFound, TooLarge, Unavailable


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    if request.param == "folder":
        return ArtifactStore((tmp_path / "a store").as_uri())
    return ArtifactStore(f"memory://{tmp_path.name}")


def contents(store: ArtifactStore) -> list[str]:
    """Every file that the store holds, temporary ones too."""
    root = store._root
    found = store._fs.find(root) if store._fs.exists(root) else []
    return sorted(path.removeprefix(root) for path in found)


def test_round_trip(store: ArtifactStore, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    stored = store.write("datasets/ds_1/source", io.BytesIO(data))
    assert (stored.key, stored.size) == ("datasets/ds_1/source", len(data))
    assert stored.sha256 == hashlib.sha256(data).hexdigest()
    assert store.exists("datasets/ds_1/source")
    with store.open("datasets/ds_1/source") as stream:
        assert stream.read() == data
    assert store.local_path("datasets/ds_1/source", tmp_path / "into").read_bytes() == data
    store.write("datasets/ds_1/source", [b"a", b"", b"b"])
    with store.open("datasets/ds_1/source") as stream:
        assert stream.read() == b"ab"
    store.write("datasets/ds_1/rows", [b"r"])
    store.write("datasets/ds_10/rows", [b"r"])
    store.delete("datasets/ds_1/source")
    store.delete("datasets/ds_1/source")
    assert not store.exists("datasets/ds_1/source")
    store.delete_prefix("datasets/ds_1")
    store.delete_prefix("datasets/ds_1")
    assert contents(store) == ["/datasets/ds_10/rows"]


def test_a_folder_with_a_space_is_that_folder(tmp_path: Path) -> None:
    store = ArtifactStore((tmp_path / "a store").as_uri())
    store.write("k", [b"x"])
    assert (tmp_path / "a store" / "k").read_bytes() == b"x"
    assert store.local_path("k", tmp_path / "into") == tmp_path / "a store" / "k"
    assert not (tmp_path / "into").exists()
    store.write("p/q/r", [b"x"])
    store.delete("p/q/r")
    assert not (tmp_path / "a store" / "p").exists()


def broken() -> Iterator[bytes]:
    yield b"x" * 100
    raise ConnectionResetError("the browser went away")


def test_a_failed_write_leaves_nothing(store: ArtifactStore) -> None:
    store.write("kept", [b"before"])
    with pytest.raises(ConnectionResetError):
        store.write("kept", broken())
    with pytest.raises(TooLarge, match="1,000 bytes"):
        store.write("new", [b"x" * 600, b"x" * 600], limit=1000)
    assert contents(store) == ["/kept"]
    with store.open("kept") as stream:
        assert stream.read() == b"before"
    assert store.write("new", [b"x" * 1000], limit=1000).size == 1000


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/etc/passwd",
        "../x",
        "a/../b",
        "a//b",
        "a/",
        ".incoming/x",
        "a\\b",
        "a\0b",
        "a b",
        "x" * 501,
        "a\n",
        "é",
    ],
)
def test_keys_are_checked(key: str, store: ArtifactStore, tmp_path: Path) -> None:
    calls = [
        lambda: store.write(key, [b"x"]),
        lambda: store.open(key),
        lambda: store.local_path(key, tmp_path),
        lambda: store.delete(key),
        lambda: store.delete_prefix(key),
        lambda: store.exists(key),
    ]
    for call in calls:
        with pytest.raises(InvalidInput):
            call()
    assert contents(store) == []


def test_missing_is_not_found(store: ArtifactStore, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        store.open("nothing").read()
    with pytest.raises(NotFound):
        store.local_path("nothing", tmp_path / "into")
    assert list(tmp_path.rglob("nothing*")) == []


def test_put_file(store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"hello")
    stored = store.put_file("one", tmp_path / "f")
    assert stored.sha256 == hashlib.sha256(b"hello").hexdigest()
    assert store.put_file("sub/two", tmp_path / "f", move=True) == type(stored)(
        key="sub/two", size=5, sha256=stored.sha256
    )
    assert not (tmp_path / "f").exists()
    assert contents(store) == ["/one", "/sub/two"]


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a second file system")
def test_put_file_from_another_disk(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path / "store"))
    other = Path("/dev/shm") / f"clipwise-test-{os.getpid()}"
    other.write_bytes(b"hello")
    try:
        store.put_file("k", other, move=True)
        assert not other.exists()
    finally:
        other.unlink(missing_ok=True)
    assert (tmp_path / "store" / "k").read_bytes() == b"hello"


def test_temporary_folder_is_gone_afterwards(store: ArtifactStore) -> None:
    with suppress(RuntimeError), store.temporary_folder() as folder:
        (folder / "x").write_text("x")
        raise RuntimeError
    assert not folder.exists()
    assert contents(store) == []


def test_full_disk_is_unavailable(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, _chunk: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store._fs, "open", lambda *_args: Full())
    with pytest.raises(Unavailable, match="full"):
        store.write("k", [b"x"])


@pytest.mark.skipif(sys.platform != "linux", reason="file size limit of a process")
def test_a_real_write_error(tmp_path: Path) -> None:
    """A process that may not write files over 64 KiB stands for a disk that fills up."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))\n"
        "from clipwise.artifacts import ArtifactStore\n"
        "from clipwise.errors import Unavailable\n"
        "store = ArtifactStore(sys.argv[1])\n"
        "try: store.write('k', [b'x' * 50_000] * 3)\n"
        "except Unavailable as error: print(error.detail)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "full or over quota" in done.stdout
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_no_permission_is_unavailable(tmp_path: Path) -> None:
    """Root may write anywhere, so a process that is root gives that up first."""
    code = (
        "import os, sys\n"
        "from clipwise.artifacts import ArtifactStore\n"
        "from clipwise.errors import Unavailable\n"
        "store = ArtifactStore(sys.argv[1])\n"
        "if os.geteuid() == 0: os.seteuid(65534)\n"
        "try: store.write('k', [b'x'])\n"
        "except Unavailable as error: print(error.detail)\n"
    )
    (tmp_path / "store").mkdir(mode=0o500)
    command = [sys.executable, "-c", code, str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "EACCES" in done.stdout


def test_urls(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="CLIPWISE_ARTIFACTS_URL") as raised:
        ArtifactStore("nosuch://user:secret@host/x")
    assert "secret" not in raised.value.detail
    ArtifactStore(str(tmp_path / "plain")).write("k", [b"x"])
    assert (tmp_path / "plain" / "k").exists()


def test_sweep_takes_only_what_is_old(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    store.write("k", [b"x"])
    old = tmp_path / ".incoming" / "left"
    old.write_bytes(b"x")
    os.utime(old, (time.time() - 90_000,) * 2)
    (tmp_path / ".incoming" / "young").write_bytes(b"x")
    assert store.sweep() == 1
    assert sorted(path.name for path in (tmp_path / ".incoming").iterdir()) == ["young"]
    assert store.exists("k")


def test_writes_and_deletions_side_by_side(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    failures: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for _ in range(100):
                store.write(f"shared/{name}", [name.encode()])
                store.delete(f"shared/{name}")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(f"n{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert contents(store) == []


def test_a_store_that_answers_is_there_before_and_after_its_first_file(store: ArtifactStore) -> None:
    store.check()
    store.write("k", [b"x"])
    store.check()
    assert contents(store) == ["/k"]


def test_a_store_that_does_not_answer_is_away(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    if store._folder is not None:
        store._folder.write_text("a file where the folder should be")
    else:

        def unreachable(path: str, **_: object) -> None:
            raise ConnectionError("to https://key:secret@store")

        monkeypatch.setattr(store._fs, "info", unreachable)
        assert not store.exists("k")  # which alone would say nothing
    with pytest.raises(Unavailable) as raised:
        store.check()
    assert "secret" not in raised.value.detail
