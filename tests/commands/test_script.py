"""The script and the names that VirNucPro scripts import, used as those scripts use them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from folders import PER_FILE, arguments, contents, copied, options_with
from nucpro.cli import main as nucpro
from nucpro.errors import PreflightError, UsageError
from nucpro.options import Options

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import extract_training_data as script  # noqa: E402

import features_extract  # noqa: E402
import train  # noqa: E402


@pytest.fixture
def encoder(model: Path):
    from nucpro.embedding import encoder as encoders
    from nucpro.formats.sequences import SequenceType

    options = Options(protein_model=str(model), device="cpu")
    return encoders.load(encoders.identify(options, SequenceType.PROTEIN), options)


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that are called alone take the usual number of sequences a file; the folders of tests are smaller."""
    options_with(monkeypatch, sequences_per_file=PER_FILE)


def test_the_script_does_the_same_as_the_command(pristine: Path, model: Path, tmp_path: Path) -> None:
    by_script, by_command = copied(pristine, tmp_path / "script"), copied(pristine, tmp_path / "command")
    command = [sys.executable, str(ROOT / "scripts" / "extract_training_data.py")]
    done = subprocess.run(
        [*command, *arguments(by_script, model)], cwd="/", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert nucpro(["extract", *arguments(by_command, model)]) == 0
    assert contents(by_script) == contents(by_command)
    assert done.stdout.splitlines()[-1].startswith("Validation passed: 6 files, 24 sequences")
    assert "tokens/s" in done.stdout
    assert not re.search(r"(?<![\d,])0 tokens/s", done.stdout)


def test_the_script_runs_where_nothing_is_installed(data: Path, model: Path) -> None:
    """Its clone and the dependencies are enough: no installed package, any working directory."""
    site = Path(torch.__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-S", str(ROOT / "scripts" / "extract_training_data.py"), "--dry-run"]
    done = subprocess.run(
        [*command, *arguments(data, model)],
        cwd="/",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def vectors_key(protein_fasta: str, data: Path) -> str:
    """Name under which the checkpoint lists a protein file."""
    return Path(protein_fasta).relative_to(data).as_posix().replace(".fa", "_ESM.pt")


def test_the_eight_functions_one_after_the_other(data: Path, encoder) -> None:
    checkpoint = data / ".extraction_checkpoint.json"
    viral, hosts = script.discover_training_data(data)
    assert [Path(path).name for path in viral] == ["output_1.fa", "output_2.fa", "output_3.fa"]
    assert len(hosts) == 3
    script.validate_prerequisites(viral, hosts, device="cpu")
    proteins = [[path.replace("_nucleotide/", "_protein/") for path in files] for files in (viral, hosts)]
    assert script.extract_all(*proteins, encoder, None, checkpoint) == 6
    keys = [vectors_key(path, data) for path in (*proteins[0], *proteins[1])]
    assert script.load_checkpoint(checkpoint)["completed_files"] == keys
    assert script.extract_all(*proteins, encoder, None, checkpoint) == 0
    assert script.load_checkpoint(checkpoint)["completed_files"] == keys
    assert script.merge_all(viral, hosts) == 6
    script.validate_all(data)
    script.save_checkpoint(checkpoint, proteins[0][:1], "2026-01-01T00:00:00+00:00")
    loaded = script.load_checkpoint(checkpoint)
    assert loaded == {"completed_files": keys[:1], "started_at": "2026-01-01T00:00:00+00:00"}
    assert json.loads(checkpoint.read_text())["last_update"] > "2026-01-01"


def test_missing_dna_files_stop_the_prerequisites(data: Path) -> None:
    viral, hosts = script.discover_training_data(data)
    gone = Path(viral[0]).with_name("output_1_DNABERT_S.pt")
    gone.unlink()
    with pytest.raises(PreflightError, match="1 DNABERT-S file missing") as caught:
        script.validate_prerequisites(viral, hosts, device="cpu")
    assert str(gone) in str(caught.value)


def proteins_of(files: list[str]) -> list[str]:
    return [path.replace("_nucleotide/", "_protein/") for path in files]


def test_each_finished_file_is_in_the_checkpoint_at_once(
    data: Path, encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ends the call: what was finished before is listed, and so are files of other calls."""
    checkpoint = data / ".extraction_checkpoint.json"
    viral, hosts = map(proteins_of, script.discover_training_data(data))
    assert script.extract_all(viral[:1], [], encoder, None, checkpoint) == 1
    broken = Path(viral[2]).read_text()
    Path(viral[2]).write_text(broken[: broken.rindex(">")] + ">last\nMK1\n")
    assert script.extract_all(hosts[:1], [], encoder, None, checkpoint) == 1
    listed = [vectors_key(path, data) for path in (viral[0], hosts[0])]
    assert script.load_checkpoint(checkpoint)["completed_files"] == listed
    seen: list[list[str]] = []
    listing = lambda _: seen.append(script.load_checkpoint(checkpoint)["completed_files"])  # noqa: E731
    monkeypatch.setattr(script, "showing", lambda: nullcontext(listing))
    assert script.extract_all([viral[1]], hosts, encoder, None, checkpoint) == 3
    # Reading is shown too, before anything is finished.
    assert list(dict.fromkeys(len(files) for files in seen)) == [2, 3, 4, 5]


def test_the_lists_that_are_given_are_used(data: Path, encoder, tmp_path: Path) -> None:
    checkpoint = data / ".extraction_checkpoint.json"
    viral, hosts = script.discover_training_data(data)
    assert script.extract_all(proteins_of(viral[1:2]), [], encoder, None, checkpoint) == 1
    assert script.merge_all(viral[1:2], []) == 1
    assert [path.name for path in data.rglob("*_merged.pt")] == ["output_2_merged.pt"]
    nowhere = [
        viral[0].replace("output_1", "output_8"),
        str(tmp_path / "x_identified_protein" / "output_1.fa"),
    ]
    for call in (
        lambda: script.extract_all(nowhere, hosts, encoder, None, checkpoint),
        lambda: script.merge_all(viral, nowhere),
        lambda: script.validate_prerequisites(nowhere, hosts, device="cpu"),
    ):
        with pytest.raises(PreflightError, match="2 problems found") as caught:
            call()
        assert all(f"{path}: no s" in str(caught.value) for path in nowhere)


def test_nothing_to_extract_needs_no_model(data: Path) -> None:
    assert script.extract_all([], [], None, None, data / ".extraction_checkpoint.json") == 0


def test_what_is_done_needs_no_model_to_be_loaded(
    data: Path, model: Path, encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = data / ".extraction_checkpoint.json"
    viral, _ = map(proteins_of, script.discover_training_data(data))
    assert script.extract_all(viral, [], encoder, None, checkpoint) == 3
    # A device that no machine has: the default model can be identified, but not loaded.
    options_with(monkeypatch, protein_model=str(model), device="cuda:99", precision="fp32")
    assert script.extract_all(viral, [], None, None, checkpoint) == 0
    Path(viral[0]).with_name("output_1_ESM.pt").unlink()
    with pytest.raises(PreflightError, match="cuda:99"):
        script.extract_all(viral, [], None, None, checkpoint)


@pytest.mark.parametrize("form", ["absolute", "dotted", "plain", "folder", "upwards", "linked"])
@pytest.mark.parametrize("end", [".fa", "_ESM.pt"])
def test_completed_files_may_be_named_from_anywhere(
    data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, form: str, end: str
) -> None:
    monkeypatch.chdir(data.parent)
    link = tmp_path / "linked"
    link.symlink_to(data)
    key = "viral.1.1.identified_protein/output_2"
    name = {
        "absolute": f"{data}/{key}",
        "dotted": f"./data/{key}",
        "plain": f"data/{key}",
        "folder": key,
        "upwards": f"data/../data/{key}",
        "linked": f"{link}/{key}",
    }[form]
    for checkpoint in ("./data/.extraction_checkpoint.json", link / ".extraction_checkpoint.json"):
        script.save_checkpoint(checkpoint, [name + end], "2026-01-01T00:00:00+00:00")
        assert script.load_checkpoint(checkpoint)["completed_files"] == [f"{key}_ESM.pt"]
        script.save_checkpoint(
            checkpoint, script.load_checkpoint(checkpoint)["completed_files"], "2026-01-01"
        )
        assert script.load_checkpoint(checkpoint)["completed_files"] == [f"{key}_ESM.pt"]


def test_what_is_no_file_of_the_folder_is_named(data: Path, tmp_path: Path) -> None:
    checkpoint = data / ".extraction_checkpoint.json"
    for name in (
        "a/output_1.fa",
        "/etc/passwd",
        "../output_1.fa",
        str(tmp_path),
        "viral.1.1.identified_protein",
    ):
        with pytest.raises(UsageError, match="has no such files") as caught:
            script.save_checkpoint(checkpoint, [name], "2026-01-01")
        assert name in str(caught.value)
    assert not checkpoint.exists()
    for call in (script.load_checkpoint, lambda path: script.extract_all(["x"], [], None, None, path)):
        with pytest.raises(UsageError, match=r"it must be called \.extraction_checkpoint\.json"):
            call(data / "mine.json")


@pytest.mark.parametrize("form", ["./data/", "./data", "data/", "data", "/", "../here/data"])
def test_paths_begin_as_the_data_folder_was_named(
    data: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    here = data.parent / "here"
    here.mkdir()
    data.rename(here / "data")
    monkeypatch.chdir(here)
    form = f"{here}/data/" if form == "/" else form
    viral, hosts = script.discover_training_data(form)
    start = form if form.endswith("/") else f"{form}/"
    assert viral[0] == f"{start}viral.1.1.identified_nucleotide/output_1.fa"
    assert all(path.startswith(start) and Path(path).exists() for path in (*viral, *hosts))


def test_steps_alone_find_the_data_folder_of_sources_in_sub_folders(data: Path, encoder) -> None:
    shutil.rmtree(data / "data_merge")  # of sources that lie elsewhere now
    sub = data / "viral" / "refseq"
    sub.mkdir(parents=True)
    for path in data.glob("viral.1.1*"):
        path.rename(sub / path.name)
    checkpoint = data / ".extraction_checkpoint.json"
    viral, hosts = script.discover_training_data(data)
    assert script.extract_all(proteins_of(viral), proteins_of(hosts), encoder, None, checkpoint) == 6
    assert script.merge_all(viral, hosts) == 6
    assert len(list((data / "data_merge" / "viral" / "refseq" / "viral.1.1_merged").iterdir())) == 3
    script.validate_all(data)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_prerequisites_are_those_of_a_gpu_where_nothing_else_is_said(data: Path) -> None:
    viral, hosts = script.discover_training_data(data)
    Path(viral[0]).with_name("output_1_DNABERT_S.pt").unlink()
    with pytest.raises(PreflightError, match="2 problems found") as caught:
        script.validate_prerequisites(viral, hosts)
    assert "finds no CUDA device here" in str(caught.value)
    assert "1 DNABERT-S file missing" in str(caught.value)


UNGUARDED = """
import sys

sys.path[:0] = {places!r}
from extract_training_data import discover_training_data, main, validate_all

print("once")
assert main({arguments!r}) == 0
"""


@pytest.mark.parametrize("source", ["file", "standard input"])
def test_the_functions_work_in_a_script_without_a_guard(data: Path, model: Path, source: str) -> None:
    """Merging is done by worker processes, however small the folder."""
    places = [str(ROOT), str(ROOT / "scripts")]
    program = UNGUARDED.format(places=places, arguments=arguments(data, model))
    script_file = data.parent / "mine.py"
    script_file.write_text(program)
    done = subprocess.run(
        [sys.executable, str(script_file) if source == "file" else "-"],
        input=program,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("once") == 1
    assert "Validation passed: 6 files" in done.stdout


def test_the_recipe_shows_what_it_is_made_of() -> None:
    text = (ROOT / "scripts" / "extract_training_data.py").read_text()
    assert len(text.splitlines()) >= 150
    for part in ("os.walk(data_dir", "DNABERT_S", "checkpoint", "tqdm", "PROTEIN_DIM", "MERGED_DIM"):
        assert part in text
    names = ("discover_training_data", "load_checkpoint", "save_checkpoint", "validate_prerequisites")
    for name in (*names, "extract_all", "merge_all", "validate_all", "main"):
        assert callable(getattr(script, name))


def test_features_extract_does_dna_too(
    pristine: Path, model: Path, dna_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = copied(pristine, tmp_path / "data")
    kept = [path for path in data.rglob("*_DNABERT_S.pt") if path.name == "output_1_DNABERT_S.pt"]
    before = {path: path.read_bytes() for path in kept}
    (data / "viral.1.1.identified_nucleotide" / "output_3_DNABERT_S.pt").unlink()
    assert features_extract.main([*arguments(data, model), "--dna-model", str(dna_model)]) == 0
    assert "Validation passed: 6 DNA files" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in kept} == before


def test_train_learns_from_what_the_job_made(
    data: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = [
        "--data-dir",
        str(data),
        "--device",
        "cpu",
        "--split-by",
        "file",
        "--epochs",
        "1",
        "--no-curves",
    ]
    assert train.main(recipe) == 1
    assert "one class only: 4 viral and 0 host rows" in capsys.readouterr().err
    assert nucpro(["extract", *arguments(data, model)]) == 0
    capsys.readouterr()
    assert train.main(recipe) == 0
    said = capsys.readouterr().out
    assert "Found 6 merged files with 24 rows of 768 DNA and 16 protein columns" in said
    assert said.splitlines()[-1] == f"Model: {data / 'model'}"


def test_the_script_merges_what_is_left_to_merge(data: Path, model: Path) -> None:
    assert script.main(arguments(data, model)) == 0
    expected = contents(data)
    next(data.rglob("*_merged.pt")).unlink()
    assert script.main(arguments(data, model)) == 0
    assert contents(data) == expected


def test_a_dry_run_with_dna_shows_both_plans(
    data: Path, model: Path, dna_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = data / "viral.1.1.identified_nucleotide" / "output_3_DNABERT_S.pt"
    gone.unlink()
    more = ["--with-dna", "--dna-model", str(dna_model), "--dry-run"]
    assert script.main([*arguments(data, model), *more]) == 0
    output = capsys.readouterr().out
    assert f"make    {gone}" in output
    assert f"make    {data}/viral.1.1.identified_protein/output_3_ESM.pt" in output
    assert not gone.exists()


def test_with_dna_checks_the_protein_file_first(data: Path, model: Path, dna_model: Path) -> None:
    gone = data / "viral.1.1.identified_nucleotide" / "output_3_DNABERT_S.pt"
    gone.unlink()
    path = data / "viral.1.1.identified_protein" / "output_1.fa"
    path.write_text(path.read_text().replace("chunk_2F3", "chunk_9"))
    assert script.main([*arguments(data, model), "--with-dna", "--dna-model", str(dna_model)]) == 3
    assert not gone.exists()
