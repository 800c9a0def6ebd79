"""Names that are not what they seem: links to nowhere, pipes, devices, folders, and files of other formats."""

from __future__ import annotations

import gzip
import io
import logging
import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from folders import PER_FILE, as_folder, as_pipe, no_more_files, pairs_of, within
from nucpro.cli import main
from nucpro.errors import DataError, FastaError, StoreError, UsageError
from nucpro.formats import read_vectors, write_bytes
from nucpro.formats.fasta import count, read, stream
from nucpro.formats.opening import (
    is_pipe,
    kept_lines,
    look_at_kept,
    looks_like,
    open_input,
    open_kept,
    read_input,
    spooled,
)
from nucpro.formats.sequences import SequenceType
from nucpro.prediction.options import PredictionOptions

ON_SMALL_DISK = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o nr_inodes=2 none "$3"; exec "$0" "$@"']
MOUNTS = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode
NO_INODES = """
import sys
from pathlib import Path
from nucpro.errors import DataError
from nucpro.extraction.preflight import writing_problems
from nucpro.formats import write_bytes
from nucpro.formats.opening import open_kept
folder = Path(sys.argv[1])
(folder / "only").touch()
for work in (lambda: write_bytes(folder / "file", b""), lambda: open_kept(folder / "lock", append=False)):
    try:
        work()
    except DataError as error:
        print(error)
print(*writing_problems([folder], probe=True), sep="\\n")
"""
FASTA = b">a x\nMKVLFE\n>b\nMKLLPQ\n"


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose name is short enough for a socket."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def refusal(path: Path) -> str:
    said = set()
    for work in (
        open_input,
        read_input,
        read,
        count,
        lambda path: list(stream(path, fastq=True)),
    ):
        with pytest.raises(DataError) as caught:
            work(path)
        said.add(str(caught.value))
    (message,) = said
    assert message.startswith(f"{path}: ")
    return message


def test_a_link_to_a_file_is_a_good_input(tmp_path: Path) -> None:
    (tmp_path / "x.fa").write_bytes(FASTA)
    (tmp_path / "one").symlink_to("x.fa")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    (tmp_path / "folder").symlink_to(tmp_path)
    assert read(tmp_path / "two").ids == read(tmp_path / "folder" / "x.fa").ids == ["a", "b"]


@pytest.mark.parametrize(
    "target", ["gone.fa", ".git/annex/objects/X1/SHA256E-s9--0.fa", "../../blobs/0a1b", "/no/such/place"]
)
def test_a_link_to_nowhere_is_named_with_its_target(target: str, tmp_path: Path) -> None:
    path = tmp_path / "x.fa"
    path.symlink_to(target)
    said = refusal(path)
    assert f"is a link to {target}, which does not exist; " in said
    assert all(remedy in said for remedy in ("`cp -L`", "`git annex get`", "`datalad get`"))


def test_a_file_behind_a_link_to_nowhere_is_too(tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to("/no/disk")
    said = refusal(tmp_path / "data" / "below" / "x.fa")
    assert f"is behind {tmp_path / 'data'}, a link to /no/disk, which does not exist" in said


def test_other_names_that_cannot_be_read(tmp_path: Path, short: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert "is a link that leads in a circle" in refusal(tmp_path / "a")
    assert "is a folder, not a regular file; name a file" in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "is a pipe, not a regular file" in refusal(tmp_path / "pipe")
    assert "is a terminal or another device" in refusal(Path("/dev/zero"))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(short / "s"))
        assert "is a socket" in refusal(short / "s")
    assert "No such file or directory; check the path" in refusal(tmp_path / "no.fa")
    assert "Not a directory" in refusal(Path(__file__) / "x.fa")
    assert "File name too long" in refusal(tmp_path / ("x" * 300))
    assert "standard input is not read here" in refusal(Path("-"))


AS_NOBODY = """
import os, sys
from pathlib import Path
from nucpro.errors import FastaError
from nucpro.formats.fasta import read
if os.getuid() == 0:
    os.setuid(65534)
try:
    read(Path(sys.argv[1]))
except FastaError as error:
    print(error)
"""


@pytest.mark.parametrize("closed", ["file", "folder"])
def test_a_file_of_somebody_else_is_named(closed: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        path = folder / "inner" / "x.fa"
        path.parent.mkdir()
        path.write_bytes(FASTA)
        (path if closed == "file" else path.parent).chmod(0)
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, path], capture_output=True, text=True, check=True
        )
        path.parent.chmod(0o755)
    assert (
        done.stdout
        == f"{path}: cannot be read: Permission denied; check owner and rights of the file and its folders\n"
    )


