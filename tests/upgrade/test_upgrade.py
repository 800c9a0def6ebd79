"""Folders that version 0.1 made or began: what it finished stays, and equal work still gives equal bytes.

``begun/data`` was left by a run that was killed after two of three files, ``begun/golden`` by one that was not. The
same of a prediction (``prediction`` with two of its units scored, ``predicted``), of a data set (``dataset``, one of
two pairs) and of an export (``exported``, two of three shards).
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from folders import arguments, contents, copied, leftovers
from nucpro.cli import main
from nucpro.folder.paths import CLASS_NAMES, DataFolder
from nucpro.formats import read_merged, read_meta, read_vectors, write_merged, write_vectors
from nucpro.formats.sequences import SequenceType
from nucpro.state.checkpoint import Checkpoint, Fingerprint

BEGUN = Path(__file__).parent / "begun"
FINISHED = ("viral.1.1.identified_protein/output_1_ESM.pt", "viral.1.1.identified_protein/output_2_ESM.pt")
_SCORE = re.compile(r"\b[01]\.[0-9]{6}\b")
PASSED = "Validation passed: 3 files, 12 sequences, all dimensions correct"


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A copy of the folder of the killed run; as after a clone, its times and inodes are others than recorded."""
    return copied(BEGUN, tmp_path / "begun")


def extract(begun: Path) -> int:
    return main(["extract", *arguments(begun / "data", begun / "model")])


def facts(data: Path) -> dict[str, tuple[int, int]]:
    """Time and inode of the files that the killed run finished."""
    return {name: ((data / name).stat().st_mtime_ns, (data / name).stat().st_ino) for name in FINISHED}


