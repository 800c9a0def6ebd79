"""SIGKILL at any point of any command: what is there is whole, and the repeated run ends byte-identical."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from scenarios import Baseline, Scenario, copied, state

from folders import arguments, contents, leftovers
from nucpro.cli import main


def require_survival(base: Baseline, data: Path, point: str) -> None:
    copied(base.scenario.start, data)
    result = base.scenario.struck(data, f"{point}:SIGKILL")
    assert result.returncode == -9, f"not killed at {point} of {base.events}: {result.stderr}"
    base.require_whole_files(data)
    base.require_recovery(data)


@pytest.mark.points(2, 20)
def test_extract(part: int, parts: int, whole: bool, extracting: Baseline, tmp_path: Path) -> None:
    """With all faults: at every single event."""
    for point in extracting.points("main", part, parts, every=whole):
        require_survival(extracting, tmp_path / point, point)


@pytest.mark.points(1, 1)
def test_writing_the_checkpoint(
    part: int, parts: int, whole: bool, extracting: Baseline, tmp_path: Path
) -> None:
    for point in extracting.points("record", part, parts, every=whole):
        require_survival(extracting, tmp_path / point, point)


@pytest.mark.points(0, 40)
def test_embed_dna(part: int, parts: int, embedding: Baseline, tmp_path: Path) -> None:
    require_survival(embedding, tmp_path / "data", embedding.point("main", part, parts))


@pytest.mark.points(1, 40)
def test_dataset(part: int, parts: int, building: Baseline, tmp_path: Path) -> None:
    require_survival(building, tmp_path / "data", building.point("main", part, parts))


@pytest.mark.points(1, 20)
def test_split(part: int, parts: int, splitting: Baseline, tmp_path: Path) -> None:
    require_survival(splitting, tmp_path / "data", splitting.point("main", part, parts))


@pytest.mark.points(1, 10)
def test_a_killed_worker_stops_the_run_in_words(
    part: int, parts: int, whole: bool, extracting: Baseline, tmp_path: Path
) -> None:
    """Several workers share the work, so in some runs none of them reaches a late event of the busiest one."""
    for point in extracting.points("worker", part, parts, every=whole):
        data = copied(extracting.scenario.start, tmp_path / point)
        result = extracting.scenario.struck(data, f"{point}:SIGKILL")
        if whole and result.returncode == 0:
            assert state(data) == extracting.final
            continue
        assert result.returncode == 1, result.stderr
        assert "a worker process was killed" in result.stderr
        assert "run the same command again" in result.stderr
        extracting.require_whole_files(data)
        extracting.require_recovery(data)


@pytest.mark.points(0, 12)
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
        point = f"main:{extracting.events['main'] // share}:SIGKILL"
        assert extracting.scenario.struck(data, point).returncode == -9
    extracting.require_recovery(data)


def killed_late(base: Baseline, data: Path) -> None:
    assert base.scenario.struck(data, f"main:{base.events['main'] * 2 // 3}:SIGKILL").returncode == -9


@pytest.mark.points(0, 1)
def test_a_killed_run_and_another_option(
    part: int, parts: int, extracting: Baseline, data: Path, model: Path
) -> None:
    killed_late(extracting, data)
    other, changes = copied(data, data.with_name("other")), ("--token-dropout", "off")
    assert main(["extract", *arguments(data, model, *changes)]) == 3
    assert main(["extract", *arguments(data, model, *changes, "--replace")]) == 0
    extracting.require_recovery(other)
    assert main(["extract", *arguments(other, model, *changes, "--replace")]) == 0
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
    assert main(["extract", *arguments(data, other)]) == 3
    assert main(["extract", *arguments(data, other, "--replace")]) == 0
    fresh = copied(pristine, tmp_path / "fresh")
    assert main(["extract", *arguments(fresh, other)]) == 0
    assert contents(data) == contents(fresh)
    assert leftovers(data) == []


@pytest.mark.points(0, 1)
def test_workers_never_outlive_a_killed_run(part: int, parts: int, extracting: Baseline, data: Path) -> None:
    late = f"main:{extracting.events['main'] - 5}:SIGKILL"
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
