"""Files that are whole or absent, whatever happens to the writer."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from nucpro import formats as store
from nucpro.errors import StoreError
from nucpro.formats.atomic import TEMPORARY_MARK
from nucpro.formats.sequences import SequenceType


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "Ä name.bin"
    with store.replace_file(path) as target:
        target.write(b"one ")
        target.write(memoryview(b"two"))
        assert not path.exists()
        (temporary,) = tmp_path.iterdir()
        assert temporary.name.startswith(f".{path.name}{TEMPORARY_MARK}")
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"one two"
    digest = hashlib.sha256(b"one two").hexdigest()
    assert target.written == store.Written(7, digest)


def test_the_previous_file_stays_when_the_block_raises(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    store.write_text(path, "before")
    with pytest.raises(TypeError, match="can't concat str to bytes"), store.replace_file(path) as target:
        target.write(b"x" * 100_000 + "no bytes")
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "before"


def test_text_and_bytes_are_written_as_they_are(tmp_path: Path) -> None:
    store.write_text(tmp_path / "a.txt", "Zeile\r\nähnlich\n")
    assert (tmp_path / "a.txt").read_bytes() == "Zeile\r\nähnlich\n".encode()
    assert store.write_bytes(tmp_path / "a.txt", b"").size == 0
    assert (tmp_path / "a.txt").read_bytes() == b""


def test_a_symbolic_link_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("other")
    (tmp_path / "link").symlink_to("target")
    store.write_text(tmp_path / "link", "mine")
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "other"


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    store.write_bytes(tmp_path / "a", b"")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


KILLED = """
import os, signal, sys
from pathlib import Path
from nucpro import formats as store
with store.replace_file(Path(sys.argv[1])) as target:
    target.write(bytes(1 << 20))
    os.kill(os.getpid(), getattr(signal, sys.argv[2]))
"""


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT"])
@pytest.mark.parametrize("before", [None, "before"])
def test_a_killed_writer_leaves_nothing_under_the_final_name(
    name: str, before: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "a.pt"
    if before is not None:
        path.write_text(before)
    done = subprocess.run([sys.executable, "-c", KILLED, path, name], capture_output=True, check=False)
    assert done.returncode == -getattr(signal, name)
    left = [found for found in tmp_path.iterdir() if found != path]
    # An interrupt is an exception, which cleans up; the other two leave the temporary file to the next run.
    assert len(left) == (0 if name == "SIGINT" else 1)
    assert (path.read_text() if path.exists() else None) == before
    assert store.remove_temporaries(tmp_path) == [found.name for found in left]
    assert [found.name for found in tmp_path.iterdir()] == ([] if before is None else ["a.pt"])


LIMITED = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from nucpro import formats as store
from nucpro.formats.sequences import SequenceType
from nucpro.errors import StoreError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
path = Path(sys.argv[1])
try:
    store.write_vectors(path, ["a"], np.ones((1, 200_000), np.float32), None, SequenceType.PROTEIN)
except StoreError as error:
    print(error, error.__cause__.errno, sep="\\n")
try:
    with store.replace_file(path) as target:
        for _ in range(1000):
            target.write(bytes(1000))
except StoreError as error:
    print(error)
"""


def test_a_file_that_grows_too_large_is_an_error_with_its_size(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    path.write_text("before")
    done = subprocess.run([sys.executable, "-c", LIMITED, path], capture_output=True, text=True, check=True)
    message, number, streamed = done.stdout.splitlines()
    needed = f"{path}: cannot be written: File too large (it needs 800987 bytes, "
    assert message.startswith(needed)
    assert message.endswith(
        " are free on that disk); raise the limit of file sizes (ulimit -f), then run again"
    )
    assert int(number) == errno.EFBIG
    assert " bytes so far, " in streamed
    assert [found.name for found in tmp_path.iterdir()] == ["a.pt"]
    assert path.read_text() == "before"


def test_a_full_disk_is_an_error_with_what_is_needed(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb", buffering=0) as full, pytest.raises(StoreError) as caught:
        store.AtomicFile(tmp_path / "a.pt", full, 5000).write(b"x")
    path = tmp_path / "a.pt"
    assert str(caught.value).startswith(
        f"{path}: cannot be written: No space left on device (it needs 5000 bytes, "
    )
    assert str(caught.value).endswith(" are free on that disk); free space on that disk, then run again")
    assert isinstance(caught.value.__cause__, OSError)


def test_a_file_system_that_cannot_sync_folders_is_no_error() -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        os.fsync(folder := os.open("/proc/self", os.O_RDONLY))
    os.close(folder)
    store.sync_folder(Path("/proc/self"))


def test_a_folder_that_cannot_be_synced_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        StoreError, match="missing: cannot be written: No such file or directory; create the folder"
    ):
        store.sync_folder(tmp_path / "missing")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "a.pt"
    with pytest.raises(StoreError) as caught:
        store.write_text(path, "x")
    assert str(caught.value) == (
        f"{path}: cannot be written: No such file or directory; create the folder first, then run again"
    )


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        StoreError, match="Not a directory; a part of the path is a file, not a folder: correct it"
    ):
        store.write_text(tmp_path / "file" / "a.pt", "x")


