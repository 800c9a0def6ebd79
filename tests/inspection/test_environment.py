"""``nucpro doctor``: it tells what stops a run from what makes it slow, and changes nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch

import nucpro
from nucpro.cli import main
from nucpro.errors import counted
from nucpro.inspection import environment
from nucpro.inspection.environment import Finding, Verdict, examine
from nucpro.options import Options
from nucpro.state.lock import hold

needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


def found(options: Options, data: Path | None = None) -> dict[str, Finding]:
    return {finding.name: finding for finding in examine(options, data)}


@pytest.fixture
def options(model: Path, dna_model: Path) -> Options:
    return Options(protein_model=str(model), dna_model=str(dna_model), device="cpu")


def test_a_machine_that_can_run(
    options: Options, data: Path, capsys: pytest.CaptureFixture[str], model: Path, dna_model: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*") if path.is_file()}
    arguments = ["--device", "cpu", "--protein-model", str(model), "--dna-model", str(dna_model)]
    assert main(["doctor", str(data), *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["fine", "nucpro:", nucpro.__version__]
    assert any(line.startswith("fine     Python:") for line in lines)
    threads = counted(torch.get_num_threads(), "thread")
    assert any(line.startswith(f"slow     Device:          cpu, {threads}; ") for line in lines)
    assert f"fine     Data folder:     {data}: can be written; run: none" in lines
    assert main(["doctor", str(data), *arguments, "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert [entry["verdict"] for entry in entries if entry["verdict"] == "problem"] == []
    assert {"name", "verdict", "text"} == set(entries[0])
    assert before == {path: path.stat().st_mtime_ns for path in data.rglob("*") if path.is_file()}


def test_models_in_folders_and_why_their_kernels_do_not_run(options: Options) -> None:
    findings = found(options)
    assert findings["Protein model"].verdict is Verdict.FINE
    assert findings["Protein model"].text.startswith(f"{options.protein_model}: a folder, ")
    for sequence_type in ("Protein", "DNA"):
        kernels = findings[f"{sequence_type} kernels"]
        assert kernels == Finding(
            f"{sequence_type} kernels", Verdict.SLOW, "plain torch runs: cpu is not an NVIDIA GPU"
        )


@needs_no_gpu
def test_a_gpu_that_is_not_there_stops_a_run(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--device", "cuda", "--protein-model", str(model)]) == 3
    said = capsys.readouterr()
    assert "problem  Device:          device 'cuda' was asked for" in said.out
    # A long reason is read once.
    assert said.err == "1 problem found; nothing was changed:\n  - Device: see its line above\n"


def test_a_model_folder_that_is_none(options: Options, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    protein = found(Options(protein_model=str(empty), dna_model=options.dna_model, device="cpu"))[
        "Protein model"
    ]
    assert protein.verdict is Verdict.PROBLEM
    assert str(empty) in protein.text
    assert "config.json" in protein.text
    dna = found(Options(protein_model=options.protein_model, dna_model=str(empty), device="cpu"))["DNA model"]
    assert dna.verdict is Verdict.NOTE
    assert dna.text.endswith("; only embed-dna and --with-dna need it")


def test_a_model_that_is_neither_here_nor_reachable_stops_a_run(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "nucpro", "doctor", "--device", "cpu", "--protein-model", "someone/model"],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 3
    assert (
        "problem  Protein model:   model 'someone/model' (revision 'main'): not in the local cache"
        in ended.stdout
    )
    assert "nucpro fetch-models FOLDER --model someone/model" in ended.stdout
    assert "note     DNA model:" in ended.stdout


def test_data_folders(options: Options, tmp_path: Path) -> None:
    gone = found(options, tmp_path / "gone")["Data folder"]
    assert gone == Finding(
        "Data folder", Verdict.PROBLEM, f"{tmp_path / 'gone'}: no such folder; create it, or mount it there"
    )
    read_only = found(options, Path("/proc"))
    assert read_only["Data folder"].verdict is Verdict.PROBLEM
    assert "/proc: cannot be written" in read_only["Data folder"].text
    assert read_only["Disk"].verdict is Verdict.PROBLEM
    with hold(tmp_path / ".extraction.lock"):
        assert f"run: at work, process {os.getpid()} on host " in found(options, tmp_path)["Data folder"].text
    assert list(tmp_path.iterdir()) == [tmp_path / ".extraction.lock"]
    assert "Data folder" not in found(options)


def test_places_of_mounts_may_hold_spaces_and_any_characters() -> None:
    table = "disk / ext4 rw 0 0\nserver:/é /mnt/données\\040été\\134x nfs4 rw,vers=4.2 0 0\n".encode()
    assert environment._mounts(table) == [
        (Path("/"), "ext4"),
        (Path("/mnt/données été\\x"), "nfs4"),
    ]
    assert environment._mounts(b"none /mnt/\xff tmpfs rw 0 0\n") == [
        (Path(os.fsdecode(b"/mnt/\xff")), "tmpfs")
    ]


def test_the_file_system_of_a_folder_is_that_of_its_nearest_mount(tmp_path: Path) -> None:
    assert environment._file_system(Path("/proc/self")) == "proc"
    assert environment._file_system(tmp_path) not in ("", "proc")


@pytest.mark.skipif(environment._version("nucpro") is None, reason="nucpro is not installed here")
def test_extras_are_those_of_the_package(options: Options) -> None:
    extras = {name: finding for name, finding in found(options).items() if name.startswith("Extra ")}
    assert {"Extra ray", "Extra report", "Extra train", "Extra export"} <= set(extras)
    assert "Extra all" not in extras
    assert extras["Extra export"].verdict is Verdict.FINE
    assert extras["Extra export"].text.startswith("pyarrow ")


def test_a_source_tree_that_is_not_installed_has_no_known_extras(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "version", missing)
    assert found(options)["Extras"].text.startswith(
        "unknown: nucpro runs from a folder that is not installed"
    )


def test_doctor_and_version_are_asked_without_a_word_on_standard_error(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert main(["--version"]) == 0
    assert capfd.readouterr().err == ""
