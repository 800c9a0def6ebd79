"""The whole of `nucpro train` on merged files of real frames: what comes out, and what stops it before it begins."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from merged_folders import PROTEIN_WIDTH, RECIPES, WIDTH, join, write_side

import train as train_script
from folders import Frame, copied, edited
from nucpro.classifier import model as model_module
from nucpro.classifier import training
from nucpro.classifier.card import read_training
from nucpro.classifier.features import place, read_features
from nucpro.classifier.model import load
from nucpro.classifier.options import Placement, SplitBy, TrainingOptions
from nucpro.classifier.sources import survey
from nucpro.classifier.splits import group, split
from nucpro.classifier.training import train
from nucpro.cli import main
from nucpro.errors import DataError, PreflightError, StoreError, UsageError, ValidationError
from nucpro.folder.paths import DataFolder
from nucpro.formats import read_merged, write_merged
from nucpro.formats.sequences import DNA_WIDTH, SequenceType
from nucpro.genomes.flatfile import Organism
from nucpro.genomes.paths import organisms_path
from nucpro.genomes.taxonomy import organisms_table, read_organisms
from nucpro.state.history import models
from nucpro.state.lock import hold

CPU = torch.device("cpu")


def options(data: Path, **changes: object) -> TrainingOptions:
    standard = {
        "device": "cpu", "epochs": 3, "learning_rate": 0.01, "bootstrap": 20, "curves": False, "split_by": SplitBy.FILE
    }  # fmt: skip
    return TrainingOptions(data, **(standard | changes))


def merged_path(data: Path, name: str, number: int = 1) -> Path:
    return data / "data_merge" / f"{name}_merged" / f"output_{number}_merged.pt"


def rewritten(path: Path, **changes: object) -> None:
    """Write a merged file again with something in it changed."""
    file = read_merged(path)
    values = {"ids": file.ids, "vectors": file.vectors, "meta": file.meta, "label": file.label} | changes
    write_merged(path, **values)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".training.lock"}


def model_bytes(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("model.safetensors", "model.json", "epochs.tsv")}


# ------------------------------------------------------------------------------------------ what comes out


def test_a_model_is_trained_measured_and_described(merged: Path, tmp_path: Path) -> None:
    changes = {"epochs": 12, "patience": 12, "curves": True, "split_by": SplitBy.ROW}
    found = train(options(merged, output=tmp_path / "out", **changes))
    assert found.folders == {"model": tmp_path / "out"}
    classifier, card = load(tmp_path / "out")
    assert classifier.hidden.weight.shape == (512, WIDTH)
    assert (card.input_width, card.widths) == (WIDTH, {"dna": DNA_WIDTH, "protein": PROTEIN_WIDTH})
    assert card.encoders == {
        sequence_type.value: dict(RECIPES[sequence_type].made_by) for sequence_type in SequenceType
    }
    assert card.data["rows"] == 231
    assert card.data["rows_by_class"] == {"host": 39, "viral": 192}
    assert card.data["genomes"] == 9
    assert card.split["by"] == "row"
    assert card.training["epochs"] == 12
    assert card.metrics["test"] == dict(found.comparison.models["model"].values)
    assert card.metrics["test"]["auroc"] > 0.75  # words of four bases tell known genomes apart
    assert set(card.metrics["test_intervals"].values()) == {None}  # of fewer than ten genomes
    confusion = card.metrics["confusion"]
    assert sum(confusion.values()) == sum(card.split["test"]["rows"].values())
    assert sum(found["rows"] for found in card.metrics["by_category"].values()) == sum(confusion.values())
    assert card.calibration["threshold"] == 0.5
    assert 0.25 <= card.calibration["temperature"] <= 10
    assert classifier.temperature == card.calibration["temperature"]
    history = (tmp_path / "out" / "epochs.tsv").read_text().splitlines()
    assert history[0].split("\t")[:4] == ["epoch", "learning_rate", "train_loss", "loss"]
    losses = [float(line.split("\t")[3]) for line in history[1:]]
    assert card.training["best_epoch"] == 1 + int(np.argmin(losses))
    assert card.metrics["validation"]["loss"] == min(losses)
    assert (tmp_path / "out" / "curves.png").read_bytes()[:4] == b"\x89PNG"
    drawn = (tmp_path / "out" / "curves.svg").read_text()
    for text in ("AUROC", "AUPRC", "chance", "prevalence", "perfect calibration", "rows per bin"):
        assert text in drawn


def test_the_saved_weights_are_those_of_the_best_epoch(
    merged: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Steps that are far too long make later epochs worse, so that the best one is not the last.
    caplog.set_level("INFO", logger="nucpro")
    train(options(merged, learning_rate=3.0, patience=3, epochs=40))
    classifier, card = load(merged / "model")
    assert card.training["best_epoch"] < card.training["epochs"] < 40
    assert card.training["ended"] == "validation loss did not fall for 3 epochs"
    assert f"best epoch: {card.training['best_epoch']}" in caplog.text
    short = train(options(merged, learning_rate=3.0, patience=3, epochs=40, output=merged / "again"))
    again, _ = load(short.folders["model"])
    assert torch.equal(again.hidden.weight, classifier.hidden.weight)
    # The loss of the saved weights on validation rows is the best one, computed here from the files alone.
    features = read_features(survey(merged), Placement.MEMORY, CPU, merged)
    settings = options(merged)
    groups = group(features.ids, features.files, features.file_names, settings)
    rows = torch.from_numpy(split(groups, features.labels.numpy(), None, settings).rows[1])
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(classifier(features.matrix[rows]), features.labels[rows])
    assert loss.item() == pytest.approx(card.metrics["validation"]["loss"], rel=1e-5)


def test_equal_seeds_give_equal_bytes_and_others_do_not(merged: Path, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for folder, seed in zip(folders, (1, 1, 2), strict=True):
        train(options(merged, seed=seed, output=folder))
    first, second, other = map(model_bytes, folders)
    assert first == second
    assert first["model.safetensors"] != other["model.safetensors"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_training_keeps_its_best_weights_and_goes_on(
    merged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    train(options(merged, output=tmp_path / "whole"))

    class Stop(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("[2/3]"):
                raise error

    handler = Stop()
    logger = logging.getLogger("nucpro")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with pytest.raises(error):
            train(options(merged, output=tmp_path / "stopped"))
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    _, card = load(tmp_path / "stopped")
    assert card.training["ended"] == "stopped after epoch 2"
    assert card.metrics["test"] is None
    train(options(merged, output=tmp_path / "stopped"))
    assert model_bytes(tmp_path / "stopped") == model_bytes(tmp_path / "whole")


def test_a_repeat_that_is_interrupted_leaves_the_model_as_it_was(
    merged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> torch.Tensor:
        raise KeyboardInterrupt

    train(options(merged, curves=True))
    before = contents(merged / "model")
    # This is called for the test part alone: no epoch is left to be run.
    monkeypatch.setattr(training, "viral_margins", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(options(merged, curves=True))
    assert contents(merged / "model") == before


def test_a_training_that_is_interrupted_while_it_is_measured_keeps_its_weights(
    merged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> torch.Tensor:
        raise KeyboardInterrupt

    train(options(merged, output=tmp_path / "whole"))
    with monkeypatch.context() as patch:
        patch.setattr(training, "viral_margins", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(options(merged, output=tmp_path / "stopped"))
    _, card = load(tmp_path / "stopped")
    assert card.training["ended"] == "all 3 epochs were run"
    assert card.metrics["test"] is None
    train(options(merged, output=tmp_path / "stopped"))
    assert model_bytes(tmp_path / "stopped") == model_bytes(tmp_path / "whole")


def test_a_killed_training_ends_with_the_same_bytes(merged: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nucpro", "train", str(merged), "--device", "cpu", "--split-by", "file"]
    command += ["--epochs", "20", "--patience", "20", "--bootstrap", "5", "--no-curves"]
    command += ["-o", str(tmp_path / "out")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as run:
        assert run.stdout is not None
        for line in run.stdout:
            if line.startswith("[2/20]"):
                run.send_signal(signal.SIGKILL)
                break
    assert run.returncode == -signal.SIGKILL
    assert not (tmp_path / "out" / "model.json").exists()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^Resuming after epoch [1-9]", done.stdout, re.MULTILINE)
    whole = subprocess.run(
        [*command[:-1], str(tmp_path / "whole")], capture_output=True, env=environment, check=False
    )
    assert whole.returncode == 0
    assert model_bytes(tmp_path / "out") == model_bytes(tmp_path / "whole")


def test_the_same_command_after_success_changes_nothing(merged: Path) -> None:
    train(options(merged))
    before = contents(merged / "model")
    train(options(merged))
    assert contents(merged / "model") == before
    assert models(DataFolder(merged)) == [merged / "model"]
    (merged / "model" / "training.json").unlink()
    train(options(merged))
    assert contents(merged / "model").keys() == before.keys()


def test_a_folder_of_another_training_is_left_alone(merged: Path) -> None:
    train(options(merged, seed=20240229))
    before = model_bytes(merged / "model")
    for changes, said in (
        ({"seed": 5}, r"--seed \(20240229 there, now 5\)"),
        (
            {"batch_size": 16, "learning_rate": 0.02},
            r"--batch-size \(32 there, now 16\), --learning-rate \(0.01 there",
        ),
        ({"split_by": SplitBy.ROW}, r"--split-by \(file there, now row\);"),
        ({"sequence_types": (SequenceType.DNA,)}, r"--columns \(\[0, 788\] there, now \[0, 768\]\)"),
        ({"epochs": 2}, r"its 3 epochs, where --epochs 2 and --patience 5 end after 2"),
    ):
        with pytest.raises(UsageError, match=rf"model: holds a training that differs in {said}.*--replace"):
            train(options(merged, **{"seed": 20240229, **changes}))
        assert model_bytes(merged / "model") == before
    train(options(merged, seed=5, replace=True))
    assert model_bytes(merged / "model") != before


@pytest.mark.parametrize("compared", [False, True])
def test_files_of_somebody_else_are_not_replaced(compared: bool, merged: Path, tmp_path: Path) -> None:
    output = tmp_path / "mine"
    folder = output / "dna" if compared else output
    folder.mkdir(parents=True)
    names = ("model.safetensors", "model.json", "training.json", "epochs.tsv", "test_taxa.tsv", "curves.png")
    renamed(merged, "NC_{0}x{1}.1_chunk_1F1")
    settings = {"output": output, "compare": compared, "split_by": SplitBy.GENOME}
    for file in (folder / name for name in names):
        file.write_text('{"format": "mine"}')
        said = f"{file.name}: exists, and there is no record that this command wrote it"
        with pytest.raises(PreflightError, match=said):
            train(options(merged, **settings))
        assert [path for path in output.rglob("*") if path.is_file()] == [file]
        assert file.read_text() == '{"format": "mine"}'
        file.unlink()
    for name in names:
        (folder / name).write_text('{"format": "mine"}')
    train(options(merged, **settings, replace=True))
    assert load(folder)[1].sides


def test_a_comparison_is_replaced_only_where_training_wrote_it(merged: Path, tmp_path: Path) -> None:
    renamed(merged, "NC_{0}x{1}.1_chunk_1F1")
    output = tmp_path / "compared"
    output.mkdir()
    of_genomes = options(merged, output=output, split_by=SplitBy.GENOME)
    (output / "comparison.json").write_text('{"mine": 1}')
    with pytest.raises(PreflightError, match=r"comparison\.json: exists, and there is no record"):
        train(replace(of_genomes, compare=True))
    (output / "comparison.json").unlink()
    train(replace(of_genomes, compare=True))
    train(replace(of_genomes, folds=3))
    assert "all folds" in json.loads((output / "comparison.json").read_text())["models"]


def test_other_merged_files_are_another_training(merged: Path) -> None:
    train(options(merged))
    path = merged_path(merged, "viral.1.1")
    rewritten(path, vectors=read_merged(path).vectors * 2)
    with pytest.raises(UsageError, match=r"holds a training that differs in the merged files;"):
        train(options(merged))


def test_more_epochs_go_on_where_a_training_ended(
    merged: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="nucpro")
    train(options(merged, output=tmp_path / "longer"))
    train(options(merged, output=tmp_path / "longer", epochs=5))
    assert "Resuming after epoch 3" in caplog.messages
    train(options(merged, output=tmp_path / "whole", epochs=5))
    assert model_bytes(tmp_path / "longer") == model_bytes(tmp_path / "whole")


def test_a_state_of_an_earlier_version_is_started_over(
    merged: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(options(merged))
    before = model_bytes(merged / "model")
    path = merged / "model" / ".training.safetensors"
    tensors = safetensors.torch.load_file(path)
    header = {"key": "0" * 64, "history": [{"loss": 0.5}], "best_epoch": 1}
    content = {**header, "sha256": model_module._digest(header, tensors)}
    safetensors.torch.save_file(tensors, path, {"training": json.dumps(content)})
    train(options(merged))
    assert f"{path}: is of an earlier version, whose steps differ; training starts over" in caplog.messages
    assert model_bytes(merged / "model") == before


def test_three_models_are_compared_on_the_same_genomes(merged: Path) -> None:
    renamed(merged, "NC_{0}x{1}.1_chunk_1F1")
    found = train(options(merged, compare=True, split_by=SplitBy.GENOME))
    assert list(found.folders) == ["both", "dna", "protein"]
    widths = {name: load(folder)[1].input_width for name, folder in found.folders.items()}
    assert widths == {"both": WIDTH, "dna": DNA_WIDTH, "protein": PROTEIN_WIDTH}
    assert load(found.folders["protein"])[1].sides == ("protein",)
    content = json.loads((merged / "model" / "comparison.json").read_text())
    assert list(content["differences"]) == ["both - dna", "both - protein", "dna - protein"]
    both, dna = (content["models"][name]["auroc"]["value"] for name in ("both", "dna"))
    assert content["differences"]["both - dna"]["auroc"]["value"] == pytest.approx(both - dna)


def test_a_comparison_on_one_genome_of_a_class_is_refused(merged: Path) -> None:
    with pytest.raises(
        ValidationError,
        match=r"genomes of the test part: 1 host, \d viral; models can be compared on at least 2",
    ):
        train(options(merged, compare=True, split_by=SplitBy.GENOME))
    assert not list(merged.glob("model/*/model.json"))


def test_a_threshold_is_chosen_for_a_precision(merged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run_command(capsys, str(merged), "--split-by", "row", "--precision-at", "0.97")
    assert code == 0
    found = re.search(
        r"^Threshold (0\.\d+): precision 0.97 on the validation part, of which \d+% are viral",
        out,
        re.MULTILINE,
    )
    assert found
    calibration = load(merged / "model")[1].calibration
    assert calibration["threshold"] == float(found[1])
    assert calibration["precision_at"] == 0.97


def test_folds_test_every_row_once(merged: Path) -> None:
    renamed(merged, "NC_{0}x{1}.1_chunk_1F1")
    found = train(options(merged, folds=3, split_by=SplitBy.GENOME))
    assert list(found.folders) == ["fold_1", "fold_2", "fold_3"]
    assert list(found.comparison.models) == ["fold_1", "fold_2", "fold_3", "all folds"]
    cards = [load(folder)[1] for folder in found.folders.values()]
    assert [card.split["fold"] for card in cards] == [[1, 3], [2, 3], [3, 3]]
    assert sum(sum(card.split["test"]["rows"].values()) for card in cards) == 231
    assert len({card.split["test_rows_sha256"] for card in cards}) == 3
    content = json.loads((merged / "model" / "comparison.json").read_text())
    assert content["differences"] == {}
    low, high = content["models"]["all folds"]["auroc"]["interval"]
    assert low < content["models"]["all folds"]["auroc"]["value"] < high


def test_nothing_is_outside_of_the_folder_afterwards(merged: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nucpro", "train", str(merged), "--device", "cpu", "--split-by", "file"]
    command += ["--epochs", "1", "--bootstrap", "5", "--no-curves", "-o", str(tmp_path / "out")]
    folders = {name: tmp_path / name for name in ("TMPDIR", "HOME", "XDG_CACHE_HOME")}
    for folder in folders.values():
        folder.mkdir()
    environment = os.environ | {name: str(folder) for name, folder in folders.items()}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    # NVIDIA's driver keeps its cache in the home of every program that asks it for devices, as torch's backward does.
    left = [file for folder in folders.values() for file in folder.rglob("*") if ".nv" not in file.parts]
    assert left == []


def test_models_of_one_split_are_compared_again(
    merged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    renamed(merged, "NC_{0}x{1}.1_chunk_1F1")
    found = train(options(merged, compare=True, split_by=SplitBy.GENOME, test=0.4, bootstrap=1000))
    folders = [str(folder) for folder in found.folders.values()]
    capsys.readouterr()
    assert main(["compare", *folders, "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    for measured in [*found.comparison.models.values(), *found.comparison.differences.values()]:
        low, high = measured.intervals["auroc"]
        sign = "+" if measured in found.comparison.differences.values() else ""
        assert f"{measured.values['auroc']:{sign}.4f} ({low:{sign}.4f} to {high:{sign}.4f})" in shown
    train(options(merged, split_by=SplitBy.GENOME, test=0.4, seed=3, output=tmp_path / "other"))
    assert (
        main(["compare", folders[0], str(tmp_path / "other"), "--trained-on", str(merged), "--device", "cpu"])
        == 2
    )
    assert (
        "were tested on other rows; models can be compared that were trained on the same"
        in capsys.readouterr().err
    )
    strays = [str(copied(Path(folder), tmp_path / "strays" / Path(folder).name)) for folder in folders]
    assert main(["compare", *strays, "--device", "cpu"]) == 3
    said = f"{strays[0]}: is in no data folder; name that of its training with --trained-on DATA"
    assert said in capsys.readouterr().err
    assert main(["evaluate", strays[0], "--lengths", "150", "--device", "cpu"]) == 3
    assert said in capsys.readouterr().err
    assert main(["compare", folders[0], "--device", "cpu"]) == 2
    assert "one model is given, and two or more are compared" in capsys.readouterr().err
    for option, of in (("--families", "--split-by family"), ("--taxonomy", "--rank")):
        assert main(["compare", *folders, option, "x.tsv", "--device", "cpu"]) == 2
        said = f"{option} is x.tsv; allowed: only with {of}; {folders[0]} was trained with --split-by genome"
        assert said in capsys.readouterr().err
    path = merged_path(merged, "viral.1.1", 5)
    with edited(path) as content:
        content["data"][0, 0] += 1
    assert main(["compare", *folders, "--device", "cpu"]) == 1
    said = f"its merged files are not those that {folders[0]} was trained on"
    assert said in capsys.readouterr().err
    path.unlink()
    assert main(["compare", *folders, "--device", "cpu"]) == 1
    assert "its rows divide into another test part than that of" in capsys.readouterr().err


def test_a_model_is_inspected(merged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(options(merged))
    capsys.readouterr()
    assert main(["inspect", str(merged / "model"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    _, card = load(merged / "model")
    assert facts["what"] == "classifier"
    assert facts["test"]["mcc"] == card.metrics["test"]["mcc"]
    assert facts["confusion"] == card.metrics["confusion"]
    assert facts["encoders"] == {"dna": "words/of-4", "protein": "counts/of-1"}
    record = read_training(merged / "model", facts["weights_sha256"])
    assert record is not None
    assert (facts["trained"], facts["software"]) == (record.ended, record.software)
    assert main(["inspect", str(merged / "model")]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^what +classifier$", shown, re.MULTILINE)
    (merged / "model" / "model.json").write_text("[]")
    assert main(["inspect", str(merged / "model")]) == 1
    assert (
        "model.json: cannot be read (it holds [], expected an object); train a model"
        in capsys.readouterr().err
    )


def test_an_evaluation_says_what_it_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate = ["evaluate", str(tmp_path / "model"), "--device", "cpu", "--lengths"]
    assert main([*evaluate, "50"]) == 2
    assert "--lengths has 50; allowed: 60 or more" in capsys.readouterr().err
    with pytest.raises(SystemExit) as refused:
        main([*evaluate, "many"])
    assert refused.value.code == 2
    assert "'many' is not a list of lengths such as 150,300,500" in capsys.readouterr().err


def test_a_model_is_written_by_one_command_at_a_time(
    merged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A card that a training writes meanwhile would be lost, and so would be what another evaluation adds."""
    train(options(merged, output=merged / "model" / "both"))
    model = merged / "model" / "both"
    evaluate = ["evaluate", str(model), "--lengths", "150", "--device", "cpu"]
    with hold(model / ".training.lock"):
        assert main(evaluate) == 3
        assert f"{model}: in use by process {os.getpid()} on host" in capsys.readouterr().err
        assert main(["train", str(merged), "--compare", "--device", "cpu"]) == 3
        assert f"{model}: in use by process {os.getpid()} on host" in capsys.readouterr().err
    assert main(["evaluate", str(merged), "--lengths", "150"]) == 3
    assert not (merged / ".training.lock").exists()


