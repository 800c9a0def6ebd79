"""Faults of the original program, each with a test that fails where the fault exists."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import stand_ins
from folders import Frame, add_dna, add_source, arguments, copied, pairs_of
from nucpro.cli import main
from nucpro.errors import MergeError
from nucpro.extraction.merging import merge
from nucpro.folder.paths import DataFolder
from nucpro.formats import write_vectors
from nucpro.formats.fasta import read
from nucpro.formats.sequences import SequenceType


def test_rows_shifted_after_a_missing_id(tmp_path: Path) -> None:
    """The original kept all ids but only the matched rows: every later row carried the wrong id."""
    ids = ["a", "b", "c", "d"]
    dna, protein, merged = tmp_path / "d.pt", tmp_path / "p.pt", tmp_path / "m.pt"
    stand_ins.write_dna_stand_in(dna, ids)
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    write_vectors(protein, ["a", "c", "d"], rows[[0, 2, 3]], None, SequenceType.PROTEIN)
    with pytest.raises(MergeError, match=r"1 id \(b\) only in the DNA file, no ids only in the protein file"):
        merge(dna, protein, merged, "viral")
    assert not merged.exists()
    write_vectors(protein, ids[::-1], rows[::-1].copy(), None, SequenceType.PROTEIN)
    merge(dna, protein, merged, "viral")
    content = torch.load(merged, weights_only=True)
    assert content["ids"] == ids
    assert np.array_equal(content["data"][:, 768:].numpy(), rows)


def test_selection_depending_on_directory_order(
    tmp_path: Path, frames: dict[str, list[Frame]], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The original drew hosts over the order in which the file system listed them."""
    data = tmp_path / "data"
    data.mkdir()
    add_source(data, "viral.1.1", frames["viral.1.1"][:8])
    add_source(data, "bacteria.1.1", frames["bacteria.1.1"][:24])
    add_source(data, "bacteria.2.1", frames["bacteria.1.1"][:24])

    chosen = []
    walk, scandir = os.walk, os.scandir
    for seed in range(3):
        order = random.Random(seed)

        def shuffled_walk(*arguments, order=order, **options):
            for folder, subfolders, files in walk(*arguments, **options):
                order.shuffle(subfolders)
                order.shuffle(files)
                yield folder, subfolders, files

        monkeypatch.setattr(os, "walk", shuffled_walk)
        from nucpro.extraction.survey import read_only_survey
        from nucpro.options import Options

        with read_only_survey(Options(data, sequences_per_file=4)) as survey:
            chosen.append([pair.key for pair in survey.discover().pairs])
    assert chosen[0] == chosen[1] == chosen[2]
    assert os.scandir is scandir


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_half_written_file_taken_for_done(data: Path, model: Path, share: float) -> None:
    """The original took every file that existed for finished."""
    assert main(["extract", *arguments(data, model)]) == 0
    pair = pairs_of(data)[0]
    expected = pair.protein_vectors.read_bytes()
    pair.protein_vectors.write_bytes(expected[: int(len(expected) * share)])
    assert main(["extract", *arguments(data, model)]) == 0
    assert pair.protein_vectors.read_bytes() == expected


def test_stale_merged_file_suppressing_extraction(
    data: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The original skipped a file whose merged result existed, however old that was."""
    for pair in pairs_of(data):
        if pair.dna_vectors.exists():
            stand_ins.write_old_merged(pair.merged, read(pair.nucleotide_fasta).ids, pair.label, 3328)
    assert main(["extract", *arguments(data, model)]) == 0
    assert "Extracted 6 files" in capsys.readouterr().out
    for pair in pairs_of(data):
        if pair.dna_vectors.exists():
            assert torch.load(pair.merged, weights_only=True)["data"].shape[1] == 768 + 16


@pytest.mark.parametrize("name", ["my.family", "a.fa", "x.fa.d/ESM_runs", "DNABERT_S nucleotide"])
def test_fa_inside_a_folder_name(pristine: Path, model: Path, tmp_path: Path, name: str) -> None:
    """The original cut paths at the first ``.fa`` and replaced words in whole paths."""
    data = copied(pristine, tmp_path / name)
    assert main(["extract", *arguments(data, model)]) == 0
    merged = data / "data_merge" / "viral.1.1_merged" / "output_1_merged.pt"
    assert merged.is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == [name.split("/", maxsplit=1)[0]]


def test_old_2560_wide_file_taken_for_done(
    data: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After the move to a narrower model, files of the wide one were left as they were."""
    wide = next(pair for pair in pairs_of(data) if pair.number == 2 and pair.label)
    assert torch.load(wide.protein_vectors, weights_only=True)["data"][0].shape == (2560,)
    assert main(["extract", *arguments(data, model)]) == 0
    assert "output_2_ESM.pt is 2560 wide, not 16: recomputed" in capsys.readouterr().out
    assert torch.load(wide.protein_vectors, weights_only=True)["data"][0].shape == (16,)
    assert torch.load(wide.merged, weights_only=True)["data"].shape == (4, 784)


def test_a_wide_file_outside_the_selection_fails_validation(
    data: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A training script reads everything in the output folders."""
    source = DataFolder(data).walk_sources()[0]
    stand_ins.write_old_protein(source.protein_folder / "output_77_ESM.pt", ["a"])
    assert main(["extract", *arguments(data, model)]) == 1
    said = capsys.readouterr().err
    assert "output_77_ESM.pt: outside the selection and is 2560 wide, not 16" in said
    (source.protein_folder / "output_77_ESM.pt").unlink()
    assert main(["extract", *arguments(data, model)]) == 0


def test_dna_for_an_unsplit_protein_file_is_kept(data: Path, model: Path) -> None:
    add_dna(DataFolder(data).walk_sources()[0], (1,))
    shutil.rmtree(data / "viral.1.1.identified_protein")
    assert main(["extract", *arguments(data, model)]) == 0
