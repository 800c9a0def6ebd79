"""DNABERT-S files of a data folder: the same run as for proteins, of the other sequence type."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from folders import Frame, add_source, arguments, contents, edited, leftovers, pairs_of
from nucpro.cli import main
from nucpro.formats.fasta import read


@pytest.fixture
def bare(tmp_path: Path, frames: dict[str, list[Frame]]) -> Path:
    """A data folder without vectors, of which one source is not split yet."""
    data = tmp_path / "data"
    data.mkdir()
    add_source(data, "viral.1.1", frames["viral.1.1"][:8], split=False)
    add_source(data, "bacteria.1.1", frames["bacteria.1.1"][:20])
    return data


def embed_dna(data: Path, dna_model: Path, *more: str) -> int:
    command = ["embed-dna", str(data), "--dna-model", str(dna_model), "--device", "cpu"]
    return main([*command, "--sequences-per-file", "4", *more])


def made(data: Path) -> list[str]:
    return sorted(path.relative_to(data).as_posix() for path in data.rglob("*_DNABERT_S.pt"))


def test_selected_files_get_vectors_and_the_rest_of_the_job_runs_on_them(
    bare: Path, model: Path, dna_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert embed_dna(bare, dna_model) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "Validation passed: 3 DNA files, 12 sequences, all dimensions correct"
    assert len(made(bare)) == 3
    content = torch.load(bare / made(bare)[-1], weights_only=True)
    fasta = read(bare / "viral.1.1.identified_nucleotide" / "output_2.fa")
    assert content["nucleotide"] == fasta.ids == [row["label"] for row in content["data"]]
    assert all(row["mean_representation"].shape == (768,) for row in content["data"])
    assert content["meta"]["kind"] == "dna"
    assert main(["extract", *arguments(bare, model)]) == 0
    assert leftovers(bare) == []


def test_a_second_run_makes_nothing(bare: Path, dna_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert embed_dna(bare, dna_model) == 0
    before = contents(bare)
    capsys.readouterr()
    assert embed_dna(bare, dna_model) == 0
    assert "Loading" not in capsys.readouterr().out
    assert contents(bare) == before


def test_existing_files_keep_their_bytes(data: Path, dna_model: Path) -> None:
    """Half of the DNABERT-S files exist already, in the old schema: they are not touched."""
    gone = sorted(data.rglob("viral*/*_DNABERT_S.pt"))[:2]
    for path in gone:
        path.unlink()
    before = contents(data)
    assert embed_dna(data, dna_model) == 0
    after = contents(data)
    assert {name for name in after if name not in before} == {
        path.relative_to(data).as_posix() for path in gone
    }
    assert all(after[name] == before[name] for name in before)


def test_existing_files_are_replaced_when_asked(data: Path, dna_model: Path) -> None:
    before = contents(data)
    assert embed_dna(data, dna_model, "--replace") == 0
    after = contents(data)
    assert {name for name in before if before[name] != after[name]} == set(made(data))


def test_a_file_recorded_as_stale_is_recomputed(
    bare: Path, dna_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert embed_dna(bare, dna_model) == 0
    fasta = bare / "viral.1.1.identified_nucleotide" / "output_1.fa"
    before = contents(bare)
    fasta.write_text(fasta.read_text().replace("GATTACA", "GATTACC").replace("ACGT", "ACGA"))
    capsys.readouterr()
    assert embed_dna(bare, dna_model) == 0
    assert "output_1_DNABERT_S.pt was made from another FASTA" in capsys.readouterr().out
    changed = {name for name, content in contents(bare).items() if before[name] != content}
    assert changed == {"viral.1.1.identified_nucleotide/output_1_DNABERT_S.pt"}


def test_all_files_can_be_embedded_and_the_selection_stays(bare: Path, dna_model: Path, model: Path) -> None:
    assert embed_dna(bare, dna_model, "--all") == 0
    assert len(made(bare)) == 7
    assert main(["extract", *arguments(bare, model)]) == 0
    merged = list(bare.rglob("*_merged.pt"))
    assert len(merged) == 3


def test_with_dna_makes_what_is_missing_first(bare: Path, model: Path, dna_model: Path) -> None:
    assert main(["extract", *arguments(bare, model)]) == 3
    more = ["--with-dna", "--dna-model", str(dna_model)]
    assert main(["extract", *arguments(bare, model, *more)]) == 0
    assert len(made(bare)) == 3


def test_unknown_tokens_are_counted_and_shown(
    tmp_path: Path, frames: dict[str, list[Frame]], dna_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masked = [
        Frame(f.name, f.bases[:50] + "N" * 20 + f.bases[70:], f.residues) for f in frames["viral.1.1"][:4]
    ]
    add_source(tmp_path, "viral.1.1", masked)
    assert embed_dna(tmp_path, dna_model) == 0
    warnings = capsys.readouterr().err
    assert "tokens (" in warnings
    assert "unknown to the model (runs of N?)" in warnings


def test_a_dry_run_shows_what_would_be_made(
    bare: Path, dna_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert embed_dna(bare, dna_model, "--dry-run") == 0
    output = capsys.readouterr().out
    assert f"make    {bare}/viral.1.1.identified_nucleotide/output_2_DNABERT_S.pt" in output
    assert made(bare) == []
    assert not (bare / "viral.1.1.identified_nucleotide").exists()


def test_a_model_of_another_width_is_refused(bare: Path, tmp_path: Path, capsys) -> None:
    import dna_stand_ins

    folder = tmp_path / "narrow"
    dna_stand_ins.make_dna_checkpoint(folder, width=24, layers=1, heads=2, feed_forward_width=16)
    dna_stand_ins.train_tokenizer(folder, ["ACGTACGT"])
    assert embed_dna(bare, folder) == 3
    assert "hidden size in config.json: expected 768, found 24" in capsys.readouterr().err


def test_embed_takes_nucleotides(bare: Path, dna_model: Path, tmp_path: Path, capsys) -> None:
    pair = pairs_of(bare)[0]
    output = tmp_path / "out.pt"
    command = ["embed", "--dna", str(pair.nucleotide_fasta), "-o", str(output), "--dna-model", str(dna_model)]
    assert main([*command, "--device", "cpu"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{output}: 4 vectors of width 768"
    assert torch.load(output, weights_only=True)["nucleotide"] == read(pair.nucleotide_fasta).ids


def test_dna_vectors_of_older_bases_are_never_merged_or_passed(
    bare: Path, model: Path, dna_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ids are stable between builds of a data set, so equal ids do not prove equal bases."""
    assert embed_dna(bare, dna_model) == 0
    assert main(["extract", *arguments(bare, model)]) == 0
    fasta = bare / "viral.1.1.identified_nucleotide" / "output_1.fa"
    fasta.write_text(fasta.read_text().replace("ACGT", "ACGA"))
    capsys.readouterr()
    assert main(["extract", *arguments(bare, model)]) == 1
    assert "output_1_DNABERT_S.pt: made from another version of its FASTA" in capsys.readouterr().err
    next(bare.rglob("viral.1.1_merged/output_1_merged.pt")).unlink()
    assert main(["extract", *arguments(bare, model)]) == 1
    assert "was made from another version of" in capsys.readouterr().err
    assert embed_dna(bare, dna_model) == 0
    assert main(["extract", *arguments(bare, model)]) == 0


