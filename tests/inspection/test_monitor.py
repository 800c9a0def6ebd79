"""The live view: what it tells of runs at work, ended, killed and silent, and that it reads little."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from folders import arguments
from nucpro.cli import main
from nucpro.cli.watch import facts
from nucpro.extraction.run import extract
from nucpro.folder.paths import DataFolder
from nucpro.inspection.monitor import Monitor
from nucpro.options import Options
from nucpro.state import history, lock
from nucpro.state.history import DONE, FAILED, INTERRUPTED, Recorder

FIVE_FILES = [f"viral.1.1.identified_nucleotide/output_{number}.fa" for number in range(1, 6)]
FIVE_PROTEIN_FILES = [name.replace("nucleotide", "protein") for name in FIVE_FILES]


Begin = Callable[..., Recorder]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Begins a run of ten files, two of them done before, that finished some."""
    runs = []

    def begun(root: Path, *keys: str) -> Recorder:
        run = Recorder(DataFolder(root), {"side": "protein"})
        runs.append(run)
        run.open(files=10, done=2, letters=8000, stale=3)
        for key in keys:
            run.file(key, 9.0, records=10, letters=1000, tokens=1020, elapsed=2.0)
        return run

    yield begun
    for run in runs:
        run.close(INTERRUPTED)


def last_file(folder: DataFolder) -> float:
    """When the last file was finished."""
    return history.read(folder)[-1].files[-1].time


def test_a_run_at_work_shows_what_is_done_how_fast_and_how_long_it_will_take(
    tmp_path: Path, begin: Begin
) -> None:
    folder = DataFolder(tmp_path)
    monitor = Monitor(folder)
    with lock.hold(folder.lock):
        run = begin(tmp_path, *FIVE_FILES[:2])
        now = last_file(folder)
        view = monitor.look(now)
        assert (view.done, view.made, view.total, view.stale) == (4, 2, 10, 3)
        assert not view.is_over
        assert view.state.startswith(f"at work, process {os.getpid()} on host ")
        assert view.rates is not None
        assert (view.rates.sequences, view.rates.letters, view.rates.tokens) == (5.0, 500.0, 510.0)
        assert view.seconds_left == pytest.approx(12)
        # 5 s later nothing else was finished: what was said to be left is late.
        assert monitor.look(now + 5).seconds_left == pytest.approx(7)
        for key in FIVE_FILES[2:]:
            run.file(key, 9.0, records=10, letters=1000, tokens=1020, elapsed=1.0)
        later = monitor.look(time.time())
        assert (later.done, later.last_file) == (7, FIVE_PROTEIN_FILES[4])
        assert later.problems == ()
        run.close(INTERRUPTED)
    assert monitor.look(time.time()).state == "ended: interrupted; run the same command again to continue"


def test_the_rate_is_that_of_the_last_minute(tmp_path: Path, begin: Begin) -> None:
    run = begin(tmp_path)
    for seconds in (1000.0, 20.0, 20.0, 20.0):
        run.file("a", 90.0, records=100, letters=1, tokens=1, elapsed=seconds)
    rates = Monitor(DataFolder(tmp_path)).look(time.time()).rates
    assert rates is not None
    assert rates.sequences == 5.0


def test_before_its_first_line_a_run_is_checking_files(tmp_path: Path, begin: Begin) -> None:
    folder = DataFolder(tmp_path)
    monitor = Monitor(folder)
    assert monitor.look(0).state == "no run is recorded here yet"
    with lock.hold(folder.lock):
        assert monitor.look(0).state.endswith(": checking files before the start")
    begin(tmp_path)
    # The lines of a killed run are not those of the run that holds the lock now.
    lines = re.sub("^[0-9a-f]{8} ", "", folder.history.read_text(), flags=re.MULTILINE)
    folder.history.write_text(lines.replace(f'"process":{os.getpid()},', '"process":1,'))
    assert monitor.look(time.time()).state == "ended: killed; run the same command again to continue"
    with lock.hold(folder.lock):
        assert monitor.look(time.time()).state.endswith(": checking files before the start")


def test_a_failure_and_warnings_of_the_run_are_problems(tmp_path: Path, begin: Begin) -> None:
    folder = DataFolder(tmp_path)
    run = begin(tmp_path)
    now = datetime.now()
    folder.log.write_text(
        "1999-01-01 00:00:00,000 WARNING of an older run\n"
        f"{now:%Y-%m-%d %H:%M:%S},999 WARNING 3 sequences were cut\n"
        f"{now:%Y-%m-%d %H:%M:%S},999 INFO [1/3] Extracted\n"
        "2999-01-01 00:00:00,000 WARNING of a training that came later\n"
    )
    run.close(FAILED, "output_1.fa: record x gave NaN\nsecond line")
    view = Monitor(folder).look(time.time())
    assert view.state == "ended: failed"
    assert view.problems == ("output_1.fa: record x gave NaN", "second line", "Warning: 3 sequences were cut")
    assert facts(view)[-2:] == [("Problem", "second line"), ("Warning", "3 sequences were cut")]