def test_features_on_disk_give_the_same_model(merged: Path, tmp_path: Path) -> None:
    for where in (Placement.MEMORY, Placement.DISK):
        train(options(merged, placement=where, output=tmp_path / where))
    assert model_bytes(tmp_path / "memory") == model_bytes(tmp_path / "disk")
    assert not [path for path in (tmp_path / "disk").iterdir() if path.stat().st_size > 30_000_000]


# ------------------------------------------------------------------------------------------ the command


def run_command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["train", *arguments, "--device", "cpu", "--epochs", "2", "--bootstrap", "20", "--no-curves"])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_the_command_shows_what_came_out(merged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run_command(capsys, str(merged))
    assert code == 0
    assert re.fullmatch(
        r"Warning: genomes of the test part: \d host, \d viral; with fewer than 10 of a class the metrics say "
        r"little about other genomes, and no intervals are given\n",
        err,
    )
    assert f"Found 8 merged files with 231 rows of 768 DNA and {PROTEIN_WIDTH} protein columns" in out
    assert re.search(r"^Test: +\d+ host, \d+ viral rows; genomes: \d$", out, re.MULTILINE)
    assert re.search(r"^auroc +\d\.\d{4} \(n/a\)$", out, re.MULTILINE)
    assert "n/a: no intervals, since a class has fewer than 10 test genomes" in out
    assert set(load(merged / "model")[1].metrics["test_intervals"].values()) == {None}
    assert out.splitlines()[-1] == f"Model: {merged / 'model'}"


def test_the_original_split_is_done_with_its_leak_named(
    merged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run_command(capsys, str(merged), "--split-by", "row")
    assert code == 0
    assert re.match(r"Warning: \d+ of \d+ test rows \(\d+%\) are of genomes that were also trained on", err)
    assert "how well known genomes are recognised" in err
    leak = load(merged / "model")[1].split["leak"]
    assert leak in err


def test_the_originals_script_is_the_command(merged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--device", "cpu", "--epochs", "1", "--bootstrap", "5", "--no-curves"]
    assert train_script.main(["--data-dir", str(merged), *arguments]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"Model: {merged / 'model'}"


def renamed(data: Path, form: str) -> None:
    """Give every row an id of its own by a form of file and row, as in a data set of many genomes."""
    for number, path in enumerate(sorted(data.rglob("*_merged.pt"))):
        rewritten(path, ids=[form.format(number, row) for row in range(len(read_merged(path).ids))])
    for path in [*data.rglob("*_DNABERT_S.pt"), *data.rglob("*_ESM.pt")]:
        path.unlink()


def drawn_of(shown: str) -> list[str]:
    return re.findall(r"95% bootstrap intervals over (\w+)", shown)


@pytest.mark.parametrize("by", ["genome", "family", "row"])
def test_the_command_says_what_intervals_are_drawn_from(
    by: str, merged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    renamed(merged, "NC_{0}x{1}.1_chunk_1F1")
    more = ["--test", "0.4"]
    if by == "family":
        names = {
            name.partition("_chunk_")[0]
            for path in merged.rglob("*_merged.pt")
            for name in read_merged(path).ids
        }
        table = tmp_path / "families.tsv"
        table.write_text("".join(f"{name}\tfamily of {name}\n" for name in names))
        more += ["--families", str(table)]
    code, out, _ = run_command(capsys, str(merged), "--split-by", by, *more)
    assert code == 0
    assert drawn_of(out) == ["families" if by == "family" else "genomes"]
    card = load(merged / "model")[1]
    low, high = card.metrics["test_intervals"]["auroc"]
    assert low < card.metrics["test"]["auroc"] < high
    assert f"({low:.4f} to {high:.4f})" in out


@pytest.mark.parametrize(("by", "word"), [("file", "files"), ("row", "rows")])
def test_without_genomes_intervals_are_drawn_from_what_was_split(
    by: str, word: str, merged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    renamed(merged, "row{0}x{1}")
    code, out, err = run_command(capsys, str(merged), "--split-by", by, "--test", "0.4")
    assert code == 0
    if by == "row":
        assert drawn_of(out) == [word]
    else:
        assert re.search(r"files of the test part: \d+ host, \d+ viral;", err)
        assert "fewer than 10 test files" in out


def test_taxa_are_kept_together(merged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    renamed(merged, "NC_{0}x{1}.1_chunk_1F1")
    arguments = [str(merged), "--split-by", "taxon"]
    assert run_command(capsys, *arguments)[0] == 3
    code, _, err = run_command(capsys, *arguments)
    assert "231 of 231 records have no taxon" in err
    assert "run nucpro dataset DATA --length N again" in err
    # Five records of a taxon, two taxa of a genus; hosts are of taxa below 1000.
    names = {path: read_merged(path).ids for path in sorted(merged.rglob("*_merged.pt"))}
    nodes: list[str] = []
    root = "1\t|\t1\t|\tno rank\t|\t\t|\n"
    for number, (path, ids) in enumerate(names.items()):
        source = DataFolder(merged).pair_of_merged(path).source
        base = 1000 * number + 10
        organisms = {
            name.partition("_chunk")[0]: Organism("x", base + row // 5) for row, name in enumerate(ids)
        }
        before = read_organisms(organisms_path(source)) if organisms_path(source).exists() else {}
        organisms_path(source).write_bytes(organisms_table({**before, **organisms}))
        for taxon in {organism.taxon for organism in organisms.values()}:
            genus = 100_000 + taxon // 2
            nodes += [f"{taxon}\t|\t{genus}\t|\tspecies\t|\t\t|\n", f"{genus}\t|\t1\t|\tgenus\t|\t\t|\n"]
    code, out, _ = run_command(capsys, *arguments)
    assert code == 0
    assert re.search(r"^Test: +\d+ host, \d+ viral rows; taxa: \d+$", out, re.MULTILINE)
    assert re.search(r"^Nearest training row of \d+ test rows: median cosine -?\d\.\d\d", out, re.MULTILINE)
    taxa = load(merged / "model")[1].split["taxa"]
    assert taxa["train_and_test"] == 0
    assert taxa["train"] + taxa["validation"] + taxa["test"] == len(nodes) // 2
    arguments += ["--rank", "genus", "--replace"]
    code, _, err = run_command(capsys, *arguments)
    assert code == 2
    assert "taxdump.tar.gz: no such file; fetch NCBI's taxonomy with nucpro download DATA --taxonomy" in err
    (merged / "dump").mkdir()
    (merged / "dump" / "nodes.dmp").write_text(root + "".join(nodes))
    code, out, _ = run_command(capsys, *arguments, "--taxonomy", str(merged / "dump"))
    assert code == 0
    assert re.search(r"^Test: +\d+ host, \d+ viral rows; genera: \d+; taxa: \d+$", out, re.MULTILINE)
    card = load(merged / "model")[1]
    assert (card.split["by"], card.split["rank"]) == ("taxon", "genus")


def test_taxa_in_two_parts_of_a_split_are_counted(merged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    renamed(merged, "NC_{0}x{1}.1_chunk_1F1")
    for path in merged.rglob("*_merged.pt"):
        source = DataFolder(merged).pair_of_merged(path).source
        before = read_organisms(organisms_path(source)) if organisms_path(source).exists() else {}
        organisms = {name.partition("_chunk")[0]: Organism("x", 7) for name in read_merged(path).ids}
        organisms_path(source).write_bytes(organisms_table({**before, **organisms}))
    code, out, _ = run_command(capsys, str(merged))
    assert code == 0
    assert "Taxa of the test part that are also trained on: 1 of 1" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split-by", "family"], "--split-by family needs a table: --families FILE.tsv"),
        (["--families", "x.tsv"], "--families is for --split-by family, which is genome here"),
        (["--rank", "genus"], "--rank is for --split-by taxon, which is genome here"),
        (["--split-by", "taxon", "--taxonomy", "x"], "--taxonomy is for --rank, which is not given"),
    ],
)
def test_options_of_the_split_that_do_not_fit(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run_command(capsys, str(tmp_path), *arguments)
    assert code == 2
    assert message in err


def test_a_training_that_diverges_says_what_to_do(merged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # The loss grows by many powers of ten an epoch, so that a few pass the range of float32.
    command = ["train", str(merged), "--device", "cpu", "--learning-rate", "1000", "--no-curves"]
    assert main(command) == 1
    err = capsys.readouterr().err
    assert err.rstrip().endswith("use a smaller --learning-rate")
    assert "Traceback" not in err


def test_columns_are_compared_or_chosen(merged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        run_command(capsys, str(merged), "--compare", "--columns", "dna")
    assert refused.value.code == 2
    assert "argument --columns: not allowed with argument --compare" in capsys.readouterr().err
    assert not (merged / "model").exists()


def test_the_command_says_what_it_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(capsys, str(tmp_path / "absent"))[0] == 3
    assert main(["train", str(tmp_path), "--device", "cpu", "--batch-size", "1"]) == 2
    assert "--batch-size is 1; allowed: 2 (batch norm needs two rows) to 1048576" in capsys.readouterr().err
    if not torch.cuda.is_available():
        assert main(["train", str(tmp_path), "--device", "cuda"]) == 3
        assert "finds no CUDA device here" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------ before training


def refusal(data: Path, kind: type[Exception]) -> str:
    with pytest.raises(kind) as refused:
        train(options(data))
    assert not list(data.glob("model/model.*"))
    return str(refused.value)


def test_nothing_to_train_on(tmp_path: Path) -> None:
    assert f"data_merge: no merged files; make them with nucpro extract {tmp_path}" in refusal(
        tmp_path, PreflightError
    )


def test_wrong_widths_are_all_listed(merged: Path) -> None:
    paths = [merged_path(merged, "viral.1.1", number) for number in (2, 4)]
    for path in paths:
        file = read_merged(path)
        wider = np.pad(file.vectors, ((0, 0), (0, 7)))
        rewritten(path, vectors=wider, meta={**file.meta, "width": WIDTH + 7})
    message = refusal(merged, PreflightError)
    first = merged_path(merged, "bacteria.1.1")
    for path in paths:
        assert (
            f"{path}: {WIDTH + 7} columns, but {first} has {WIDTH}; run nucpro extract DATA again" in message
        )


def test_dna_columns_alone_are_refused(merged: Path) -> None:
    path = merged_path(merged, "viral.1.1")
    rewritten(path, vectors=read_merged(path).vectors[:, :DNA_WIDTH].copy())
    message = refusal(merged, PreflightError)
    assert f"{path}: 768 columns, expected more than the 768 of DNABERT-S" in message


@pytest.mark.parametrize(
    ("sequence_type", "change", "said"),
    [
        (SequenceType.PROTEIN, {"weights_sha256": "9" * 64}, "counts/of-1 (weights_sha256 999999999999…)"),
        (SequenceType.DNA, {"precision": "fp16"}, "words/of-4 (precision fp16)"),
    ],
)
def test_mixed_encoders_are_refused(
    merged: Path,
    frames: dict[str, Sequence[Frame]],
    sequence_type: SequenceType,
    change: dict[str, str],
    said: str,
) -> None:
    pair = DataFolder(merged).pair_of_merged(merged_path(merged, "viral.1.1", 2))
    assert pair is not None
    write_side(pair, sequence_type, frames["viral.1.1"][40:80], {**RECIPES[sequence_type].made_by, **change})
    join(pair)
    message = refusal(merged, PreflightError)
    assert (
        f"{pair.merged}: mixed encoders: its {sequence_type.word} columns were made with {said}, those of"
        in message
    )


def test_another_name_of_the_same_weights_is_no_other_encoder(
    merged: Path, frames: dict[str, Sequence[Frame]]
) -> None:
    pair = DataFolder(merged).pair_of_merged(merged_path(merged, "viral.1.1", 2))
    assert pair is not None
    renamed = {**RECIPES[SequenceType.DNA].made_by, "id": "a/mirror", "revision": None}
    write_side(pair, SequenceType.DNA, frames["viral.1.1"][40:80], renamed)
    join(pair)
    assert survey(merged).rows == 231


def test_vectors_that_are_newer_than_the_merged_file(
    merged: Path, frames: dict[str, Sequence[Frame]]
) -> None:
    pair = DataFolder(merged).pair_of_merged(merged_path(merged, "bacteria.1.1"))
    assert pair is not None
    changed = {**RECIPES[SequenceType.DNA].made_by, "weights_sha256": "0" * 64}
    write_side(pair, SequenceType.DNA, frames["bacteria.1.1"], changed)
    message = refusal(merged, PreflightError)
    assert f"{pair.merged}: was merged from other vectors than {pair.dna_vectors} holds now" in message


def test_merged_files_alone_are_enough_but_their_models_are_unknown(
    merged: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for path in [*merged.rglob("*_DNABERT_S.pt"), *merged.rglob("*_ESM.pt")]:
        path.unlink()
    assert survey(merged).encoders == {"dna": None, "protein": None}
    assert (
        "the model of the DNA columns is not recorded for 8 of 8 files; prediction cannot check its model"
        in caplog.messages
    )


def damage_label(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    del content["labels"]
    torch.save(content, path)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("harm", "kind", "message"),
    [
        (
            damage_label,
            PreflightError,
            "has no 'labels': it was merged without a class; run nucpro extract DATA",
        ),
        (cut_off, PreflightError, "output_1_merged.pt: "),
        (lambda path: rewritten(path, label=0), ValidationError, "label 0, but viral files have label 1"),
    ],
)
def test_a_file_that_cannot_be_trusted(
    merged: Path, harm: Callable[[Path], None], kind: type[Exception], message: str
) -> None:
    path = merged_path(merged, "viral.1.1")
    harm(path)
    found = refusal(merged, kind)
    assert str(path) in found
    assert re.search(message, found)


def test_a_file_of_no_category(merged: Path) -> None:
    source = merged_path(merged, "viral.1.1")
    odd = merged_path(merged, "unknown.1.1")
    odd.parent.mkdir()
    odd.write_bytes(source.read_bytes())
    message = refusal(merged, PreflightError)
    assert f"{odd}: its class is unknown" in message


def test_ids_in_two_files(merged: Path) -> None:
    merged_path(merged, "viral.1.1", 30).write_bytes(merged_path(merged, "viral.1.1").read_bytes())
    message = refusal(merged, ValidationError)
    assert re.search(r"40 ids in more than one merged file \(first \S+_chunk_\d+[FR]\d\)", message)


def test_one_class_only(merged: Path) -> None:
    for path in merged.rglob("*_merged.pt"):
        if "viral" not in str(path):
            path.unlink()
    message = refusal(merged, ValidationError)
    assert message == (
        "one class only: 192 viral and 0 host rows; a classifier needs both: extract files of the other class too"
    )


def test_features_that_fit_nowhere(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"need 1,000,000 GB, and --features auto lacks the space \(device"):
        place(10**15, CPU, Placement.AUTO, tmp_path)
    with pytest.raises(UsageError, match="--features device lacks the space"):
        place(10, CPU, Placement.DEVICE, tmp_path)


def test_a_file_that_changes_while_it_is_read(merged: Path) -> None:
    found = survey(merged)
    path = merged_path(merged, "viral.1.1")
    file = read_merged(path)
    rewritten(path, ids=file.ids[:5], vectors=file.vectors[:5].copy())
    with pytest.raises(StoreError, match="changed while it was read"):
        read_features(found, Placement.MEMORY, CPU, merged)


def test_a_state_that_is_damaged(merged: Path) -> None:
    train(options(merged))
    (merged / "model" / ".training.safetensors").write_bytes(b"short")
    with pytest.raises(
        Exception, match=r"\.training\.safetensors: cannot be read .*; start over with --replace"
    ):
        train(options(merged))


def test_a_state_with_one_wrong_bit_is_not_gone_on_from(merged: Path) -> None:
    train(options(merged))
    state = merged / "model" / ".training.safetensors"
    before = state.read_bytes()
    train(options(merged, replace=True))
    assert state.read_bytes() == before
    for where in (before.index(b"best_epoch") + len('best_epoch\\": '), len(before) - 1):
        changed = bytearray(before)
        changed[where] ^= 1
        state.write_bytes(changed)
        with pytest.raises(
            DataError,
            match=r"(its SHA-256 is another|best_epoch is 0, expected).*; start over with --replace",
        ):
            train(options(merged))