def test_a_link_in_place_of_a_kept_file_is_replaced_and_its_target_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target, path = tmp_path / "mine", tmp_path / "log"
    target.write_text("mine")
    for number, place in enumerate((target, tmp_path / "nowhere", path)):
        path.unlink(missing_ok=True)
        path.symlink_to(place)
        assert (look_at_kept(path), b"".join(kept_lines(path))) == (None, b"")
        with caplog.at_level(logging.WARNING), open_kept(path, append=True) as file:
            file.write(b"line\n")
        assert caplog.messages[number:] == [
            f"{path} was a link to {place}; a new file replaces it, and its target is unchanged"
        ]
        assert (path.is_symlink(), b"".join(kept_lines(path))) == (False, b"line\n")
    assert target.read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()


def test_a_kept_file_is_opened_at_its_end_or_its_start_and_never_truncated(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    for append, expected in ((True, b"one"), (True, b"oneone"), (False, b"twoone")):
        with open_kept(path, append=append) as file:
            file.write(expected[:3])
        assert b"".join(kept_lines(path)) == expected


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (as_folder, "a folder"),
        (as_pipe, "a pipe"),
        (lambda path: os.mknod(path, 0o600 | stat.S_IFSOCK), "a socket"),
    ],
)
def test_something_else_in_place_of_a_kept_file_is_named(
    make: Callable[[Path], object], found: str, tmp_path: Path
) -> None:
    path = tmp_path / "lock"
    make(path)
    message = (
        f"{path}: is {found}, not the regular file that is kept under this name; move it away, then run again"
    )
    for work in (
        lambda: open_kept(path, append=False),
        lambda: look_at_kept(path),
        lambda: b"".join(kept_lines(path)),
    ):
        with within(10), pytest.raises(StoreError) as caught:
            work()
        assert str(caught.value) == message


def test_a_kept_file_in_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    circle, file = tmp_path / "circle", tmp_path / "file"
    circle.symlink_to(circle)
    file.touch()
    for folder, why in (
        (circle, "Too many levels"),
        (file, "Not a directory"),
        (tmp_path / "no", "No such file"),
    ):
        with pytest.raises(StoreError) as caught:
            open_kept(folder / "log", append=True)
        assert str(caught.value).startswith(f"{folder / 'log'}: cannot be written ({why}")


def test_a_limit_of_open_files_is_told_with_its_remedy(tmp_path: Path) -> None:
    """Neither the file, its rights nor the disk are to blame."""
    path = tmp_path / "file"
    path.write_bytes(FASTA)
    for work in (
        lambda: open_input(path),
        lambda: open_kept(path, append=True),
        lambda: look_at_kept(path),
        lambda: write_bytes(path, b""),
    ):
        with no_more_files(), pytest.raises(DataError) as caught:
            work()
        assert str(caught.value).startswith(f"{path}: cannot be ")
        assert "Too many open files" in str(caught.value)
        assert str(caught.value).endswith("; raise the limit of open files (ulimit -n), then run again")


@pytest.mark.skipif(MOUNTS != 0, reason="needs the right to mount")
def test_a_disk_that_can_hold_no_more_files_is_told_apart_from_a_full_one(tmp_path: Path) -> None:
    command = [*ON_SMALL_DISK, sys.executable, "-c", NO_INODES, tmp_path]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.stderr == b""
    told = done.stdout.decode().splitlines()
    assert len(told) == 3
    for line in told:
        assert "No space left on device" in line
        assert line.endswith(
            "; remove files from that disk, which can hold no more of them (df -i), then run again"
        )


def writing(path: Path, pieces: list[bytes]) -> threading.Thread:
    """Writes pieces into a pipe, each with a call of its own."""

    def write() -> None:
        with path.open("wb", buffering=0) as pipe:
            for piece in pieces:
                pipe.write(piece)

    thread = threading.Thread(target=write)
    thread.start()
    return thread


