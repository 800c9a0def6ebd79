"""Inputs, folders and clocks that change under a run, and runs side by side: real processes, at any instant."""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from scenarios import WHOLE, Baseline, Scenario, copied, state
from test_two_at_once import stopped

from nucpro.classifier.model import load, save
from nucpro.cli import main
from nucpro.errors import DataError
from nucpro.formats import read_merged, write_merged
from nucpro.prediction.evaluation import ModelData, evaluate_lengths
from nucpro.prediction.options import PredictionOptions
from nucpro.progress import Progress

ALL = (
    *(
        "extract",
        "embed_dna",
        "dataset",
        "split",
        "train",
        "compare",
        "evaluate",
        "predict",
        "export",
        "report",
    ),
    *("embed", "residues", "download", "fetch_models"),
)
FAST = ("predict", "export")


def replaced(path: Path, content: bytes) -> None:
    new = path.with_name("new")
    new.write_bytes(content)
    new.replace(path)


def replace_merged(data: Path) -> None:
    """Put other vectors in the place of a merged file, as another run would."""
    path = min((data / "data_merge").rglob("*_merged.pt"))
    file = read_merged(path)
    write_merged(path, file.ids, file.vectors * 2, file.meta, file.label)


def replace_contigs(data: Path) -> None:
    fasta = data / "contigs.fasta"
    replaced(fasta, fasta.read_bytes().replace(b"ACG", b"AGG"))


def replace_proteins(data: Path) -> None:
    fasta = data / "proteins.fa"
    replaced(fasta, fasta.read_bytes().replace(b"MKV", b"MRV"))


def replace_genome(data: Path) -> None:
    genome = data / "viral.1.1.genomic.fna.gz"
    replaced(genome, gzip.compress(gzip.decompress(genome.read_bytes()).replace(b"ACG", b"AGG"), mtime=0))