def test_a_file_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.pt").mkdir()
    with pytest.raises(StoreError, match="Is a directory; a folder has the file's name: move it away"):
        store.write_text(tmp_path / "a.pt", "x")
    assert [found.name for found in tmp_path.iterdir()] == ["a.pt"]


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="File name too long; use a shorter name"):
        store.write_text(tmp_path / ("a" * 256), "x")
    store.write_text(tmp_path / ("a" * 255), "x")
    assert [len(path.name) for path in tmp_path.iterdir()] == [255]


FORBIDDEN = """
import os, sys
from pathlib import Path
from nucpro import formats as store
from nucpro.errors import StoreError
if os.geteuid() == 0:
    os.setuid(65534)
folder = Path(sys.argv[1])
for attempt in (lambda: store.write_text(folder / "a.pt", "x"), lambda: store.remove_temporaries(folder)):
    try:
        attempt()
    except StoreError as error:
        print(error)
"""


def test_a_folder_without_permission() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        left = folder / f".a.pt{TEMPORARY_MARK}0"
        left.write_text("")
        folder.chmod(0o555)
        done = subprocess.run(
            [sys.executable, "-c", FORBIDDEN, name], capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines() == [
            f"{folder / 'a.pt'}: cannot be written: Permission denied; "
            "get permission to write in that folder, then run again",
            f"{folder}: leftover files cannot be removed: Permission denied; "
            "get permission to write in that folder, then run again",
        ]
        folder.chmod(0o755)


def test_only_leftovers_are_removed(tmp_path: Path) -> None:
    kept = ["a.pt", ".hidden", f"visible{TEMPORARY_MARK}1", f".folder{TEMPORARY_MARK}2/x"]
    left = [f".b.pt{TEMPORARY_MARK}0f", f".a.pt{TEMPORARY_MARK}9"]
    for name in kept + left:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / f".link{TEMPORARY_MARK}3").symlink_to("a.pt")
    assert store.remove_temporaries(tmp_path) == [left[1], left[0], f".link{TEMPORARY_MARK}3"]
    assert sorted(
        str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()
    ) == sorted(kept)


def test_a_folder_that_does_not_exist_holds_no_leftovers(tmp_path: Path) -> None:
    assert store.remove_temporaries(tmp_path / "missing") == []


class TestReadingWhatIsNoFile:
    def test_missing(self, tmp_path: Path) -> None:
        for read in (
            partial(store.read_vectors, sequence_type=SequenceType.DNA),
            store.read_meta,
            store.check_directory,
        ):
            with pytest.raises(
                StoreError, match=r"a\.pt: cannot be read: No such file or directory; check the path"
            ):
                read(tmp_path / "a.pt")

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="is a folder, not a regular file"):
            store.read_vectors(tmp_path, SequenceType.DNA)

    def test_a_pipe_does_not_block(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "a.pt")
        with pytest.raises(StoreError, match="is a pipe, not a regular file"):
            store.read_vectors(tmp_path / "a.pt", SequenceType.DNA)


def test_leftovers_of_one_file_or_of_dead_writers_alone_are_removed(tmp_path: Path) -> None:
    dead = [tmp_path / f".{name}{TEMPORARY_MARK}1" for name in ("a.pt", "b.pt")]
    for path in dead:
        path.touch()
    os.mkfifo(tmp_path / f".c.pt{TEMPORARY_MARK}1")
    with store.replace_file(tmp_path / "a.pt") as target:
        target.write(b"a")
        assert store.remove_temporaries(tmp_path, of="b.pt") == [dead[1].name]
        assert store.remove_temporaries(tmp_path, spare_living=True) == [
            dead[0].name,
            f".c.pt{TEMPORARY_MARK}1",
        ]
        assert len(list(tmp_path.iterdir())) == 1
    assert (tmp_path / "a.pt").read_bytes() == b"a"


def test_only_own_files_are_replaced_unless_asked_and_nothing_but_files(tmp_path: Path) -> None:
    names = ("own", "link to own", "other", "link to nowhere", "folder", "pipe", "missing")
    own, own_link, other, link, folder, pipe, _ = paths = [tmp_path / name for name in names]
    own.touch()
    own_link.symlink_to(own)
    other.touch()
    link.symlink_to("nowhere")
    folder.mkdir()
    os.mkfifo(pipe)
    never = [
        f"{folder}: is a folder, which is never replaced; name another place",
        f"{pipe}: is a pipe, which is never replaced; name another place",
    ]
    refused = [
        f"{path}: exists, and there is no record that this command wrote it; name another place, move it away, or "
        "replace it with --replace"
        for path in (other, link)
    ]
    asked = []

    def is_own(path: Path) -> bool:
        asked.append(path)
        return path in (own, own_link)

    assert store.replacing_problems(paths, is_own, replace=False) == [*refused, *never]
    assert asked == [own, own_link, other, link]
    assert store.replacing_problems(paths, is_own, replace=True) == never