def test_a_run_that_was_begun_goes_on_and_redoes_nothing(
    begun: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = begun / "data"
    before = facts(data)
    assert extract(begun) == 0
    output = capsys.readouterr().out
    assert PASSED in output
    assert "[3/3] Extracted" in output
    assert "[2/3]" not in output
    assert facts(data) == before
    assert leftovers(data) == []


def test_equal_work_gives_the_bytes_that_it_gave_before(begun: Path) -> None:
    assert extract(begun) == 0
    golden, made = contents(BEGUN / "golden"), contents(begun / "data")
    for name in FINISHED:
        assert made[name] == golden[name]
    merged = [name for name in golden if name.startswith("data_merge/viral")]
    assert [made[name] for name in merged] == [golden[name] for name in merged]
    # The third is computed here, perhaps on a processor that rounds otherwise.
    name = "bacteria.1.1.identified_protein/output_1_ESM.pt"
    old, new = (
        read_vectors(folder / name, SequenceType.PROTEIN) for folder in (BEGUN / "golden", begun / "data")
    )
    assert (new.ids, new.meta) == (old.ids, old.meta)
    np.testing.assert_allclose(new.vectors, old.vectors, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", sorted(contents(BEGUN / "golden")))
def test_what_was_read_is_written_as_it_was(name: str, tmp_path: Path) -> None:
    golden, copy = BEGUN / "golden" / name, tmp_path / Path(name).name
    meta = read_meta(golden).meta
    assert meta is not None
    if name.endswith("_merged.pt"):
        merged = read_merged(golden)
        write_merged(copy, merged.ids, merged.vectors, meta, merged.label)
    else:
        vectors = read_vectors(golden, SequenceType.PROTEIN)
        write_vectors(copy, vectors.ids, vectors.vectors, meta, SequenceType.PROTEIN)
    assert copy.read_bytes() == golden.read_bytes()
    assert CLASS_NAMES == ("host", "viral")


def test_what_is_recorded_is_known_where_the_folder_lies(begun: Path) -> None:
    data = begun / "data"
    journal = data / ".extraction_journal.jsonl"
    lines = [json.loads(line[9:]) for line in journal.read_bytes().splitlines() if line]
    journal.unlink()
    folder = DataFolder(data)
    with Checkpoint(folder) as checkpoint:
        # As on the machine where the run was killed: the stamps are those of the files that are there.
        for key, fact in ((key, fact) for line in lines for key, fact in line.items()):
            kind, _, name = key.partition(":")
            if "stamp" in fact:
                stamp = Fingerprint.of(data / name)
                checkpoint.add(kind, data / name, {k: v for k, v in fact.items() if k != "stamp"}, stamp)
    again = Checkpoint(folder, read_only=True)
    recorded = {key: fact for line in lines for key, fact in line.items()}
    for name in FINISHED:
        fact = recorded[f"vectors:{name}"]
        assert again.knows("vectors", data / name, recipe=fact["recipe"], input=fact["input"])
    before = facts(data)
    assert extract(begun) == 0
    assert facts(data) == before


def test_a_record_without_its_checksum_is_verified_once_and_nothing_is_recomputed(
    begun: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = begun / "data"
    assert extract(begun) == 0
    checkpoint = data / ".extraction_checkpoint.json"
    content = json.loads(checkpoint.read_text(encoding="utf-8"))
    del content["sha256"]
    checkpoint.write_text(json.dumps(content), encoding="utf-8")
    before = contents(data)
    capsys.readouterr()
    assert extract(begun) == 0
    assert "Extracted" not in capsys.readouterr().out
    assert contents(data) == before


def predicted(begun: Path, output: str) -> int:
    return main([
        *("predict", str(begun / "contigs.fa"), "--model", str(begun / "classifier"), "--device", "cpu"),
        *("--protein-model", str(begun / "model"), "-o", str(begun / output)),
    ])  # fmt: skip


def scores(path: Path) -> tuple[str, list[float]]:
    """A table without its scores, and the scores."""
    text = path.read_text(encoding="utf-8")
    return _SCORE.sub("", text), [float(score) for score in _SCORE.findall(text)]


def test_a_prediction_that_was_begun_goes_on(begun: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = begun / "prediction"
    assert predicted(begun, "prediction") == 0
    output = capsys.readouterr().out
    assert "Resuming: 2 of 5 units are done" in output
    assert [f"[{number}/5] Scored" in output for number in range(1, 6)] == [False, False, True, True, True]
    assert not (folder / "unfinished").exists()
    for name in ("sequences.tsv", "chunks.tsv", "frames.tsv"):
        made, golden = scores(folder / name), scores(begun / "predicted" / name)
        assert made[0] == golden[0]
        # The last units are scored here, perhaps on a processor that rounds otherwise.
        assert made[1] == pytest.approx(golden[1], abs=1e-5)


def test_a_prediction_that_was_finished_is_known(begun: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in (begun / "predicted").iterdir()}
    assert predicted(begun, "predicted") == 0
    assert f"{begun / 'predicted'} already holds this prediction" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_data_set_that_was_begun_goes_on(begun: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = begun / "dataset"
    # The record gets what is known of organisms by now.
    finished = sorted(data.glob("vertebrate_other.1.1.identified_*.fa"))
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in finished}
    assert len(before) == 2
    assert main(["dataset", str(data), "--length", "300", "--processes", "1"]) == 0
    assert "2 pairs of genome files at 300 bases: 1 made, 1 already up to date" in capsys.readouterr().out
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in finished} == before
    assert (data / "protozoa.1.1.identified.json").is_file()


def test_an_export_that_was_begun_goes_on(begun: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, exported = begun / "data", begun / "exported"
    copied(BEGUN / "golden", begun / "whole")
    shutil.copytree(begun / "whole", data, dirs_exist_ok=True)
    before = {path: path.stat().st_mtime_ns for path in exported.rglob("*.safetensors")}
    assert len(before) == 2
    command = ["export", str(data), "--to", "safetensors", "-o", str(exported), "--sequences-per-file", "4"]
    assert main(command) == 0
    output = capsys.readouterr().out
    assert "[3/3] Exported data_merge/bacteria.1.1_merged/output_1_merged.pt (4 rows)" in output
    assert "1 written now" in output
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not (exported / ".export_journal.jsonl").exists()
