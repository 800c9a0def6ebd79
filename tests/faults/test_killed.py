"""SIGKILL at any point of any command: what is there is whole, and the repeated run ends byte-identical."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from scenarios import Baseline, Scenario, baseline, copied, state

from folders import arguments, contents, leftovers
from nucpro.cli import main


@pytest.fixture(scope="module")
def extracting(extract: Scenario, tmp_path_factory: pytest.TempPathFactory) -> Baseline:
    return baseline(extract, tmp_path_factory.mktemp("extract"))


@pytest.fixture(scope="module")
def recording(extract: Scenario, tmp_path_factory: pytest.TempPathFactory) -> Baseline:
    """Only what happens to the checkpoint, its journal and the selection record."""
    return baseline(extract, tmp_path_factory.mktemp("record"), prefix="/.extraction_")


@pytest.fixture(scope="module")
def in_workers(extract: Scenario, tmp_path_factory: pytest.TempPathFactory) -> Baseline:
    return baseline(extract, tmp_path_factory.mktemp("workers"), "worker")


@pytest.fixture(scope="module")
def embedding(embed_dna: Scenario, tmp_path_factory: pytest.TempPathFactory) -> Baseline:
    return baseline(embed_dna, tmp_path_factory.mktemp("embed_dna"))


@pytest.fixture(scope="module")
def building(dataset: Scenario, tmp_path_factory: pytest.TempPathFactory) -> Baseline:
    return baseline(dataset, tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def splitting(split: Scenario, tmp_path_factory: pytest.TempPathFactory) -> Baseline:
    return baseline(split, tmp_path_factory.mktemp("split"))


def require_survival(base: Baseline, data: Path, point: str, prefix: str | None = None) -> None:
    copied(base.scenario.start, data)
    result = base.scenario.struck(data, point, prefix=prefix)
    assert result.returncode == -9, f"not killed at {point} of {base.events}: {result.stderr}"
    base.require_whole_files(data)
    base.require_recovery(data)


@pytest.mark.points(3, 90)
def test_extract(part: int, parts: int, extracting: Baseline, tmp_path: Path) -> None:
    point = extracting.point(part, parts)
    require_survival(extracting, tmp_path / "data", f"main:{point}:SIGKILL")


@pytest.mark.points(1, 20)
def test_writing_the_checkpoint(part: int, parts: int, recording: Baseline, tmp_path: Path) -> None:
    point, data = recording.point(part, parts), tmp_path / "data"
    require_survival(recording, data, f"main:{point}:SIGKILL", prefix=f"{data}/.extraction_")


@pytest.mark.points(1, 40)
def test_embed_dna(part: int, parts: int, embedding: Baseline, tmp_path: Path) -> None:
    point = embedding.point(part, parts)
    require_survival(embedding, tmp_path / "data", f"main:{point}:SIGKILL")


@pytest.mark.points(1, 40)
def test_dataset(part: int, parts: int, building: Baseline, tmp_path: Path) -> None:
    point = building.point(part, parts)
    require_survival(building, tmp_path / "data", f"main:{point}:SIGKILL")


@pytest.mark.points(1, 20)
def test_split(part: int, parts: int, splitting: Baseline, tmp_path: Path) -> None:
    point = splitting.point(part, parts)
    require_survival(splitting, tmp_path / "data", f"main:{point}:SIGKILL")


@pytest.mark.points(1, 30)
def test_a_killed_worker_stops_the_run_in_words(
    part: int, parts: int, in_workers: Baseline, tmp_path: Path
) -> None:
    """One of several workers has the most events; others end earlier, so late points may not be reached."""
    data = copied(in_workers.scenario.start, tmp_path / "data")
    point = 1 + part * (in_workers.events // 2 - 1) // parts
    result = in_workers.scenario.struck(data, f"worker:{point}:SIGKILL")
    assert result.returncode == 1, result.stderr
    assert "a worker process was killed" in result.stderr
    assert "run the same command again" in result.stderr
    in_workers.require_whole_files(data)
    in_workers.require_recovery(data)


@pytest.mark.points(1, 12)
def test_validate_changes_nothing(part: int, parts: int, extracting: Baseline, tmp_path: Path) -> None:
    data = copied(extracting.scenario.start, tmp_path / "data")
    assert extracting.scenario.repeat(data) == 0
    before = everything(data)
    validate = Scenario(data, lambda folder: ["validate", str(folder), "--sequences-per-file", "4"])
    point = 1 + part * 20 // parts
    assert validate.struck(data, f"main:{point}:SIGKILL").returncode == -9
    assert everything(data) == before
    assert main(validate.command(data)) == 0
    assert everything(data) == before


def everything(data: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(data.rglob("*")) if path.is_file()}


@pytest.mark.points(0, 1)
def test_two_killed_runs_in_a_row(part: int, parts: int, extracting: Baseline, data: Path) -> None:
    for share in (2, 4):
        point = f"main:{extracting.events // share}:SIGKILL"
        assert extracting.scenario.struck(data, point).returncode == -9
    extracting.require_recovery(data)


def killed_late(base: Baseline, data: Path) -> None:
    assert base.scenario.struck(data, f"main:{base.events * 2 // 3}:SIGKILL").returncode == -9


@pytest.mark.points(0, 1)
def test_a_killed_run_and_another_option(
    part: int, parts: int, extracting: Baseline, data: Path, model: Path
) -> None:
    killed_late(extracting, data)
    other = copied(data, data.with_name("other"))
    assert main(["extract", *arguments(data, model, "--token-dropout", "off")]) == 0
    extracting.require_recovery(other)
    assert main(["extract", *arguments(other, model, "--token-dropout", "off")]) == 0
    assert contents(other) == contents(data)


@pytest.mark.points(0, 1)
def test_a_killed_run_and_a_changed_fasta(part: int, parts: int, extracting: Baseline, data: Path) -> None:
    killed_late(extracting, data)
    changed = data / "viral.1.1.identified_protein" / "output_1.fa"
    changed.write_text(changed.read_text().replace("A", "G"))
    assert extracting.scenario.repeat(data) == 0
    after = state(data)
    assert {name for name in after if after[name] != extracting.final[name]} == {
        "viral.1.1.identified_protein/output_1.fa",
        "viral.1.1.identified_protein/output_1_ESM.pt",
        "data_merge/viral.1.1_merged/output_1_merged.pt",
    }


@pytest.mark.points(0, 1)
def test_a_killed_run_and_another_model(
    part: int, parts: int, extracting: Baseline, pristine: Path, data: Path, tmp_path: Path
) -> None:
    import stand_ins

    other = stand_ins.make_checkpoint(tmp_path / "other", width=16, layers=2, heads=2)
    killed_late(extracting, data)
    assert main(["extract", *arguments(data, other)]) == 0
    fresh = copied(pristine, tmp_path / "fresh")
    assert main(["extract", *arguments(fresh, other)]) == 0
    assert contents(data) == contents(fresh)
    assert leftovers(data) == []


def test_workers_never_outlive_a_killed_run(extracting: Baseline, data: Path) -> None:
    late = f"main:{extracting.events - 5}:SIGKILL"
    assert extracting.scenario.struck(data, late).returncode == -9
    # Workers end when the pipe to their parent closes; each look at all processes gives them time for it.
    looks = (list(processes_started_for(data)) for _ in range(2000))
    assert next((found for found in looks if not found), None) == []


def processes_started_for(data: Path) -> Iterator[str]:
    mark = f"STARTED_FOR={data}\0".encode()
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                environment = (process / "environ").read_bytes()
                if mark in environment and b"fork" in (process / "cmdline").read_bytes():
                    yield process.name
            except OSError:  # it ended meanwhile, or belongs to somebody else
                continue
