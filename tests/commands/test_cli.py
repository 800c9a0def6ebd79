"""The command line: help, usage errors, exit codes, what shows without a terminal."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import pytest

import nucpro
from nucpro.cli import main
from nucpro.cli.console import Terminated, console, exit_code_of
from nucpro.errors import DimensionError, PreflightError, UsageError
from nucpro.formats import read_vectors, write_merged, write_vectors
from nucpro.formats.sequences import SequenceType
from nucpro.options import Options

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = [
    "benchmark",
    "doctor",
    "download",
    "dataset",
    "split",
    "embed-dna",
    "extract",
    "validate",
    "status",
    "report",
    "inspect",
    "export",
    "embed",
    "fetch-models",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert f"usage: nucpro {command}" in capsys.readouterr().out


def test_no_command_shows_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    output = capsys.readouterr().out
    assert all(command in output for command in COMMANDS)


def test_help_is_a_word_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help"]) == 0
    assert capsys.readouterr().out.startswith("usage: nucpro")
    assert main(["help", "embed"]) == 0
    assert "usage: nucpro embed" in capsys.readouterr().out
    assert main(["help", "embd"]) == 2
    assert "did you mean embed" in capsys.readouterr().err


def test_the_version_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"nucpro {nucpro.__version__}\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device", "tpu"], "--device is tpu; allowed: auto, cuda, cuda:N or cpu"),
        (["--sequences-per-file", "0"], "--sequences-per-file is 0; allowed: 1 or more"),
        (["--tokens-per-batch", "-5"], "--tokens-per-batch is -5; allowed: 1 or more"),
        (["--audit", "-1"], "--audit is -1; allowed: 0 or more"),
    ],
)
def test_values_that_are_not_allowed(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["extract", "--data-dir", str(tmp_path), *options]) == 2
    assert message in capsys.readouterr().err


def test_unknown_options_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown options: speed"):
        Options.of({"speed": 3})


def test_help_is_quick_because_it_needs_no_torch() -> None:
    code = "import sys; from nucpro.cli import main; main([]); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    fasta = tmp_path / "many.fa"
    fasta.write_text(">a\nACGT\n")
    reader, writer = os.pipe()
    os.close(reader)
    # Unbuffered, so that the first line of the answer finds nobody.
    command = [sys.executable, "-u", "-m", "nucpro", "inspect", str(fasta)]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


# The collection of garbage is the longest step on the way out: there the signal arrives.
LATE_SIGNAL = """
import os, runpy, sys, types
import nucpro.cli
number, start = int(sys.argv[1]), sys.argv[2]
sys.modules["nucpro.cli.main"].gc = types.SimpleNamespace(collect=lambda: os.kill(os.getpid(), number))
del sys.argv[:2]
runpy.run_path(start, run_name="__main__")
"""


EARLY_SIGNAL = """
import os, pathlib, runpy, signal, sys
number, event, start = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
del sys.argv[:3]
seen = []
def look(kind, arguments):
    if kind == "import" and (seen or arguments[0].startswith("nucpro.cli")):
        seen.append(arguments[0])
        if len(seen) == event:
            os.kill(os.getpid(), number)
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
sys.addaudithook(look)
runpy.run_path(start, run_name="__main__")
"""


@pytest.mark.parametrize("event", [1, 30])
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(
    "start", ["src/nucpro/__main__.py", "scripts/extract_training_data.py", "features_extract.py", "train.py"]
)
def test_a_signal_during_the_imports_is_answered_in_one_line(
    start: str, sign: signal.Signals, event: int, tmp_path: Path
) -> None:
    words = [str(int(sign)), str(event), str(ROOT / start), "--data-dir", str(tmp_path)]
    command = [sys.executable, "-c", EARLY_SIGNAL, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (128 + sign, "")
    assert done.stderr == "Interrupted. Run the same command again to continue.\n"


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("start", ["src/nucpro/__main__.py", "scripts/extract_training_data.py"])
def test_a_signal_on_the_way_out_changes_nothing(start: str, sign: signal.Signals, tmp_path: Path) -> None:
    options = ["extract"] if start.startswith("src") else []
    options += ["--data-dir", str(tmp_path / "nowhere")]
    command = [sys.executable, "-c", LATE_SIGNAL, str(int(sign)), str(ROOT / start), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert "no such folder" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Interrupted" not in done.stderr


def test_the_library_logs_and_prints_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from nucpro.extraction.run import extract

    with pytest.raises(PreflightError, match="no such folder"):
        extract(Options(tmp_path / "nowhere"))
    assert capsys.readouterr() == ("", "")
    assert logging.getLogger("nucpro").handlers == []


def test_errors_survive_the_way_back_from_a_worker() -> None:
    import pickle

    dimension = pickle.loads(pickle.dumps(DimensionError(768, 3, "x", "f.pt")))
    assert str(dimension) == "f.pt: x: expected 768, found 3"
    parts = (dimension.expected_dim, dimension.actual_dim, dimension.tensor_name, dimension.location)
    assert parts == (768, 3, "x", "f.pt")
    preflight = pickle.loads(pickle.dumps(PreflightError(["a", "b"])))
    assert preflight.problems == ("a", "b")


def test_a_mistake_in_the_input_of_embed_is_found_before_the_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fasta = tmp_path / "x.fa"
    fasta.write_text(">a\nMK*\n")
    command = ["embed", str(fasta), "-o", str(tmp_path / "o.pt"), "--protein-model", str(tmp_path / "none")]
    assert main([*command, "--device", "cpu"]) == 3
    assert "a has '*' at position 3" in capsys.readouterr().err
    assert not (tmp_path / "o.pt").exists()


@pytest.mark.parametrize(
    ("output", "code", "message"),
    [
        ("x.fa", 2, "--output is x.fa, the input itself"),
        ("link.fa", 2, "--output is link.fa, the input itself"),
        ("notes.txt", 2, "allowed: a file that ends with .pt"),
        ("notes.pt", 3, "notes.pt: exists, and there is no record that this command wrote it"),
        (".", 2, "--output is the folder"),
        ("folder", 2, "--output is the folder"),
    ],
)
def test_an_output_of_embed_that_cannot_be_written_is_refused_before_the_model(
    output: str,
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.fa").write_text(">a\nMKV\n")
    (tmp_path / "link.fa").symlink_to("x.fa")
    for name in ("notes.txt", "notes.pt"):
        (tmp_path / name).write_text("mine\n")
    (tmp_path / "folder").mkdir()
    assert main(["embed", "x.fa", "-o", output, "--protein-model", "./none", "--device", "cpu"]) == code
    assert message in capsys.readouterr().err
    assert (tmp_path / "x.fa").read_text() == ">a\nMKV\n"
    assert (tmp_path / "notes.txt").read_text() == (tmp_path / "notes.pt").read_text() == "mine\n"


def test_embed_replaces_what_it_made_and_asks_about_all_else(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fasta, own = tmp_path / "x.fa", tmp_path / "own.pt"
    fasta.write_text(">a\nMKV\n")
    options = ["--protein-model", str(model), "--device", "cpu"]
    assert main(["embed", str(fasta), "-o", str(own), *options]) == 0
    found = read_vectors(own, SequenceType.PROTEIN)
    assert found.meta is not None
    others = [
        tmp_path / name for name in ("output_1_ESM.pt", "merged.pt", "text.pt", "link.pt", "nowhere.pt")
    ]
    write_vectors(
        others[0], found.ids, found.vectors, {**found.meta, "command": "extract"}, SequenceType.PROTEIN
    )
    write_merged(others[1], found.ids, found.vectors, None, 1)
    others[2].write_text("mine")
    others[3].symlink_to(others[0])
    others[4].symlink_to(tmp_path / "gone")
    before = [os.path.lexists(path) and path.is_file() and path.read_bytes() for path in others]
    for path in others:
        assert main(["embed", str(fasta), "-o", str(path), *options]) == 3
        assert f"{path}: exists, and there is no record that this command wrote it" in capsys.readouterr().err
    assert before == [os.path.lexists(path) and path.is_file() and path.read_bytes() for path in others]
    for path in reversed(others):
        assert main(["embed", str(fasta), "-o", str(path), "--replace", *options]) == 0
        assert not path.is_symlink()
        assert path.read_bytes() == own.read_bytes()
    os.mkfifo(tmp_path / "pipe.pt")
    assert main(["embed", str(fasta), "-o", str(tmp_path / "pipe.pt"), "--replace", *options]) == 3
    assert "is a pipe, which is never replaced" in capsys.readouterr().err


def test_embed_writes_over_vectors(tmp_path: Path, model: Path) -> None:
    fasta, output = tmp_path / "x.fa", tmp_path / "o.pt"
    for name in ("first", "second"):
        fasta.write_text(f">{name}\nMKV\n")
        command = ["embed", str(fasta), "-o", str(output), "--protein-model", str(model), "--device", "cpu"]
        assert main(command) == 0
        assert read_vectors(output, SequenceType.PROTEIN).ids == [name]


def test_dataset_and_split_from_genomes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import shutil

    for path in (Path(__file__).resolve().parents[2] / "demo" / "genomes").glob("bacteria*"):
        shutil.copy(path, tmp_path)
    assert main(["dataset", str(tmp_path), "--length", "300", "--processes", "1"]) == 0
    assert "bacteria: 2 records" in capsys.readouterr().out
    assert main(["split", str(tmp_path), "--sequences-per-file", "10"]) == 0
    assert sorted(path.name for path in tmp_path.glob("*/output_*.fa")) == sorted(
        [f"output_{number}.fa" for number in (1, 2, 3)] * 2
    )
    assert main(["split", str(tmp_path)]) == 0
    assert "already split" in capsys.readouterr().out


@pytest.mark.parametrize(("interrupt", "code"), [(KeyboardInterrupt, 130), (Terminated, 143)])
def test_an_interrupt_is_reported_though_cleaning_up_fails_after_it(
    interrupt: type[BaseException], code: int
) -> None:
    def join() -> NoReturn:
        raise RuntimeError("cannot join thread before it is started")

    def interrupted() -> None:
        with ExitStack() as stack:
            stack.callback(join)
            raise interrupt

    with pytest.raises(RuntimeError) as caught:
        interrupted()
    assert exit_code_of(caught.value, {}) == code


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_is_reported_though_code_in_c_makes_another_error_of_it(sign: signal.Signals) -> None:
    with console():
        with pytest.raises((KeyboardInterrupt, Terminated)):
            signal.raise_signal(sign)
        # What an import of numpy says that was interrupted.
        assert exit_code_of(ImportError("numpy.core.multiarray failed to import"), {}) == 128 + sign
    assert exit_code_of(ImportError("no module named numpy"), {}) == 1


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_within_a_finalizer_is_not_lost(sign: signal.Signals) -> None:
    class Finalized:
        def __del__(self) -> None:
            signal.raise_signal(sign)

    def run() -> None:
        Finalized()
        threading.Event().wait(60)

    with console():
        with pytest.raises((KeyboardInterrupt, Terminated)) as caught:
            run()
        assert exit_code_of(caught.value, {}) == 128 + sign


def test_other_errors_of_finalizers_are_reported_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    class Finalized:
        def __del__(self) -> None:
            raise ValueError("lost")

    reported: list[BaseException | None] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: reported.append(lost.exc_value))
    with console():
        Finalized()
    assert [str(error) for error in reported] == ["lost"]
