"""Finished work of each released version, in every format: it is read, and taken for what it is by the same command."""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from finish import (
    BEGUN,
    EXPORTS,
    FASTA,
    FORMS,
    GENOMES,
    HERE,
    TAXONOMY,
    hub_of,
    published,
    released,
    write_proteins,
)
from safetensors import safe_open

from folders import contents, copied
from hub_server import MODEL
from nucpro.classifier.model import load, read_state
from nucpro.classifier.training import _is_comparison
from nucpro.cli import main
from nucpro.folder import selection
from nucpro.folder.paths import DataFolder
from nucpro.formats.atomic import replacing_problems
from nucpro.formats.sequences import SequenceType
from nucpro.genomes.download import read_choice
from nucpro.state.checkpoint import Checkpoint
from nucpro.vectors.outputs import made_by, read_content

VERSIONS = sorted(path.name for path in (HERE / "finished").iterdir())
DEVICE = ("--device", "cpu")


@pytest.fixture(params=VERSIONS)
def finished(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of what a version finished, beside what it was made from."""
    copied(BEGUN, tmp_path / "begun")
    return copied(HERE / "finished" / request.param, tmp_path / "finished")


@pytest.fixture
def begun(finished: Path) -> Path:
    return finished.parent / "begun"


def test_the_records_of_a_data_folder_are_read(finished: Path) -> None:
    data = DataFolder(finished / "data")
    with Checkpoint(data) as checkpoint:
        assert len(checkpoint.completed) == 3
        assert all(name.endswith("_ESM.pt") for name in checkpoint.completed)
        assert checkpoint.sequences_per_file == 4
        recipe = checkpoint.recipe_of(SequenceType.PROTEIN)
        assert recipe is not None
        assert (recipe.made_by["id"], recipe.width) == ("model", 16)
    recorded = selection.load(data)
    assert recorded is not None
    assert recorded.sequences_per_file == 4


@pytest.mark.parametrize("form", FORMS)
def test_vectors_are_read_and_kept(
    form: str, finished: Path, begun: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = finished / "embedded" / f"vectors{form}"
    content, other = read_content(path), read_content(finished / "embedded" / "vectors.pt")
    assert content.ids == other.ids
    np.testing.assert_array_equal(content.vectors, other.vectors)
    assert made_by(path) == other.meta
    before = path.stat().st_mtime_ns
    assert (
        main(["embed", str(begun / FASTA), "-o", str(path), "--protein-model", str(begun / "model"), *DEVICE])
        == 0
    )
    assert f"{path} already holds these vectors" in capsys.readouterr().out
    assert path.stat().st_mtime_ns == before


def test_vectors_of_residues_are_read_and_kept(
    finished: Path, begun: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = finished / "residues"
    index = json.loads((folder / "index.json").read_text())
    with safe_open(folder / index["shards"][0]["file"], "numpy") as shard:
        rows = shard.get_tensor("vector")
    assert rows.shape == (index["shards"][0]["residues"], index["width"])
    assert sum(length for _, _, length in index["records"].values()) == len(rows)
    before = contents(folder)
    model = ("--protein-model", str(begun / "model"))
    assert main(["embed", str(begun / FASTA), "--per-residue", "-o", str(folder), *model, *DEVICE]) == 0
    assert "already" in capsys.readouterr().out
    assert contents(folder) == before


@pytest.mark.parametrize("form", EXPORTS)
def test_an_export_is_known(
    form: str, finished: Path, begun: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, folder = begun / "data", finished / "exported" / form
    shutil.copytree(BEGUN / "golden", data, dirs_exist_ok=True)
    before = contents(folder)
    assert main(["export", str(data), "--to", form, "-o", str(folder), "--sequences-per-file", "4"]) == 0
    assert "; 0 written now" in capsys.readouterr().out
    assert contents(folder) == before


def test_a_download_is_known_and_nothing_is_fetched_again(
    finished: Path, begun: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = finished / "downloaded"
    record = read_choice(folder)
    assert record is not None
    assert [file.name for file in record.files] == list(GENOMES)
    assert record.verified.keys() == GENOMES.keys()
    with released(begun) as server:
        for name in GENOMES:
            shutil.copy(begun / "release" / name, folder)
        assert main(["download", str(folder), "--server", server.address]) == 0
        # The record answers for the choice; the files, of other times and inodes, are compared with its sums.
        assert server.requests == []
        missing = next(iter(GENOMES))
        (folder / missing).unlink()
        assert main(["download", str(folder), "--server", server.address]) == 0
        assert [name for name in GENOMES if server.gets(name)] == [missing]
    assert (folder / missing).read_bytes() == (begun / "release" / missing).read_bytes()


def test_a_training_is_known(finished: Path) -> None:
    classifier, card = load(finished / "trained")
    assert card.sides == ("protein",)
    assert classifier.hidden.weight.shape == (card.hidden_width, card.input_width)
    state = read_state(finished / "trained")
    assert state is not None
    assert len(state.history) == 2
    assert state.weights.keys() == state.best.keys() != set()


def test_an_unfinished_output_of_embed_goes_on(
    finished: Path, begun: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = finished / "unfinished"
    fasta = write_proteins(begun / "proteins")
    model = ("--protein-model", str(begun / "model"), *DEVICE)
    assert main(["embed", str(fasta), "-o", str(folder / "vectors.pt"), *model]) == 0
    assert "Resuming: 1 of 3 parts are done" in capsys.readouterr().out
    assert [path.name for path in folder.iterdir()] == ["vectors.pt"]
    assert main(["embed", str(fasta), "-o", str(begun / "whole.pt"), *model]) == 0
    found, whole = read_content(folder / "vectors.pt"), read_content(begun / "whole.pt")
    assert (found.ids, found.meta) == (whole.ids, whole.meta)
    # Another number of threads made the first part.
    np.testing.assert_allclose(found.vectors, whole.vectors, atol=1e-6)


def test_a_comparison_is_replaced_as_our_own(finished: Path) -> None:
    path = finished / "compared" / "comparison.json"
    assert replacing_problems([path], _is_comparison, replace=False) == []


def test_a_taxonomy_is_known_and_replaced_by_a_newer_one(finished: Path, begun: Path) -> None:
    folder = finished / "taxonomy"
    for content in (TAXONOMY, b"a newer taxonomy"):
        with published(begun, content) as address:
            assert main(["download", str(folder), "--taxonomy", "--taxonomy-server", address]) == 0
        assert (folder / "taxdump.tar.gz").read_bytes() == content


def test_a_fetched_model_is_known_and_only_what_changed_is_fetched(finished: Path, begun: Path) -> None:
    folder = copied(begun / "model", finished / "with_model")
    shutil.copy(finished / "fetched" / "nucpro_source.json", folder)
    with hub_of(begun) as hub:
        command = ["fetch-models", str(folder), "--model", MODEL, "--endpoint", hub.address]
        (files,) = hub.files.values()
        for config in (files["config.json"], files["config.json"] + b"\n"):
            hub.served.clear()
            changed = [] if config == files["config.json"] else ["config.json"]
            files["config.json"] = config
            assert main(command) == 0
            assert hub.served == changed
            assert (folder / "config.json").read_bytes() == config


_DATA = "begun/data/.extraction"
KEPT = {
    "classifier/card.py: folder / CARD_NAME": "finished/*/trained/model.json",
    "classifier/card.py: folder / RECORD_NAME": "finished/*/trained/training.json",
    "classifier/training.py: top / _COMPARISON": "finished/*/compared/comparison.json",
    "export/manifest.py: folder.journal": "begun/exported/.export_journal.jsonl",
    "folder/selection.py: folder.selection": "finished/*/data/.extraction_selection.json",
    "genomes/download.py: data_dir / _NAME": "finished/*/downloaded/.download.json",
    "genomes/download.py: data_dir / _TAXONOMY_NAME": "finished/*/taxonomy/.taxonomy.json",
    "genomes/reports.py: path": "begun/dataset/*.identified.json",
    "models/weights.py: folder / _SOURCE_RECORD": "finished/*/fetched/nucpro_source.json",
    "prediction/running.py: self._folder.record": "begun/predicted/prediction.json",
    "prediction/work.py: path": "begun/predicted/prediction.json",
    "prediction/work.py: self._folder.unit(unit.number)": "begun/prediction/unfinished/unit_1.json",
    "prediction/work.py: self._folder.work_record": "begun/prediction/unfinished/run.json",
    "state/checkpoint.py: folder.journal": f"{_DATA}_journal.jsonl",
    "state/checkpoint.py: self._folder.checkpoint": "finished/*/data/.extraction_checkpoint.json",
    "state/history.py: folder.history": f"{_DATA}_history.jsonl",
    "vectors/work.py: self._journal_path": "finished/*/unfinished/vectors.pt.unfinished/parts.jsonl",
}
"""Records, by the place where they are written, and where one of an earlier version is kept."""


def test_a_record_of_each_kind_is_kept() -> None:
    source = HERE.parents[1] / "src" / "nucpro"
    written = set()
    for path in source.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in {
                "write_record", "write_document", "Journal",
            }:  # fmt: skip
                written.add(f"{path.relative_to(source).as_posix()}: {ast.unparse(node.args[0])}")
    assert written == KEPT.keys()
    assert [pattern for pattern in KEPT.values() if not any(HERE.glob(pattern))] == []