def test_a_list_of_problems_in_the_log_is_shown_with_its_first(tmp_path: Path, begin: Begin) -> None:
    folder = DataFolder(tmp_path)
    with lock.hold(folder.lock):
        begin(tmp_path)
        folder.log.write_text(
            f"{datetime.now():%Y-%m-%d %H:%M:%S},999 ERROR 2 problems found; nothing was changed:\n"
            "  - data: in use by process 7 on host a\n  - too little disk\n"
        )
        view = Monitor(folder).look(time.time())
    assert view.problems == ("2 problems found; nothing was changed: data: in use by process 7 on host a",)


def test_a_run_that_went_quiet_is_a_problem(tmp_path: Path, begin: Begin) -> None:
    folder = DataFolder(tmp_path)
    with lock.hold(folder.lock):
        begin(tmp_path, FIVE_FILES[0])
        assert Monitor(folder).look(last_file(folder) + 100).problems == ()
        problems = Monitor(folder).look(last_file(folder) + 130).problems
    assert problems == (f"no file was finished for 130 s; check {folder.log}",)


def test_a_look_reads_only_what_is_new_whatever_the_number_of_files(tmp_path: Path, begin: Begin) -> None:
    folder = DataFolder(tmp_path)
    run = begin(tmp_path)
    when = datetime.now(UTC).isoformat(timespec="milliseconds")
    entry = {
        "event": "file",
        "time": when,
        "seconds": 3.0,
        "records": 10_000,
        "letters": 10**6,
        "tokens": 10**6,
    }
    with folder.history.open("a") as file:
        file.writelines(
            json.dumps({**entry, "file": f"viral.{k}.1.identified_nucleotide/output_{k}.fa"}) + "\n"
            for k in range(100_000)
        )
    monitor = Monitor(folder)
    assert monitor.look(time.time()).made == 100_000
    run.file("one more", 3.0, 10_000, 10**6, 10**6, 3.0)
    before = _bytes_read()
    assert monitor.look(time.time()).made == 100_001
    assert _bytes_read() - before < 100_000


def _bytes_read() -> int:
    """Bytes that this process has read by system calls."""
    return int(re.search(r"rchar: (\d+)", Path("/proc/self/io").read_text())[1])