@pytest.mark.parametrize("content", [FASTA, gzip.compress(FASTA), FASTA.replace(b"\n", b"\r\n")])
def test_a_pipe_is_read_where_it_may_be(content: bytes, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert is_pipe(pipe)
    assert not is_pipe(tmp_path)
    assert not is_pipe(tmp_path / "nothing")
    writer = writing(pipe, [content[i : i + 1] for i in range(len(content))])
    assert read(pipe, allow_pipe=True).sequences == [b"MKVLFE", b"MKLLPQ"]
    writer.join()
    writer = writing(pipe, [content])
    with spooled(pipe) as path:
        assert path.name == "pipe_pipe"
        assert read(path).ids == ["a", "b"]
        assert read(path).ids == ["a", "b"]
    writer.join()
    assert not path.parent.exists()
    with spooled(tmp_path / "x.fa") as path:
        assert path == tmp_path / "x.fa"


def test_no_room_for_what_a_pipe_gives_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with (
        pytest.raises(FastaError, match=r"the pipe cannot be copied to a temporary file: .*set TMPDIR"),
        spooled(tmp_path / "pipe", FastaError),
    ):
        pass


def run(*command: str, given: bytes | None = None, shell: str = "") -> subprocess.CompletedProcess[bytes]:
    words = [sys.executable, "-m", "nucpro", *command]
    if shell:
        return subprocess.run(["bash", "-c", shell, *words], capture_output=True, check=False)
    return subprocess.run(words, input=given, capture_output=True, check=False)


def test_embed_reads_standard_input(tmp_path: Path, model: Path) -> None:
    common = ["--protein-model", str(model), "--device", "cpu"]
    done = run("embed", "-", "-o", str(tmp_path / "a.pt"), *common, given=gzip.compress(FASTA))
    assert done.returncode == 0, done.stderr
    assert b" of /dev/stdin, " in done.stdout
    (tmp_path / "x.fa").write_bytes(FASTA)
    assert main(["embed", str(tmp_path / "x.fa"), "-o", str(tmp_path / "b.pt"), *common]) == 0
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()
    substituted = f'"$0" "$@" -o {tmp_path / "c.pt"} <(cat {tmp_path / "x.fa"})'
    assert run("embed", *common, shell=substituted).returncode == 0
    assert read_vectors(tmp_path / "c.pt", SequenceType.PROTEIN).ids == ["a", "b"]


@pytest.mark.parametrize(
    ("shell", "message"),
    [
        ('"$0" "$@" </dev/null', b"/dev/stdin: is a terminal or another device, not a regular file"),
        ('"$0" "$@" <&-', b"/dev/stdin: is a terminal or another device, not a regular file; name a file"),
        (': | "$0" "$@"', b"/dev/stdin: the file is empty"),
    ],
)
def test_standard_input_that_gives_nothing_is_refused(shell: str, message: bytes, tmp_path: Path) -> None:
    done = run("embed", "-", "-o", str(tmp_path / "a.pt"), "--device", "cpu", shell=shell)
    assert done.returncode == 3
    assert message in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_prediction_from_a_pipe_needs_a_folder(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(
        UsageError, match="is a pipe, so the output folder has no default name; name it with --output"
    ):
        PredictionOptions(input=tmp_path / "pipe", model=tmp_path)
    assert PredictionOptions(input=tmp_path / "x.fa.bz2", model=tmp_path).folder.name == "x_prediction"


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x", "y")
    return buffer.getvalue()


LOOKS = {
    "an empty file": b"",
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "a git-annex pointer": b"/annex/objects/SHA256E-s9--0.fa\n",
    "a page of HTML or XML": b"\n <!DOCTYPE html>\n<html>",
    "JSON": b'{"error": "not found"}',
    "a zip archive": zipped(),
    "a GenBank file": b"LOCUS       NC_001416 48502 bp",
    "an EMBL or UniProt file": b"ID   X56734; SV 1;",
    "a GFF file": b"##gff-version 3\n",
    "a VCF file": b"##fileformat=VCFv4.2\n",
    "a SAM file": b"@HD\tVN:1.6\n",
    "a FASTQ file": b"@read\n",
    "a Clustal alignment": b"CLUSTAL W (1.81)",
    "a Stockholm alignment": b"# STOCKHOLM 1.0\n",
    "a NEXUS file": b"#NEXUS\n",
    "a PDF document": b"%PDF-1.7",
    "a companion file of macOS (AppleDouble), not the file itself": b"\0\5\x16\7\0\2\0\0Mac OS X",
    "a bare pickle, which torch.save does not write": b"\x80\4\x95",
    "UTF-16 text: save it as UTF-8": ">a\n".encode("utf-16"),
    "a safetensors file": b'\x10\0\0\0\0\0\0\0{"a": 1}',
    "zeros, as a crash leaves them in a file that never reached the disk": bytes(100),
    "an unknown kind of file": b"hello",
}


@pytest.mark.parametrize("looks", LOOKS)
def test_other_files_under_the_name_of_a_fasta_file_are_reported_by_their_first_bytes(
    looks: str, tmp_path: Path
) -> None:
    assert looks_like(LOOKS[looks]).startswith(looks)
    path = tmp_path / "x.fa"
    path.write_bytes(LOOKS[looks])
    with pytest.raises(FastaError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    if looks not in ("an empty file", "an unknown kind of file", "a zip archive", "a FASTQ file"):
        assert f"it is {looks}" in str(caught.value)


@pytest.mark.parametrize("sequence_type", list(SequenceType))
@pytest.mark.parametrize("command", ["embed-dna", "extract"])
def test_a_part_behind_a_link_to_nowhere_is_the_only_problem_of_its_folder(
    sequence_type: SequenceType,
    command: str,
    data: Path,
    model: Path,
    dna_model: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = pairs_of(data)[0].fasta(sequence_type)
    path.unlink()
    path.symlink_to(".git/annex/objects/x")
    folder = ["--data-dir", str(data)] if command == "extract" else [str(data)]
    chosen = ["--protein-model", str(model)] if command == "extract" else ["--dna-model", str(dna_model)]
    assert main([command, *folder, "--sequences-per-file", str(PER_FILE), "--device", "cpu", *chosen]) == 3
    said = capsys.readouterr().err
    assert f"{path}: is a link to .git/annex/objects/x, which does not exist; copy the file itself" in said
    assert "half-made split" not in said
    assert "missing; " not in said.replace("DNABERT-S files missing; ", "")
