"""Validation reads what lies on disk, and names every fault with file, expected and actual."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from folders import arguments, copied, pairs_of
from nucpro.cli import main
from nucpro.folder.paths import FilePair
from nucpro.formats import read_merged, read_vectors, write_merged, write_vectors
from nucpro.formats.sequences import SequenceType


@pytest.fixture
def pair(finished: Path, tmp_path: Path) -> FilePair:
    """A file pair of a finished folder that a test may damage."""
    return next(p for p in pairs_of(copied(finished, tmp_path / "data")) if p.category == "bacteria")


def said(pair: FilePair, capsys: pytest.CaptureFixture[str], code: int = 1) -> str:
    capsys.readouterr()
    assert main(["validate", str(pair.source.data_dir), "--sequences-per-file", "4"]) == code
    output = capsys.readouterr()
    return output.err if code else output.out


def test_a_good_folder_passes_and_nothing_changes(pair: FilePair, capsys: pytest.CaptureFixture[str]) -> None:
    data = pair.source.data_dir
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*")}
    lines = said(pair, capsys, 0).splitlines()
    assert lines == [
        "Classes: 12 viral, 12 host sequences",
        "Validation passed: 6 files, 24 sequences, all dimensions correct",
    ]
    assert before == {path: path.stat().st_mtime_ns for path in data.rglob("*")}


def rewrite_merged(pair: FilePair, **changes: object) -> None:
    merged = read_merged(pair.merged)
    content = {
        "ids": merged.ids,
        "vectors": merged.vectors,
        "meta": merged.meta,
        "label": merged.label,
        **changes,
    }
    write_merged(pair.merged, content["ids"], content["vectors"], content["meta"], content["label"])


def test_one_wrong_bit_in_a_merged_row_is_found(pair: FilePair, capsys: pytest.CaptureFixture[str]) -> None:
    rows = read_merged(pair.merged).vectors.copy()
    rows[2, 770] = torch.nextafter(torch.tensor(rows[2, 770]), torch.tensor(9.0)).item()
    rewrite_merged(pair, vectors=rows)
    assert f"{pair.merged}: 1 row unlike output_1_ESM.pt, first " in said(pair, capsys)


def test_a_wrong_label_is_found(pair: FilePair, capsys: pytest.CaptureFixture[str]) -> None:
    rewrite_merged(pair, label=1)
    assert f"{pair.merged}: label 1, but bacteria files have label 0" in said(pair, capsys)


def test_other_ids_are_found(pair: FilePair, capsys: pytest.CaptureFixture[str]) -> None:
    merged = read_merged(pair.merged)
    rewrite_merged(pair, ids=[*merged.ids[:3], "stranger"])
    assert "expected the 4 ids of its FASTA, found 4: 1 missing (first [" in said(pair, capsys)


def test_another_width_is_found_with_both_shapes(pair: FilePair, capsys: pytest.CaptureFixture[str]) -> None:
    rewrite_merged(pair, vectors=read_merged(pair.merged).vectors[:, :700].copy())
    assert f"{pair.merged}: shape of the vectors: expected (4, 784), found (4, 700)" in said(pair, capsys)


@pytest.mark.parametrize(
    ("factor", "text"), [(0.0, "4 vectors of zeros, first "), (None, "all 4 vectors are the same")]
)
def test_constant_vectors_are_found(
    pair: FilePair, factor: float | None, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = read_vectors(pair.protein_vectors, SequenceType.PROTEIN)
    rows = found.vectors * factor if factor is not None else found.vectors[[0, 0, 0, 0]]
    write_vectors(pair.protein_vectors, found.ids, rows.copy(), found.meta, SequenceType.PROTEIN)
    assert f"{pair.protein_vectors}: {text}" in said(pair, capsys)


def test_another_version_of_the_fasta_is_found(pair: FilePair, capsys: pytest.CaptureFixture[str]) -> None:
    pair.protein_fasta.write_text(pair.protein_fasta.read_text().replace("L", "I"))
    assert "made from another version of its FASTA" in said(pair, capsys)


def test_vectors_of_two_models_are_found(pair: FilePair, capsys: pytest.CaptureFixture[str]) -> None:
    found = read_vectors(pair.protein_vectors, SequenceType.PROTEIN)
    meta = {**found.meta, "made_by": {**found.meta["made_by"], "weights_sha256": "0" * 64}}
    write_vectors(pair.protein_vectors, found.ids, found.vectors, meta, SequenceType.PROTEIN)
    assert "made with weights" in said(pair, capsys)


def test_missing_and_truncated_files_are_found(pair: FilePair, capsys: pytest.CaptureFixture[str]) -> None:
    pair.merged.unlink()
    content = pair.dna_vectors.read_bytes()
    pair.source.pair(2).dna_vectors.write_bytes(content[:-100])
    text = said(pair, capsys)
    assert str(pair.merged) in text
    assert str(pair.source.pair(2).dna_vectors) in text
    assert "Validation failed, 2 problems" in text


def test_a_flipped_bit_in_a_dna_file_stops_the_run(
    data: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = next(pair for pair in pairs_of(data) if pair.category == "bacteria")
    content = bytearray(pair.dna_vectors.read_bytes())
    content[len(content) // 2] ^= 1
    pair.dna_vectors.write_bytes(content)
    assert main(["extract", *arguments(data, model)]) == 1
    assert str(pair.dna_vectors) in capsys.readouterr().err
    assert not pair.merged.exists()


def test_dna_vectors_of_another_fasta_stop_the_run(
    data: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = [pair for pair in pairs_of(data) if pair.category == "bacteria"][:2]
    first.dna_vectors.write_bytes(second.dna_vectors.read_bytes())
    assert main(["extract", *arguments(data, model)]) == 1
    said = capsys.readouterr().err
    assert f"{first.dna_vectors} does not belong to {first.nucleotide_fasta}: 4 ids (" in said


def test_status_shows_done_stale_missing_and_outside(
    pair: FilePair, capsys: pytest.CaptureFixture[str]
) -> None:
    pair.merged.unlink()
    pair.source.pair(2).protein_vectors.write_bytes(b"damaged")
    stranger = pair.source.protein_folder / "output_9_ESM.pt"
    stranger.write_bytes(b"x")
    data = pair.source.data_dir
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*") if path.is_file()}
    assert main(["status", str(data), "--sequences-per-file", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("No run in progress. Last: protein, done ")
    assert lines[0].endswith(" s ago, 6 of 6 files")
    assert "Protein files: 5 done, 0 missing, 1 stale" in lines
    # A run replaces the file: its owner has nothing to delete.
    assert any(line.startswith("Stale: output_2_ESM.pt cannot be used: recomputed (") for line in lines)
    assert not any("delete the file" in line for line in lines)
    assert "Merged files:  4 done, 1 missing, 1 stale" in lines
    assert f"Outside the selection: {stranger}" in lines
    assert before == {path: path.stat().st_mtime_ns for path in data.rglob("*") if path.is_file()}


def test_status_works_before_and_during_a_run(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from nucpro.state.lock import hold

    with hold(data / ".extraction.lock"):
        assert main(["status", str(data), "--sequences-per-file", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Run: at work, process ")
    assert lines[1] == "DNA files:     6 of 6 exist"
    assert lines[2:4] == ["Protein files: 1 of 6 exist", "Merged files:  1 of 6 exist"]
    assert f"what a run would keep and make: nucpro extract {data} --dry-run" in lines[4]
    assert main(["status", str(data)]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "No run in progress, and none is recorded here"
