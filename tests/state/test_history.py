"""The record of runs: what it says, what a killed run leaves, and that nothing depends on it."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import pytest

from folders import arguments, contents, copied
from nucpro.cli import main
from nucpro.errors import ExtractionError
from nucpro.extraction.run import Run
from nucpro.folder.paths import DataFolder
from nucpro.options import Options
from nucpro.state import history
from nucpro.state.checkpoint import Journal
from nucpro.state.history import History, Recorder

READ_BOTH = """
import sys
from pathlib import Path
from nucpro.folder.paths import DataFolder
from nucpro.state import history
from nucpro.state.checkpoint import Checkpoint
folder = DataFolder(Path(sys.argv[1]))
print(len(history.read(folder)), Checkpoint(folder, read_only=True).completed)
"""


def recorded(folder: Path, *keys: str) -> Recorder:
    """A run that finished some files and has not ended."""
    run = Recorder(DataFolder(folder), {"side": "protein"})
    run.open(files=9, done=1, letters=300)
    for key in keys:
        run.file(key, 2.5, 10, 100, 120, 1.5)
    return run


def test_a_run_says_what_it_did(data: Path, model: Path) -> None:
    assert main(["extract", *arguments(data, model)]) == 0
    assert main(["extract", *arguments(data, model)]) == 0
    first, second = history.read(DataFolder(data))
    assert first.facts["options"]["device"] == "cpu"
    assert first.facts["software"]["torch"]
    assert first.planned["files"] == 6
    assert first.planned["done"] == 0
    assert first.planned["stale"] == 1
    assert len(first.files) == 6
    assert first.planned["letters"] == sum(file.letters for file in first.files)
    assert all(file.records == 4 and file.tokens >= 0 for file in first.files)
    # Every residue is one token, and a record has two more; the last files' were counted with the first ones'.
    assert sum(file.tokens for file in first.files) == first.planned["letters"] + 2 * 24
    names = [name for name, _ in first.stages]
    assert names == [
        "discover",
        "check before the start",
        "prepare",
        "load the model",
        "extract",
        "finish merging",
        "audit",
        "validate",
    ]
    assert first.validated == {"files": 6, "viral": 12, "host": 12}
    assert (first.how, second.how) == (history.DONE, history.DONE)
    assert second.files == []
    assert second.planned == {"files": 6, "done": 6, "letters": 0, "stale": 0}
    assert first.started <= first.files[0].time <= (first.ended or 0) <= second.started


def test_a_refused_run_and_a_look_write_nothing(data: Path, model: Path) -> None:
    assert main(["extract", *arguments(data, model, "--dry-run")]) == 0
    assert main(["status", str(data), "--sequences-per-file", "4"]) == 0
    next(data.rglob("viral*/*_DNABERT_S.pt")).unlink()
    assert main(["extract", *arguments(data, model)]) == 3
    assert not DataFolder(data).history.exists()


def test_a_failed_run_says_why(data: Path, model: Path) -> None:
    options = Options(data, protein_model=str(model), device="cpu", sequences_per_file=4)

    def fails(_: object) -> None:
        raise ExtractionError("record x: broken")

    with pytest.raises(ExtractionError, match="record x: broken"):
        extract(options, fails)
    (run,) = history.read(DataFolder(data))
    assert (run.how, run.message) == (history.FAILED, "record x: broken")

    def is_interrupted(_: object) -> NoReturn:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(options, is_interrupted)
    assert history.read(DataFolder(data))[-1].how == history.INTERRUPTED


def test_the_time_of_a_file_is_its_own_in_the_log_and_in_the_history(
    data: Path, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where files are finished together, or in another order than they are told."""
    all_at_work = threading.Barrier(3)

    def overlap(fasta: Path) -> float:
        all_at_work.wait()
        return 100.0 + int(fasta.stem.removeprefix("output_"))

    options = Options(data, protein_model=str(model), device="cpu", sequences_per_file=4, report=False)
    with caplog.at_level(logging.INFO, "nucpro"):
        extract(options, overlap)
    (run,) = history.read(DataFolder(data))
    assert sorted(file.seconds for file in run.files) == [101, 101, 101, 102, 102, 103]
    shown = [line for line in caplog.messages if "] Extracted " in line]
    assert sorted(line.split(", ")[-1] for line in shown) == [
        "101.0s)",
        "101.0s)",
        "101.0s)",
        "102.0s)",
        "102.0s)",
        "103.0s)",
    ]
    # The times between files add up to that of the whole.
    assert sum(file.elapsed for file in run.files) < 100


