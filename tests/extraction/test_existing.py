"""Protein files of other programs, which do not say how they were made: what is kept of them, and what is told."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, EsmModel

import random_esm
from folders import PER_FILE, Frame, add_dna, add_source, arguments, pairs_of
from nucpro.cli import main
from nucpro.embedding import encoder as encoders
from nucpro.errors import UsageError
from nucpro.extraction.audit import recompute
from nucpro.extraction.survey import read_only_survey
from nucpro.folder.paths import FilePair
from nucpro.formats.fasta import read
from nucpro.formats.sequences import SequenceType
from nucpro.options import Options

Vectors = list[torch.Tensor]


@pytest.fixture(scope="module")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_esm.save(random_esm.model(), tmp_path_factory.mktemp("models") / "random")


@pytest.fixture(params=["random weights", "real weights"])
def esm_folder(request: pytest.FixtureRequest, random_model: Path) -> Path:
    return (
        random_model
        if request.param == "random weights"
        else request.getfixturevalue("real_data") / "esm2_8m"
    )


@pytest.fixture
def esm(esm_folder: Path) -> EsmModel:
    """The model as another program loads it."""
    return AutoModel.from_pretrained(esm_folder, add_pooling_layer=False).eval()


def hidden(esm: EsmModel, sequences: Sequence[bytes]) -> Vectors:
    lengths = [len(sequence) + 2 for sequence in sequences]
    return list(random_esm.reference(esm, sequences).split(lengths))


def of_residues(esm: EsmModel, sequences: Sequence[bytes]) -> Vectors:
    return [states[1:-1].mean(0) for states in hidden(esm, sequences)]


def in_half_precision(esm: EsmModel, sequences: Sequence[bytes]) -> Vectors:
    return [vector.half().float() for vector in of_residues(esm, sequences)]


def with_eos(esm: EsmModel, sequences: Sequence[bytes]) -> Vectors:
    return [states[1:].mean(0) for states in hidden(esm, sequences)]


def with_cls(esm: EsmModel, sequences: Sequence[bytes]) -> Vectors:
    return [states[:-1].mean(0) for states in hidden(esm, sequences)]


def of_all_tokens(esm: EsmModel, sequences: Sequence[bytes]) -> Vectors:
    return [states.mean(0) for states in hidden(esm, sequences)]


def without_token_dropout(esm: EsmModel, sequences: Sequence[bytes]) -> Vectors:
    esm.embeddings.token_dropout = False
    try:
        return of_residues(esm, sequences)
    finally:
        esm.embeddings.token_dropout = True


MAKERS: list[tuple[Callable[[EsmModel, Sequence[bytes]], Vectors], str]] = [
    (of_residues, "Verified: "),
    (in_half_precision, "Verified: "),
    (with_eos, "its vectors are a mean of residues and <eos>"),
    (with_cls, "its vectors are a mean of <cls> and residues"),
    (of_all_tokens, "its vectors are a mean of all tokens"),
    (without_token_dropout, "to the vector of the model, below 0.9999"),
]


def write_old(pair: FilePair, vectors: Vectors) -> None:
    """As VirNucPro writes: in another order than the FASTA, a storage a vector, and nothing of their origin."""
    ids = read(pair.protein_fasta).ids
    rows = [vector.clone() for vector in vectors]
    torch.save({"proteins": ids[::-1], "data": rows[::-1]}, pair.protein_vectors)


def write_elsewhere(data: Path, frames: dict[str, list[Frame]], esm: EsmModel, times: int = 1) -> Path:
    """A folder of six files, each made in another way, with proteins of 100 residues or a multiple of that."""
    for name in ("viral.1.1", "bacteria.1.1"):
        longer = [Frame(f.name, f.bases, f.residues * times) for f in frames[name][:12]]
        add_dna(add_source(data, name, longer), (1, 2, 3))
    for pair, (make, _) in zip(pairs_of(data), MAKERS, strict=True):
        write_old(pair, make(esm, read(pair.protein_fasta).sequences))
    return data


@pytest.fixture
def finished_elsewhere(tmp_path: Path, frames: dict[str, list[Frame]], esm: EsmModel) -> Path:
    return write_elsewhere(tmp_path, frames, esm)


def test_long_proteins_do_not_hide_what_was_done_to_one_token(
    tmp_path: Path, frames: dict[str, list[Frame]], esm: EsmModel, esm_folder: Path
) -> None:
    data = write_elsewhere(tmp_path, frames, esm, times=9)
    options = Options(
        data,
        protein_model=str(esm_folder),
        device="cpu",
        sequences_per_file=PER_FILE,
        verify_existing=1,
        report=False,
    )
    model = encoders.identify(options, SequenceType.PROTEIN)
    with read_only_survey(options, planning=True) as survey:
        survey.discover()
        survey.inputs()
        items = survey.compare(model.recipe).items
    assert all(item.to_verify for item in items)
    found = {item.pair: one for item, one in zip(items, recompute(items, model, options), strict=True)}
    for pair, (_, what) in zip(pairs_of(data), MAKERS, strict=True):
        assert what in found[pair].line(pair.protein_vectors, "x")
        assert found[pair].records == 1


def test_only_files_that_the_model_would_make_are_kept(
    finished_elsewhere: Path, esm_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, pairs = finished_elsewhere, pairs_of(finished_elsewhere)
    before = [pair.protein_vectors.read_bytes() for pair in pairs]
    command = ["extract", *arguments(data, esm_folder)]

    assert main([*command, "--dry-run"]) == 0
    output = capsys.readouterr().out
    way_out = "recomputed unless --trust-existing keeps it or --verify-existing N proves it"
    assert output.count(f"has no provenance metadata: {way_out} (") == 6

    assert main([*command, "--dry-run", "--verify-existing", "2"]) == 0
    output = capsys.readouterr().out
    assert all(f"verify  {pair.protein_vectors}" in output for pair in pairs)
    assert [pair.protein_vectors.read_bytes() for pair in pairs] == before

    assert main([*command, "--verify-existing", "2"]) == 0
    output = capsys.readouterr().out
    for pair, (_, what) in zip(pairs, MAKERS, strict=True):
        (line,) = [
            ln
            for ln in output.splitlines()
            if f"2 records recomputed with {esm_folder.name}: " in ln and str(pair.protein_vectors) in ln
        ]
        assert what in line
    kept = [pair.protein_vectors.read_bytes() == old for pair, old in zip(pairs, before, strict=True)]
    assert kept == [True, True, False, False, False, False]
    assert "Validation passed: 6 files, 24 sequences, all dimensions correct" in output
    facts = json.loads((data / ".extraction_checkpoint.json").read_text())["facts"]
    fact = facts[f"vectors:{pairs[0].relative(pairs[0].protein_vectors)}"]
    assert fact["verified"]["records"] == 2
    assert fact["verified"]["model"]["id"] == esm_folder.name

    # Without the option, a later look and a later run say the same.
    assert main(["status", str(data), "--sequences-per-file", "4"]) == 0
    output = capsys.readouterr().out
    assert "Done:        6 of 6 files" in output
    assert "Kept:        2 files without provenance metadata (2 verified)" in output
    assert main(command) == 0
    assert "Done:        6 of 6 files" in capsys.readouterr().out
    # What was recomputed says nothing of a file that was written since.
    write_old(
        pairs[0], [vector + 1 for vector in torch.load(pairs[0].protein_vectors, weights_only=True)["data"]]
    )
    assert main([*command, "--verify-existing", "2"]) == 0
    assert f"recomputed ({pairs[0].protein_vectors})" in capsys.readouterr().out


@pytest.mark.parametrize("esm_folder", ["random weights"], indirect=True)
def test_what_is_trusted_is_done_for_whoever_looks(
    finished_elsewhere: Path, random_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = finished_elsewhere
    assert main(["extract", *arguments(data, random_model, "--trust-existing")]) == 0
    capsys.readouterr()
    assert main(["status", str(data), "--sequences-per-file", "4"]) == 0
    output = capsys.readouterr().out
    assert "Done:        6 of 6 files" in output
    assert "Kept:        6 files without provenance metadata (6 trusted)" in output
    assert "Protein files: 6 done, 0 missing, 0 stale" in output
    changed = pairs_of(data)[0].protein_vectors
    changed.write_bytes(changed.read_bytes())
    assert main(["status", str(data), "--sequences-per-file", "4"]) == 0
    assert "Protein files: 5 done, 0 missing, 1 stale" in capsys.readouterr().out


@pytest.mark.parametrize("esm_folder", ["random weights"], indirect=True)
def test_files_that_are_not_complete_are_not_verified(
    finished_elsewhere: Path, esm_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = pairs_of(finished_elsewhere)[0]
    content = torch.load(pair.protein_vectors, weights_only=True)
    torch.save({name: values[1:] for name, values in content.items()}, pair.protein_vectors)
    command = ["extract", *arguments(finished_elsewhere, esm_folder), "--verify-existing", "1000"]
    assert main([*command, "--dry-run"]) == 0
    assert "output_1_ESM.pt holds other ids than its FASTA: recomputed" in capsys.readouterr().out
    assert main(command) == 0
    output = capsys.readouterr().out
    assert output.count("4 records recomputed") == 5


def test_options_that_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="--verify-existing is 3; allowed: only without --trust-existing"):
        Options(trust_existing=True, verify_existing=3)
    with pytest.raises(UsageError, match="--verify-existing is -1; allowed: 0 or more"):
        Options(verify_existing=-1)
