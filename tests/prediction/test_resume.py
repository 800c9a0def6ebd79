"""A prediction that is stopped at any moment and started again ends as one that never was."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from predictions import Contig, arguments, contents, write_contigs

from nucpro.cli import main
from nucpro.errors import ExtractionError
from nucpro.prediction import verdict as scoring
from nucpro.prediction.contigs import Unit
from nucpro.prediction.work import read_record

STRIKE = Path(__file__).resolve().parents[1] / "faults" / "strike.py"
PER_UNIT = ("--chunks-per-unit", "5")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A few points of SIGKILL, or many with ``--faults=all``."""
    if "part" in metafunc.fixturenames:
        parts = 40 if metafunc.config.getoption("--faults") == "all" else 2
        metafunc.parametrize(("part", "parts"), [(part, parts) for part in range(parts)])


def struck(folder: Path, point: str, command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(STRIKE), str(folder), point, *command],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory,
    contigs: list[Contig],
    classifier: Path,
    model: Path,
    dna_model: Path,
) -> tuple[Path, int]:
    """A result, and the number of events in its folder while it was made."""
    path = write_contigs(tmp_path_factory.mktemp("undisturbed") / "contigs.fasta", contigs)
    folder = path.with_name("contigs_prediction")
    command = arguments(path, classifier, (model, dna_model), *PER_UNIT, "--original-names")
    run = struck(folder, "all:0:none", command)
    assert run.returncode == 0, run.stderr
    (events,) = folder.with_name(f"{folder.name}.events").glob("main-*")
    return folder, int(events.read_text())


def test_sigkill_at_any_point(
    part: int,
    parts: int,
    undisturbed: tuple[Path, int],
    fasta: Path,
    classifier: Path,
    model: Path,
    dna_model: Path,
) -> None:
    expected, events = undisturbed
    folder = fasta.with_name("contigs_prediction")
    command = arguments(fasta, classifier, (model, dna_model), *PER_UNIT, "--original-names")
    # Half a part from either end, so that few points still lie in the middle of the work.
    point = 1 + (2 * part + 1) * (events - 1) // (2 * parts)
    run = struck(folder, f"main:{point}:SIGKILL", command)
    assert run.returncode == -9, run.stderr
    final = contents(expected)
    for name, content in contents(folder).items():
        if name == "prediction.json":  # written again when further outputs are there
            read_record(folder / name)
        elif name in final:
            assert content == final[name], f"{name} is not whole"
    assert main(command) == 0
    assert contents(folder) == final


@pytest.fixture
def failing_unit(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Makes the unit of this number fail; the list is empty when none shall."""
    numbers: list[int] = []
    frames_of = scoring.frames_of

    def failing(unit: Unit) -> scoring.UnitFrames:
        if unit.number in numbers:
            raise ExtractionError(f"unit {unit.number}")
        return frames_of(unit)

    monkeypatch.setattr(scoring, "frames_of", failing)
    return numbers


def test_units_that_are_done_are_not_scored_again(
    failing_unit: list[int],
    undisturbed: tuple[Path, int],
    fasta: Path,
    classifier: Path,
    model: Path,
    dna_model: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = arguments(fasta, classifier, (model, dna_model), "--original-names")
    folder = fasta.with_name("contigs_prediction")
    failing_unit.append(6)
    assert main([*command, *PER_UNIT]) == 1
    done = {int(path.stem.removeprefix("unit_")) for path in (folder / "unfinished").glob("unit_*.json")}
    assert done >= {1, 2, 3, 4, 5} - {6}
    assert not (folder / "sequences.tsv").exists()
    failing_unit[:] = sorted(done)
    capsys.readouterr()
    # The size of units is the one that the run was started with, though it is not given.
    assert main(command) == 0
    assert f"Resuming: {len(done)} of " in capsys.readouterr().out
    assert contents(folder) == contents(undisturbed[0])


class TestUnfinishedWork:
    """What a folder with unfinished work accepts and refuses."""

    @pytest.fixture
    def unfinished(
        self, failing_unit: list[int], fasta: Path, classifier: Path, model: Path, dna_model: Path
    ) -> list[str]:
        command = arguments(fasta, classifier, (model, dna_model), "-o", str(fasta.with_name("out")))
        failing_unit.append(4)
        assert main([*command, *PER_UNIT]) == 1
        failing_unit.clear()
        return command

    def test_another_input(
        self, unfinished: list[str], fasta: Path, contigs: list[Contig], capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_contigs(fasta, contigs[:2])
        assert main(unfinished) == 3
        shown = capsys.readouterr().err
        assert f"{fasta.with_name('out')}: holds an unfinished prediction that is of another input" in shown
        assert main([*unfinished, "--replace"]) == 0
        record = json.loads((fasta.with_name("out") / "prediction.json").read_bytes())
        assert record["counts"]["records"] == 2

    def test_another_length_or_size_of_units(
        self, unfinished: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([*unfinished, "--length", "500"]) == 3
        assert (
            "holds an unfinished prediction that has chunks of 300 bases, not 500" in capsys.readouterr().err
        )
        assert main([*unfinished, "--chunks-per-unit", "6"]) == 3
        assert "that was started with units of 5 chunks, not 6" in capsys.readouterr().err

    def test_a_damaged_unit(
        self, unfinished: list[str], fasta: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        damaged = fasta.with_name("out") / "unfinished" / "unit_1.json"
        damaged.write_text(damaged.read_text()[:100])
        assert main(unfinished) == 0
        assert f"{damaged}: the unit is damaged (it is not JSON" in capsys.readouterr().err


def test_an_input_that_changes_meanwhile_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    fasta: Path,
    classifier: Path,
    model: Path,
    dna_model: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    frames_of = scoring.frames_of

    def touching(unit: Unit) -> scoring.UnitFrames:
        fasta.write_text(">another\nACGTACGT\n")
        return frames_of(unit)

    monkeypatch.setattr(scoring, "frames_of", touching)
    assert main(arguments(fasta, classifier, (model, dna_model), *PER_UNIT)) == 1
    assert (
        f"{fasta}: was changed while it was read; run again when no program writes it"
        in capsys.readouterr().err
    )
    assert list((fasta.with_name("contigs_prediction") / "unfinished").glob("unit_*")) == []


def test_one_run_at_a_time(
    fasta: Path, classifier: Path, model: Path, dna_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from nucpro.state.lock import hold

    folder = fasta.with_name("contigs_prediction")
    folder.mkdir()
    with hold(folder / ".prediction.lock"):
        assert main(arguments(fasta, classifier, (model, dna_model))) == 3
    assert f"{folder}: in use by process" in capsys.readouterr().err