@pytest.mark.points(0, 5)
@pytest.mark.parametrize(
    ("command", "change"),
    [
        ("train", replace_merged),
        ("predict", replace_contigs),
        ("evaluate", replace_genome),
        ("export", replace_merged),
        ("embed", replace_proteins),
        ("residues", replace_proteins),
    ],
)
def test_an_input_that_is_replaced_meanwhile(
    part: int,
    parts: int,
    command: str,
    change: Callable[[Path], None],
    made: Callable[[str], Baseline],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Either the run tells that something changed, or all is of the old input or all of the new one."""
    base = made(command)
    data = copied(base.scenario.start, tmp_path / "data")
    change(data)
    assert base.scenario.repeat(data) == 0
    wanted = state(data)
    shutil.rmtree(data)
    copied(base.scenario.start, data)
    with stopped(base.scenario, data, base.point("main", part, parts)) as run:
        change(data)
    assert "please report" not in run.told
    if run.code == 0:
        outputs = {name: content for name, content in state(data).items() if name not in base.initial}
        of_one_input = [{name: final[name] for name in outputs} for final in (base.final, wanted)]
        assert outputs in of_one_input
    else:
        assert run.code in (1, 3), run.told
    code = base.scenario.repeat(data)
    if code != 0:
        told = capsys.readouterr().err
        assert code in (2, 3)
        assert "--replace" in told
        assert main([*base.scenario.command(data), "--replace"]) == 0
    assert state(data) == wanted


def change_encoder(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["encoder.layer.0.output.dense.weight"] *= 2
    save_file(tensors, path)


def change_classifier(folder: Path) -> None:
    classifier, card = load(folder)
    with torch.no_grad():
        classifier.hidden.weight *= -1
    save(folder, classifier, card)


def rename_folder(folder: Path, new: Path) -> None:
    folder.rename(folder.with_name("former"))
    copied(new, folder)


def write_in_place(folder: Path, new: Path) -> None:
    for path in new.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())


@pytest.mark.points(1, 5)
@pytest.mark.parametrize("replace", [rename_folder, write_in_place])
@pytest.mark.parametrize(
    ("command", "option", "change"),
    [
        ("predict", "--model", change_classifier),
        ("embed", "--protein-model", change_encoder),
    ],
)
def test_a_model_that_is_replaced_meanwhile(
    part: int,
    parts: int,
    command: str,
    option: str,
    change: Callable[[Path], None],
    replace: Callable[[Path, Path], None],
    made: Callable[[str], Baseline],
    tmp_path: Path,
) -> None:
    """Either the run tells that something changed, or all is of the old model or all of the new one."""
    base = made(command)
    words = base.scenario.command(tmp_path)
    given = words[words.index(option) + 1]
    model, new = copied(Path(given), tmp_path / "model"), copied(Path(given), tmp_path / "new")
    change(new)
    scenario = Scenario(
        base.scenario.start,
        lambda data: [str(model) if word == given else word for word in base.scenario.command(data)],
    )

    def made_with(source: Path) -> dict[str, bytes]:
        rename_folder(model, source)
        shutil.rmtree(model.with_name("former"))
        data = copied(scenario.start, tmp_path / "data")
        assert scenario.repeat(data) == 0
        found = state(data)
        shutil.rmtree(data)
        return found

    wanted, before = made_with(new), made_with(Path(given))
    assert wanted != before
    data = copied(scenario.start, tmp_path / "data")
    with stopped(scenario, data, base.point("main", part, parts)) as run:
        replace(model, new)
    assert "Traceback" not in run.told, run.told
    assert "report it" not in run.told, run.told
    assert run.code in (0, 1, 3), run.told
    if run.code == 0:
        assert state(data) in (before, wanted), run.told
    code = main([*scenario.command(data), "--replace"]) if scenario.repeat(data) else 0
    assert (code, state(data)) == (0, wanted)


def test_a_classifier_that_is_replaced_during_its_evaluation_gets_no_metrics(
    whole: bool, request: pytest.FixtureRequest, model: Path, dna_model: Path, tmp_path: Path
) -> None:
    if not whole:
        pytest.skip(WHOLE)
    data = copied(request.getfixturevalue("evaluate").start, tmp_path / "data")
    encoders = {"protein_model": str(model), "dna_model": str(dna_model), "device": "cpu"}
    options = PredictionOptions(data, data / "model", data, **encoders)

    def show(progress: Progress) -> None:
        if (progress.message, progress.done) == ("Evaluating", 0):
            change_classifier(data / "model")

    with pytest.raises(DataError, match="model: was replaced during the evaluation; run again"):
        evaluate_lengths(data / "model", [150], ModelData(), options, 2, show)
    assert load(data / "model")[1].lengths == {}


@pytest.fixture(params=ALL)
def base(request: pytest.FixtureRequest, whole: bool, made: Callable[[str], Baseline]) -> Baseline:
    if not (whole or request.param in FAST):
        pytest.skip(WHOLE)
    return made(request.param)


@pytest.mark.points(1, 4)
def test_a_folder_that_is_renamed_meanwhile(part: int, parts: int, base: Baseline, tmp_path: Path) -> None:
    """Nothing is written in its old place, and what is in the new one is whole."""
    data, moved = copied(base.scenario.start, tmp_path / "data"), tmp_path / "moved"
    with stopped(base.scenario, data, base.point("main", part, parts)) as run:
        data.rename(moved)
    assert "Traceback" not in run.told, run.told
    assert "report it" not in run.told, run.told
    assert run.code in (0, 1, 3), run.told
    assert [path for path in data.rglob("*") if path.is_file()] == [], run.told
    shutil.rmtree(data, ignore_errors=True)
    moved.rename(data)
    base.require_whole_files(data)
    base.require_recovery(data)


def new_in(data: Path, base: Baseline) -> list[Path]:
    """What is at the top of a folder and was not there at the start, records aside.

    FASTA files whose manifest was removed have no record, so the next run refuses to replace them.
    """
    before = {path.name for path in base.scenario.start.iterdir()}
    new = (path for path in sorted(data.iterdir()) if path.name not in before)
    return [path for path in new if path.name[0] != "." and not path.name.endswith(".identified.json")]


@pytest.mark.points(1, 4)
def test_outputs_that_are_removed_meanwhile(part: int, parts: int, base: Baseline, tmp_path: Path) -> None:
    data = copied(base.scenario.start, tmp_path / "data")
    with stopped(base.scenario, data, base.point("main", part, parts)) as run:
        for path in new_in(data, base):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert "Traceback" not in run.told, run.told
    assert "report it" not in run.told, run.told
    assert run.code in (0, 1, 3), run.told
    base.require_whole_files(data)
    base.require_recovery(data)


@pytest.mark.points(1, 2)
def test_a_clock_that_is_set_back_changes_nothing(
    part: int, parts: int, base: Baseline, tmp_path: Path
) -> None:
    """Times of the next run lie before those of the files and records of the one before."""
    data = copied(base.scenario.start, tmp_path / "data")
    assert base.scenario.struck(data, f"{base.point('main', part, parts)}:SIGKILL").returncode == -9
    for path in data.rglob("*"):
        os.utime(path, (4_102_444_800, 4_102_444_800), follow_symlinks=False)
    base.require_recovery(data)