def test_lines_of_earlier_versions_are_read(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    recorded(tmp_path, "a").close(history.DONE)
    plain = re.sub("^[0-9a-f]{8} ", "", folder.history.read_text(), flags=re.MULTILINE)
    folder.history.write_text(plain.replace('"elapsed":1.5,', ""))
    ((file,),) = [run.files for run in history.read(folder)]
    assert (file.seconds, file.elapsed) == (2.5, 2.5)


@dataclass
class Unit:
    """What is loaded in place of a model: calls a function for each file, which may give the seconds that it took."""

    unit: Callable[[Path], float | None]
    totals: history.Totals = field(default_factory=history.Totals)
    seconds: dict[Path, float] = field(default_factory=dict)

    def extract(self, fasta: Path, output: Path) -> None:
        self.seconds[output] = self.unit(fasta) or 0.0

    def took(self, output: Path) -> float:
        return self.seconds[output]

    def stop_writing(self) -> None:
        """Nothing: files are written by nobody."""


def extract(options: Options, unit: Callable[[Path], float | None]) -> None:
    with Run(options) as run:
        run.discover()
        run.check()
        run.prepare()
        run.runner.engine.load(lambda _: Unit(unit))
        run.make(merging=False)


def test_a_torn_line_is_left_out_and_swallows_nothing(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    recorded(tmp_path, "a", "b").close("failed", "x")
    whole = folder.history.read_bytes()
    folder.history.write_bytes(whole[: whole.rindex(b'"event":"ended"') + 5])
    (killed,) = history.read(folder)
    assert [file.file for file in killed.files] == ["a", "b"]
    assert (killed.how, killed.ended) == (None, None)
    recorded(tmp_path, "c").close(history.DONE)
    _, second = history.read(folder)
    assert [file.file for file in second.files] == ["c"]
    assert second.how == history.DONE


@pytest.mark.parametrize(
    "line",
    [
        "",
        "nonsense",
        "[1]",
        '{"event":"file","time":"2026-01-01T00:00:00+00:00"}',
        '{"time":3}',
        "{" * 9,
        '{"event":"started","time":"9999-12-31T23:59:59-23:00"}',
        '{"event":"started","time":"0001-01-01T00:00:00+23:00"}',
    ],
)
def test_damaged_lines_are_left_out(tmp_path: Path, line: str) -> None:
    folder = DataFolder(tmp_path)
    folder.history.write_text(f"{line}\n", encoding="utf-8")
    recorded(tmp_path, "a").close(history.DONE)
    (run,) = history.read(folder)
    assert [file.file for file in run.files] == ["a"]


def test_half_a_gigabyte_without_a_line_end_is_left_out_within_little_memory(tmp_path: Path) -> None:
    """In a process of its own, with an address space that does not hold it."""
    folder = DataFolder(tmp_path)
    for path in (folder.history, folder.journal):
        with path.open("wb") as file:
            file.truncate(1 << 29)
        journal = Journal(path)
        journal.append([{"event": "started", "time": "2026-01-01T00:00:00+00:00", "completed": "last"}])
        journal.close()
    command = ["prlimit", "--as=800000000", sys.executable, "-c", READ_BOTH, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("1 ['last']\n", "")


def test_only_what_is_new_is_read_again(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    seen = History(folder)
    assert seen.refresh() == []
    run = recorded(tmp_path, "a")
    assert [file.file for file in seen.refresh()[0].files] == ["a"]
    run.file("b", 1, 1, 1, 1, 1)
    assert [file.file for file in seen.refresh()[0].files] == ["a", "b"]
    run.close(history.DONE)
    folder.history.unlink()
    recorded(tmp_path).close(history.DONE)
    assert seen.refresh()[0].files == []


def test_a_stage_within_a_stage_is_part_of_it(tmp_path: Path) -> None:
    run = recorded(tmp_path)
    with run.stage("outer"), run.stage("inner"):
        pass
    with pytest.raises(ValueError, match="x"), run.stage("broken"):
        raise ValueError("x")
    run.close(history.FAILED)
    assert [name for name, _ in history.read(DataFolder(tmp_path))[0].stages] == ["outer", "broken"]


def test_a_disk_that_refuses_costs_lines_and_never_the_run(
    data: Path, model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = copied(data, tmp_path / "other")
    DataFolder(data).history.mkdir()
    with caplog.at_level(logging.WARNING, "nucpro"):
        assert main(["extract", *arguments(data, model)]) == 0
    assert [r.getMessage() for r in caplog.records if "the report will lack this run" in r.getMessage()]
    assert history.read(DataFolder(data)) == []
    assert main(["extract", *arguments(other, model)]) == 0
    assert contents(data) == contents(other)


def test_a_link_in_place_of_the_record_is_replaced_and_never_followed(
    data: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, start_file = DataFolder(data), tmp_path / ".profile"
    start_file.write_text("mine\n")
    for path in (folder.history, folder.log, folder.journal, folder.lock):
        path.symlink_to(start_file)
    assert main(["extract", *arguments(data, model)]) == 0
    said = capsys.readouterr().err
    for path in (folder.history, folder.log, folder.journal, folder.lock):
        assert said.count(f"{path} was a link to {start_file}; a new file replaces it") == 1
        assert not path.is_symlink()
    assert start_file.read_text() == "mine\n"
    assert len(history.read(folder)) == 1