def test_without_a_terminal_there_are_plain_lines(
    data: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["extract", *arguments(data, model)]) == 0
    capsys.readouterr()
    assert main(["status", str(data), "--watch"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Run:        ended: done"
    assert "Files:      6 of 6 done (100%), 6 by this run; 1 were outdated when it started" in lines
    assert any(line.startswith("Rate:       ") and line.endswith(" tokens/s") for line in lines)
    assert any(line.startswith("Stages:     discover ") for line in lines)
    assert "\x1b" not in "".join(lines)


def test_the_view_follows_a_run_in_another_process_to_its_end(data: Path, model: Path, begin: Begin) -> None:
    command = [sys.executable, "-m", "nucpro"]
    with lock.hold(DataFolder(data).lock):
        run = begin(data, *FIVE_FILES[:1])
        watching = subprocess.Popen(
            [*command, "status", str(data), "--watch", "0.05"], stdout=subprocess.PIPE, text=True
        )
        assert watching.stdout is not None
        seen = [watching.stdout.readline()]
        while not seen[-1].startswith("Last file:"):
            seen.append(watching.stdout.readline())
        run.file(FIVE_FILES[1], 9.0, 10, 1000, 1020, 2.0)
        line = watching.stdout.readline()
        assert re.fullmatch(
            rf"\d\d:\d\d:\d\d 4/10 files, 5\.0 sequences/s, \d+ s left, {FIVE_PROTEIN_FILES[1]}\n", line
        )
        run.close("done")
    rest, _ = watching.communicate(timeout=60)
    assert watching.returncode == 0
    assert "Run:        ended: done\n" in rest


def test_names_in_the_history_cannot_steer_the_terminal(tmp_path: Path, begin: Begin) -> None:
    run = begin(tmp_path, "viral\x1b[31m[bold]x[/bold].fa")
    run.close("done\x1b[2J")
    shown = _in_a_terminal(["status", str(tmp_path), "--watch"])
    assert "viral\\x1b[31m[bold]x[/bold].fa" in shown
    assert "done\\x1b[2J" in shown
    assert "\x1b[31m" not in shown
    assert "\x1b[2J" not in shown
    assert "3 of 10 done (30%)" in shown


def _in_a_terminal(arguments_: list[str]) -> str:
    """What a command writes to a terminal of 200 columns."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "200", "TERM": "xterm-256color"}
    process = subprocess.Popen(
        [sys.executable, "-m", "nucpro", *arguments_], stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    shown = io.BytesIO()
    try:
        while piece := os.read(ours, 4096):
            shown.write(piece)
    except OSError:  # the terminal was closed by its last user
        pass
    os.close(ours)
    assert process.wait() == 0
    return shown.getvalue().decode()


@pytest.mark.parametrize(
    ("arguments_", "code", "message"),
    [
        (["--watch", "0"], 2, "--watch is 0; allowed: more than 0 seconds"),
        (["--watch", "nan"], 2, "--watch is nan; allowed: more than 0 seconds"),
    ],
)
def test_intervals_that_are_not_allowed(
    arguments_: list[str], code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", str(tmp_path), *arguments_]) == code
    assert message in capsys.readouterr().err


def test_a_folder_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(tmp_path / "none"), "--watch"]) == 3
    assert f"{tmp_path / 'none'}: no such folder" in capsys.readouterr().err


def test_a_command_that_goes_on_with_protein_files_is_not_over_after_the_dna_files(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    monitor = Monitor(folder)
    with lock.hold(folder.lock):
        dna = Recorder(folder, {"side": "dna", "protein_follows": True})
        dna.open(files=2, done=0, letters=2000)
        dna.file(FIVE_FILES[0], 9.0, records=10, letters=1000, tokens=1020, elapsed=2.0)
        view = monitor.look(time.time())
        assert view.what == "DNA, then protein"
        assert ("Left", "2 s for DNA files, then protein files") in facts(view)
        dna.file(FIVE_FILES[1], 9.0, records=10, letters=1000, tokens=1020, elapsed=2.0)
        dna.close(DONE)
        view = monitor.look(time.time())
        assert not view.is_over
        assert view.state.endswith(": DNA files done, checking protein files")
        protein = Recorder(folder, {"side": "protein"})
        protein.open(files=2, done=0, letters=2000)
        protein.file(FIVE_FILES[0], 9.0, records=10, letters=1000, tokens=1020, elapsed=2.0)
        view = monitor.look(time.time())
        assert (view.what, view.done) == ("protein", 1)
        assert view.last_file == "viral.1.1.identified_protein/output_1.fa"
        protein.close(DONE)
    assert monitor.look(time.time()).state == "ended: done"


def test_a_command_that_was_killed_between_dna_and_protein_files_says_what_is_missing(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    dna = Recorder(folder, {"side": "dna", "protein_follows": True})
    dna.open(files=1, done=0, letters=1000)
    dna.close(DONE)
    view = Monitor(folder).look(time.time())
    assert view.is_over
    assert view.state.startswith("ended: DNA files done, protein files not begun; run the same command again")


def test_the_folder_is_held_from_the_first_dna_file_to_the_last_merged_one(
    data: Path, model: Path, dna_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in data.rglob("*_DNABERT_S.pt"):
        path.unlink()
    folder, states = DataFolder(data), []
    options = Options(data, protein_model=str(model), dna_model=str(dna_model), device="cpu", with_dna=True)
    extract(replace(options, report=False), lambda _: states.append(lock.state(folder.lock)))
    assert {state.split(",")[0] for state in states} == {"at work"}
    dna, protein = history.read(folder)
    assert (dna.how, protein.how) == (DONE, DONE)
    assert dna.facts["protein_follows"] is True
    assert not {name for name in dna.facts["options"] if "protein" in name or name == "token_dropout"}
    assert dna.facts["options"]["dna_model"] == str(dna_model)
    assert not {name for name in protein.facts["options"] if "dna_model" in name}
    used = protein.facts["options"]
    assert used["protein_model"] == str(model)
    assert (used["precision"], used["token_dropout"], used["sequences_per_file"]) == ("fp32", True, 4)
    capsys.readouterr()
    assert main(["status", str(data)]) == 0
    assert "No run in progress. Last: protein, done " in capsys.readouterr().out


def test_status_shows_the_last_run_of_either_kind(
    data: Path, begin: Begin, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Recorder(DataFolder(data), {"side": "dna"})
    run.open(files=14, done=8, letters=10)
    run.file(FIVE_FILES[0], 9.0, records=10, letters=10, tokens=10, elapsed=2.0)
    run.close(INTERRUPTED)
    assert main(["status", str(data)]) == 0
    line = capsys.readouterr().out.splitlines()[1]
    assert re.fullmatch(r"No run in progress. Last: DNA, interrupted \d s ago, 9 of 14 files", line)
