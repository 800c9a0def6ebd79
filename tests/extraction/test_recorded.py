"""What a data folder remembers: size of files, models and precision, so that a later command needs no options."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import dna_stand_ins
import stand_ins
from folders import add_dna, add_source, arguments, contents, copied, pairs_of
from nucpro.cli import main
from nucpro.folder.paths import DataFolder
from nucpro.formats.fasta import read
from nucpro.formats.sequences import SequenceType
from nucpro.state.checkpoint import Checkpoint

CPU = ("--device", "cpu", "--no-report")


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stand_ins.make_checkpoint(tmp_path_factory.mktemp("models") / "other", width=16, layers=2, heads=2)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, pristine: Path, model: Path) -> Path:
    """A folder after a run that was given everything."""
    data = copied(pristine, tmp_path_factory.mktemp("made") / "data")
    assert main(["extract", *arguments(data, model)]) == 0
    return data


@pytest.fixture
def done(made: Path, tmp_path: Path) -> Path:
    # As moved or mounted elsewhere.
    return copied(made, tmp_path / "moved")


def extract(data: Path, *more: str) -> int:
    return main(["extract", "--data-dir", str(data), *CPU, *more])


def forget(data: Path, *names: str) -> None:
    """Make the checkpoint one of an earlier version, which did not record some things."""
    folder = DataFolder(data)
    with Checkpoint(folder) as checkpoint:
        checkpoint.fold()
    content = json.loads(folder.checkpoint.read_text())
    for key, fact in list(content["facts"].items()):
        if key.partition(":")[0] in names:
            del content["facts"][key]
        elif key.startswith("recipe:") and "source" in names:
            del fact["source"]
    del content["sha256"]
    with Checkpoint(folder, read_only=True):
        folder.checkpoint.unlink()
    with Checkpoint(folder) as checkpoint:
        for key, fact in content["facts"].items():
            checkpoint._record(key, fact)
        checkpoint.fold()


def test_after_a_run_no_command_needs_an_option(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(done)
    assert extract(done) == 0
    shown = capsys.readouterr().out
    assert "Extracted" not in shown
    recipe = Checkpoint(DataFolder(done), read_only=True).recipe_of(SequenceType.PROTEIN)
    assert recipe is not None
    line = f"As in {done}: --sequences-per-file 4 --protein-model {recipe.source['model']} --precision fp32"
    assert line in shown.splitlines()
    for command in (["status"], ["validate"], ["export", "--to", "npz"], ["report", "--points", "0"]):
        assert main([command[0], str(done), *command[1:]]) == 0, capsys.readouterr().err
        assert f"As in {done}: --sequences-per-file 4\n" in capsys.readouterr().out
    assert contents(done) == before


def test_doctor_looks_at_the_models_of_the_folder(
    done: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["doctor", str(done), "--device", "cpu"])
    assert f"{model}: a folder" in " ".join(capsys.readouterr().out.split())


def test_a_new_file_is_made_as_all_others(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = pairs_of(done)[0]
    before = pair.protein_vectors.read_bytes()
    pair.protein_vectors.unlink()
    assert extract(done) == 0
    assert pair.protein_vectors.read_bytes() == before


def test_another_model_is_refused_with_the_number_of_files_and_taken_with_replace(
    done: Path, other_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(done)
    more = ("--protein-model", str(other_model))
    for dry in ([], ["--dry-run"]):
        assert extract(done, *more, *dry) == 3
        error = capsys.readouterr().err
        assert "6 of 6 protein files were made by tiny (weights " in error
        assert "this run would recompute them by other (weights " in error
        assert "--replace" in error
    assert contents(done) == before
    assert extract(done, *more, "--replace") == 0
    assert "Extracted 6 files" in capsys.readouterr().out
    # From now on that is the folder's model.
    assert extract(done) == 0
    shown = capsys.readouterr().out
    assert f"--protein-model {other_model}" in shown
    assert "Extracted" not in shown


def test_another_precision_or_token_dropout_is_refused_too(
    done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert extract(done, "--precision", "bf16") == 3
    assert "), fp32, token dropout on; this run" in (error := capsys.readouterr().err)
    assert "), bf16, token dropout on:" in error
    assert extract(done, "--token-dropout", "off") == 3
    assert "), fp32, token dropout off:" in capsys.readouterr().err
    assert extract(done, "--token-dropout", "off", "--replace") == 0
    assert "Extracted 6 files" in capsys.readouterr().out
    assert extract(done) == 0
    shown = capsys.readouterr().out
    assert "--token-dropout off --precision fp32" in shown
    assert "Extracted" not in shown


def test_a_folder_whose_record_is_lost_is_protected_by_what_its_files_say(
    done: Path, other_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    DataFolder(done).checkpoint.unlink()
    assert extract(done, "--protein-model", str(other_model)) == 3
    assert "6 of 6 protein files were made by tiny (weights " in capsys.readouterr().err


def test_files_of_unknown_origin_are_replaced_unasked(
    done: Path, other_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = pairs_of(done)
    for pair in pairs:
        pair.protein_vectors.unlink(missing_ok=True)
        pair.merged.unlink(missing_ok=True)
    pair = pairs[1]
    stand_ins.write_old_protein(pair.protein_vectors, read(pair.protein_fasta).ids)
    assert extract(done, "--protein-model", str(other_model)) == 0
    assert "is 2560 wide, not 16" in capsys.readouterr().out


def test_a_replacing_run_that_was_interrupted_goes_on_without_options(
    done: Path, other_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The record is that of the run; files of the model before it are what is left to do."""
    kept = {pair: pair.protein_vectors.read_bytes() for pair in pairs_of(done) if pair.merged.exists()}
    assert extract(done, "--protein-model", str(other_model), "--replace") == 0
    for pair in list(kept)[3:]:
        pair.protein_vectors.write_bytes(kept[pair])
    capsys.readouterr()
    assert extract(done) == 0
    assert "Extracted 3 files" in capsys.readouterr().out


