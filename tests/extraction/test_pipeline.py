"""The whole job on small real data, as a user starts it."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from folders import (
    PER_FILE,
    WIDTH,
    Frame,
    add_source,
    arguments,
    contents,
    copied,
    edited,
    leftovers,
    pairs_of,
)
from nucpro.cli import main
from nucpro.errors import DataError
from nucpro.extraction.run import Run
from nucpro.folder.paths import DataFolder
from nucpro.formats import read_vectors
from nucpro.formats.fasta import read
from nucpro.formats.sequences import SequenceType
from nucpro.options import Options
from nucpro.state.checkpoint import Checkpoint

PASSED = "Validation passed: 6 files, 24 sequences, all dimensions correct"


def test_a_run_leaves_every_file_complete(finished: Path) -> None:
    for pair in pairs_of(finished):
        if not pair.dna_vectors.exists():
            continue
        ids = read(pair.protein_fasta).ids
        protein = torch.load(pair.protein_vectors, weights_only=True)
        dna = torch.load(pair.dna_vectors, weights_only=True)
        merged = torch.load(pair.merged, weights_only=True)
        assert protein["proteins"] == ids == merged["ids"]
        assert merged["labels"] == [1 if pair.category == "viral" else 0]
        assert merged["data"].shape == (4, 768 + WIDTH)
        expected = torch.tensor([row["mean_representation"] for row in dna["data"]])
        assert torch.equal(merged["data"][:, :768], expected)
        assert torch.equal(merged["data"][:, 768:], torch.stack(protein["data"]))


def test_the_last_line_says_that_validation_passed(
    data: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["extract", *arguments(data, model)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == PASSED
    assert any(line.startswith("[1/6] Extracted ") and "(4 sequences, " in line for line in lines)
    assert any("output_2_ESM.pt is 2560 wide, not 16" in line for line in lines)
    log = (data / "extraction.log").read_text()
    assert PASSED in log


def test_equal_work_gives_equal_bytes_whatever_the_folder_is_called_and_is_done_once(
    finished: Path, pristine: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = copied(pristine, tmp_path / "my.family ESM.fa näme")
    assert main(["extract", *arguments(other, model)]) == 0
    assert contents(other) == contents(finished)
    capsys.readouterr()
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in other.rglob("*.pt")}
    assert main(["extract", *arguments(other, model)]) == 0
    output = capsys.readouterr().out
    assert "Loading" not in output
    assert output.splitlines()[-1] == PASSED
    assert before == {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in other.rglob("*.pt")}


def test_a_moved_folder_resumes(
    finished: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(finished, moved)
    link = tmp_path / "link"
    link.symlink_to(moved, target_is_directory=True)
    assert main(["extract", *arguments(link, model)]) == 0
    assert "Extracted" not in capsys.readouterr().out.replace("Extracted 0", "")


def test_a_changed_fasta_redoes_its_file_only(
    finished: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = copied(finished, tmp_path / "data")
    before = contents(data)
    changed = data / "viral.1.1.identified_protein" / "output_1.fa"
    changed.write_text(changed.read_text().replace("A", "G"))
    assert main(["extract", *arguments(data, model)]) == 0
    assert "output_1_ESM.pt was made from another FASTA" in capsys.readouterr().out
    after = contents(data)
    assert {name for name in before if before[name] != after[name]} == {
        "viral.1.1.identified_protein/output_1_ESM.pt",
        "data_merge/viral.1.1_merged/output_1_merged.pt",
    }


def test_another_option_redoes_everything(finished: Path, model: Path, tmp_path: Path) -> None:
    data = copied(finished, tmp_path / "data")
    assert main(["extract", *arguments(data, model, "--token-dropout", "off", "--replace")]) == 0
    before, after = contents(finished), contents(data)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {name for name in before if not name.endswith("_DNABERT_S.pt")}


def test_a_changed_dna_file_is_merged_again(
    finished: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = copied(finished, tmp_path / "data")
    pair = next(pair for pair in pairs_of(data) if pair.category == "bacteria")
    with edited(pair.dna_vectors) as dna:
        dna["data"][0]["mean_representation"][0] = 5.0
    assert main(["extract", *arguments(data, model)]) == 0
    assert "was merged from other vectors" in capsys.readouterr().out
    assert torch.load(pair.merged, weights_only=True)["data"][0, 0] == 5.0


def turned(content: dict[str, Any]) -> dict[str, Any]:
    return {"data": content["data"].flip(0)}


def shortened(content: dict[str, Any]) -> dict[str, Any]:
    return {"data": content["data"][1:].clone(), "ids": content["ids"][1:]}


@pytest.mark.parametrize("change", [turned, shortened])
def test_a_merged_file_with_other_rows_than_its_sources_is_merged_again(
    finished: Path,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    data = copied(finished, tmp_path / "data")
    merged = pairs_of(data)[0].merged
    with edited(merged) as content:
        content.update(change(content))
    assert main(["extract", *arguments(data, model)]) == 0
    assert f"{merged.name} has other rows than its sources" in capsys.readouterr().out
    assert contents(data) == contents(finished)


def test_a_pipe_in_place_of_a_dna_file_is_not_waited_for(finished: Path, model: Path, tmp_path: Path) -> None:
    data = copied(finished, tmp_path / "data")
    path = pairs_of(data)[0].dna_vectors
    path.unlink()
    os.mkfifo(path)
    assert main(["extract", *arguments(data, model, "--dry-run")]) == 3


def test_a_nucleotide_fasta_that_vanishes_under_a_run_is_named(data: Path, model: Path) -> None:
    options = Options(data, protein_model=str(model), device="cpu", sequences_per_file=PER_FILE, report=False)
    with Run(options) as job:
        job.discover()
        job.check()
        job.prepare()
        job.load()
        gone = job.survey.pairs[1].nucleotide_fasta
        gone.rename(gone.with_suffix(".gone"))
        with pytest.raises(DataError, match=re.escape(f"{gone}: ")):
            list(job.making())


def test_an_old_file_of_the_right_width_is_redone_unless_trusted(
    data: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import stand_ins

    pair = next(pair for pair in pairs_of(data) if pair.category == "bacteria")
    stand_ins.write_old_protein(pair.protein_vectors, read(pair.protein_fasta).ids, WIDTH)
    old = pair.protein_vectors.read_bytes()
    assert main(["extract", *arguments(data, model, "--trust-existing")]) == 0
    assert pair.protein_vectors.read_bytes() == old
    assert main(["extract", *arguments(data, model)]) == 0
    assert pair.protein_vectors.read_bytes() != old
    assert "output_1_ESM.pt has no provenance metadata" in capsys.readouterr().out


def test_a_missing_protein_file_is_split_like_the_dna_file(data: Path, model: Path) -> None:
    shutil.rmtree(data / "bacteria.1.1.identified_protein")
    assert main(["extract", *arguments(data, model)]) == 0
    folder = data / "bacteria.1.1.identified_protein"
    assert sorted(path.name for path in folder.glob("*.fa")) == ["output_1.fa", "output_2.fa", "output_3.fa"]
    assert leftovers(data) == []


def test_a_dry_run_shows_the_plan_and_changes_nothing(
    data: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*") if path.is_file()}
    assert main(["extract", *arguments(data, model, "--dry-run")]) == 0
    output = capsys.readouterr().out
    assert f"make    {data}/viral.1.1.identified_protein/output_1_ESM.pt" in output
    assert f"replace {data}/viral.1.1.identified_protein/output_2_ESM.pt" in output
    assert "Disk: " in output
    assert before == {path: path.stat().st_mtime_ns for path in data.rglob("*") if path.is_file()}


def test_files_of_no_category_are_reported_once_and_not_used(
    data: Path, frames: dict[str, list[Frame]], model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = add_source(data, "plant_viruses/my_plant.1.1", frames["bacteria.1.1"][:9])
    warning = f"Warning: 2 full files of no category, not used (first: {source.pair(1).key}): "
    for command in (["extract", *arguments(data, model, "--strict-sampling")], ["status", str(data)]):
        assert main([*command, "--sequences-per-file", "4"]) == 0
        output = "".join(capsys.readouterr())
        assert output.count("of no category, not used") == output.count(warning) == 1
        assert "Host files:  3 (" in output
    assert not source.pair(1).protein_vectors.exists()


def test_an_audit_recomputes_in_float32(data: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["extract", *arguments(data, model, "--audit", "7")]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("Audit"))
    assert "7 sequences recomputed in float32: cosine mean 1.000000, worst 1.000000" in line


def test_an_audit_sees_vectors_of_another_length(
    finished: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = copied(finished, tmp_path / "data")
    path = pairs_of(data)[0].protein_vectors
    with edited(path) as content:
        content["data"] = [vector * 0.5 for vector in content["data"]]
    assert main(["extract", *arguments(data, model, "--audit", "1000")]) == 1
    assert f"{path}: a vector differs from float32 by 0.500 of its length" in capsys.readouterr().err


def test_long_proteins_are_cut_counted_and_reported(
    tmp_path: Path, frames: dict[str, list[Frame]], model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from folders import add_dna

    long = [Frame(f.name, f.bases, f.residues * 20) for f in frames["viral.1.1"][:4]]
    add_dna(add_source(tmp_path, "viral.1.1", long), (1,))
    assert main(["extract", *arguments(tmp_path, model)]) == 0
    warnings = capsys.readouterr().err
    assert "4 sequences longer than the maximum length of the model, truncated there" in warnings
    assert "4 sequences truncated at the maximum length of the model" in warnings


def test_the_checkpoint_lists_files_relative_to_the_folder(finished: Path) -> None:
    content = json.loads((finished / ".extraction_checkpoint.json").read_text())
    assert sorted(content["completed_files"])[0] == "bacteria.1.1.identified_protein/output_1_ESM.pt"
    assert len(content["completed_files"]) == 6
    assert content["started_at"] <= content["last_update"]
    assert not (finished / ".extraction_journal.jsonl").exists()


def test_the_checkpoint_lists_each_file_as_soon_as_its_vectors_are_on_disk(data: Path, model: Path) -> None:
    options = Options(data, protein_model=str(model), device="cpu", sequences_per_file=PER_FILE, report=False)
    with Run(options) as job:
        job.discover()
        job.check()
        job.prepare()
        job.load()
        listed = []
        for task in job.making(merging=False):
            listed.append(job.survey.pairs[0].relative(task.output))
            assert (data / listed[-1]).exists()
            # As another process sees it, or the next run if this one were killed now.
            assert Checkpoint(job.folder, read_only=True).completed == listed
    assert len(listed) == 6
    assert json.loads((data / ".extraction_checkpoint.json").read_text())["completed_files"] == listed


def test_a_list_of_the_form_of_earlier_versions_is_read(
    finished: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = copied(finished, tmp_path / "data")
    path = data / ".extraction_checkpoint.json"
    now = json.loads(path.read_text())["completed_files"]
    with Checkpoint(DataFolder(data)) as checkpoint:
        checkpoint._completed = {name.replace("_ESM.pt", ".fa"): None for name in now}
        checkpoint.fold()
    assert main(["extract", *arguments(data, model)]) == 0
    assert "Done:        6 of 6 files" in capsys.readouterr().out
    assert json.loads(path.read_text())["completed_files"] == now


@pytest.mark.parametrize(
    "content",
    [
        b'{"completed_files": ["/old/output_1.fa", 3], "started_at": "2025-01-01", "last_update": null}',
        b'{"completed_files": {"a": [[]]}, "format": "x", "facts": 7, "sha256": []}',
        b"[1, 2]",
        b"12",
        b"\x80\x02}q\x00.",
        b"completed: none\n",
        b"",
    ],
)
def test_a_checkpoint_of_another_program_stops_no_run_and_is_kept(
    data: Path, model: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path, kept = data / ".extraction_checkpoint.json", data / ".extraction_checkpoint.kept-1.json"
    path.write_bytes(content)
    assert main(["extract", *arguments(data, model, "--dry-run")]) == 0
    assert path.read_bytes() == content
    assert not kept.exists()
    capsys.readouterr()
    assert main(["extract", *arguments(data, model)]) == 0
    output = capsys.readouterr()
    assert output.out.splitlines()[-1] == PASSED
    warning = f"{path} was not written by nucpro: all files are checked by their contents; a run keeps it as "
    assert f"{warning}{kept.name}" in output.err
    assert output.err.count(path.name) == 1
    assert kept.read_bytes() == content
    assert len(json.loads(path.read_text())["completed_files"]) == 6
    assert main(["extract", *arguments(data, model)]) == 0
    assert path.name not in capsys.readouterr().err


def test_vectors_are_those_of_an_embed_of_the_same_fasta(finished: Path, model: Path, tmp_path: Path) -> None:
    pair = next(pair for pair in pairs_of(finished) if pair.category == "bacteria")
    output = tmp_path / "out.pt"
    command = ["embed", str(pair.protein_fasta), "-o", str(output), "--protein-model", str(model)]
    assert main([*command, "--device", "cpu"]) == 0
    ours, theirs = (read_vectors(path, SequenceType.PROTEIN) for path in (output, pair.protein_vectors))
    assert (ours.ids, ours.meta) == (theirs.ids, {**(theirs.meta or {}), "command": "embed"})
    assert ours.vectors.tobytes() == theirs.vectors.tobytes()


def test_order_of_the_protein_file_does_not_matter(data: Path, model: Path) -> None:
    path = data / "viral.1.1.identified_protein" / "output_3.fa"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[6:8] + lines[0:6]) + "\n")
    assert main(["extract", *arguments(data, model)]) == 0
    merged = torch.load(data / "data_merge/viral.1.1_merged/output_3_merged.pt", weights_only=True)
    protein = torch.load(path.with_name("output_3_ESM.pt"), weights_only=True)
    rows = dict(zip(protein["proteins"], protein["data"], strict=True))
    for name, row in zip(merged["ids"], merged["data"], strict=True):
        assert np.array_equal(row[768:].numpy(), rows[name].numpy())