def test_dna_vectors_of_two_models_are_not_passed(
    bare: Path, model: Path, dna_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert embed_dna(bare, dna_model) == 0
    path = bare / made(bare)[-1]
    with edited(path) as content:
        content["meta"]["made_by"]["weights_sha256"] = "0" * 64
    capsys.readouterr()
    assert main(["extract", *arguments(bare, model)]) == 1
    assert f"{path}: made with weights 000000000000…" in capsys.readouterr().err
    # What was judged well on its own is still judged beside the others.
    assert main(["extract", *arguments(bare, model)]) == 1
    assert "run nucpro embed-dna DATA again" in capsys.readouterr().err
    assert embed_dna(bare, dna_model) == 0
    assert main(["extract", *arguments(bare, model)]) == 0


def test_unusable_records_stop_a_split_before_anything_is_left(
    tmp_path: Path, frames: dict[str, list[Frame]], dna_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoilt = [*frames["viral.1.1"][:7], Frame("bad", "ACGT", "MJK")]
    add_source(tmp_path, "viral.1.1", spoilt, split=False)
    assert embed_dna(tmp_path, dna_model) == 1
    assert "bad has 'J' at position 2" in capsys.readouterr().err
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


def test_temporary_folders_of_dead_runs_are_removed(bare: Path, dna_model: Path) -> None:
    left = bare / ".viral.1.1.identified_nucleotide.nucpro-tmp-99"
    left.mkdir()
    (left / "output_1.fa").write_text(">a\nA\n")
    assert embed_dna(bare, dna_model) == 0
    assert leftovers(bare) == []


def test_a_source_without_its_protein_file_is_found_before_anything_is_touched(
    bare: Path, dna_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bare / "viral.1.1.identified_protein.fa").unlink()
    assert embed_dna(bare, dna_model) == 3
    assert "viral.1.1.identified_protein.fa: missing" in capsys.readouterr().err
    assert not (bare / ".extraction_selection.json").exists()