def test_a_recorded_model_that_is_gone_is_named_in_one_line(
    tmp_path: Path, pristine: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, place = copied(pristine, tmp_path / "data"), copied(model, tmp_path / "place")
    assert main(["extract", *arguments(data, place)]) == 0
    moved = place.rename(tmp_path / "moved")
    capsys.readouterr()
    assert extract(data) == 3
    error = capsys.readouterr().err.splitlines()
    assert error[-1].startswith(
        f"  - {place}: the protein model of this data folder no longer exists (place (weights "
    )
    assert error[-1].endswith("give its present folder with --protein-model")
    # Reading needs no model.
    assert main(["validate", str(data)]) == 0
    assert main(["status", str(data)]) == 0
    assert extract(data, "--protein-model", str(moved)) == 0
    assert f"--protein-model {moved}" not in capsys.readouterr().out.split("Validation passed")[-1]
    assert extract(data) == 0


def test_a_folder_of_an_earlier_version_goes_on(
    done: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forget(done, "split", "source")
    before = contents(done)
    assert main(["status", str(done)]) == 0
    assert extract(done, "--protein-model", str(model)) == 0
    assert "Extracted" not in capsys.readouterr().out
    assert contents(done) == before


def test_the_size_is_that_of_the_split_folders_where_nothing_is_recorded(
    tmp_path: Path, frames, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("viral.1.1", "bacteria.1.1"):
        add_dna(add_source(tmp_path, name, frames[name][:8], per_file=3), (1, 2, 3))
    assert extract(tmp_path, "--protein-model", str(model)) == 0
    shown = capsys.readouterr().out
    assert f"As in {tmp_path}: --sequences-per-file 3" in shown
    assert "Validation passed: 4 files, 12 sequences" in shown


def test_the_dna_model_is_remembered_as_well(
    done: Path, dna_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["embed-dna", str(done), "--device", "cpu"]
    assert main([*command, "--dna-model", str(dna_model), "--replace"]) == 0
    capsys.readouterr()
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert f"--dna-model {dna_model} --precision fp32" in shown
    assert "Extracted" not in shown
    other = tmp_path / "other_dna"
    dna_stand_ins.make_dna_checkpoint(other, layers=1, feed_forward_width=32)
    shutil.copy(dna_model / "tokenizer.json", other)
    assert main([*command, "--dna-model", str(other)]) == 3
    assert "6 of 6 DNA files were made by tiny_dna (weights " in capsys.readouterr().err
