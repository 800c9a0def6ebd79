"""How far a command is: one value, and the three forms in which it is shown."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import termios
from contextlib import ExitStack
from pathlib import Path

import pytest

from folders import arguments
from nucpro.cli import main
from nucpro.cli.console import Manner, Steps, console, say, showing
from nucpro.errors import counted, human_size, human_time
from nucpro.progress import BYTES, Meter, Progress, tracked

PARTS = (
    Progress(0, 20, message="Embedding"),
    Progress(3, 20, seconds_left=61.4, message="Embedding"),
    Progress(4, 20, seconds_left=3.4, message="Embedding"),
    Progress(20, 20, seconds_left=0.0, message="Embedding"),
    Progress(0, None, BYTES, message="Downloading"),
    Progress(20_000_000, None, BYTES, message="Downloading"),
)


def shown(capsys: pytest.CaptureFixture[str], **manner: object) -> tuple[list[str], list[str]]:
    """What a command says that shows its progress, warns and answers: standard output and standard error."""
    with console(None, Manner(**manner)):  # type: ignore[arg-type]
        import logging

        with showing() as show:
            for part in PARTS:
                show(part)
        logging.getLogger("nucpro").warning("careful")
        logging.getLogger("nucpro").info("well")
        say("the answer")
    out, err = capsys.readouterr()
    return out.splitlines(), err.splitlines()


def test_each_tenth_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, progress="lines") == (
        [
            "Embedding: 0 of 20 files",
            "Embedding: 3 of 20 files, 1 min 01 s left",
            "Embedding: 4 of 20 files, 3 s left",
            "Embedding: 20 of 20 files",
            "Downloading: 0 B",
            "Downloading: 20.0 MB",
            "well",
            "the answer",
        ],
        ["Warning: careful"],
    )


def test_without_a_terminal_only_what_takes_long_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys) == (["well", "the answer"], ["Warning: careful"])
    seconds = 0.0
    steps = Steps(10, lambda: seconds)
    for done in range(6):
        steps.show(Progress(done, 5, message="Reading"))
        seconds += 4
    assert capsys.readouterr().out.splitlines() == [f"Reading: {done} of 5 files" for done in (3, 4, 5)]


def test_programs_read_json_lines_and_nothing_else_on_standard_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, err = shown(capsys, progress="json")
    assert out == ["well", "the answer"]
    events = [json.loads(line) for line in err]
    assert events[1] == {
        "event": "progress",
        "done": 3,
        "total": 20,
        "unit": "files",
        "seconds_left": 61.4,
        "message": "Embedding",
    }
    assert events[4]["total"] is None
    assert events[-1] == {"event": "message", "level": "warning", "text": "careful"}
    assert len(events) == len(PARTS) + 1


def test_quiet_is_warnings_and_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, quiet=True) == (["the answer"], ["Warning: careful"])


def test_quiet_leaves_nothing_but_warnings_of_a_command_that_makes_files(
    data: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments(data, model)
    fasta = next(data.rglob("*identified_protein.fa"))
    vectors = [str(fasta), "-o", str(tmp_path / "x.npz"), "--protein-model", str(model), "--device", "cpu"]
    split = ["split", str(data)]
    for words in (["extract", *given], ["export", str(data), "--to", "npz"], ["embed", *vectors], split):
        assert main([*words, "-q"]) == 0
        out, err = capsys.readouterr()
        assert out == ""
        assert [line for line in err.splitlines() if not line.startswith("Warning: ")] == []
        assert ("Warning: 24 of 28 records are used" in err) == (words[0] == "extract")
    log = (data / "extraction.log").read_text()
    assert " WARNING 24 of 28 records are used" in log
    assert "Warning: " not in log
    assert main(["inspect", str(fasta), "-q"]) == 0
    assert capsys.readouterr().out != ""


def test_verbose_shows_what_explains_a_run_elsewhere(
    data: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["extract", *arguments(data, model), "-v"]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    timed = [line[9:] for line in lines if re.match(r"\d\d:\d\d:\d\d ", line)]
    for pattern in (
        rf"Command: nucpro extract .*--protein-model {model}.* -v",
        r"Options: .*device cpu.*",
        r"Software: nucpro .*, python 3\..*, torch .*",
        r"Machine: .*, process \d+, 20\d\d-.* UTC, \d+ cores?, .* of memory free; in .*, temporary files in .*",
        rf"Found the protein model {model.name} \(ESM-2\) in .*: 16 columns; precision fp32, the default on cpu",
        r"0 of 6 files are as recorded and unchanged since, 5 are missing, 1 must be read",
        rf"{re.escape(str(data))}.*: \d.* to write, .* free",
        r"make    .*/output_1_ESM\.pt",
        r"Loading tiny: \d+\.\d s",
        r"Batches of up to 2048 tokens, the default on cpu; torch .* on \d+ cores?, \d+ threads?",
        r"Embedding: 6 of 6 files in \d+\.\d s",
        r"Step 'extract': \d+\.\d s",
        r"Exit code 0; .* of CPU time here and .* in worker processes; at most .* of memory here, .* in a worker",
    ):
        assert any(re.fullmatch(pattern, line) for line in timed), (pattern, timed)
    logged = (data / "extraction.log").read_text()
    assert "DEBUG Step 'extract': " in logged

    fasta = next(data.rglob("*_protein/output_1.fa"))
    (fasta.parent / "output_1_ESM.pt").write_bytes(b"damaged")
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "precision fp32, as recorded in the folder" in out
    assert "5 of 6 files are as recorded and unchanged since, 0 are missing, 1 must be read" in out
    assert re.search(r"\d\d:\d\d:\d\d output_1_ESM\.pt cannot be used: recomputed", out)
    assert re.search(r"replace .*/output_1_ESM\.pt\n", out)


def test_verbose_shows_the_time_and_where_an_error_arose(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", str(tmp_path / "nowhere"), "-v"]) == 3
    err = capsys.readouterr().err
    assert re.match(r"\d\d:\d\d:\d\d 1 problem found; nothing was changed:\n  - .*: no such folder", err)
    assert "Traceback" in err
    assert main(["validate", str(tmp_path / "nowhere")]) == 3
    assert "Traceback" not in capsys.readouterr().err


def test_the_end_of_a_command_is_reported_to_programs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", str(tmp_path / "nowhere"), "--progress", "json"]) == 3
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [event["event"] for event in events] == ["message", "end"]
    assert events[0]["level"] == "error"
    assert events[0]["text"].startswith("1 problem found; nothing was changed:")
    assert events[1] == {"event": "end", "exit_code": 3}


def test_a_run_counts_to_its_end(data: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["extract", *arguments(data, model), "--progress", "json"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1].startswith("Validation passed")
    events = [json.loads(line) for line in err.splitlines()]
    assert events[-1] == {"event": "end", "exit_code": 0}
    embedded = [event["done"] for event in events if event.get("message") == "Embedding"]
    assert embedded == list(range(7))


TERMINAL = """
import sys
from nucpro.cli.console import Manner, Steps, console, say, showing
from nucpro.progress import Progress
with console(None, Manner()):
    with showing() as show:
        for done in (0, 3, 4):
            show(Progress(done, 10, seconds_left=61.0, message="Embedding"))
        say("a line")
        show(Progress(7 * 10**9, 10**10, "B", message="Downloading"))
        show(Progress(10**9, None, "B", message="Downloading"))
    say("Validation passed")
"""


def on_a_terminal(columns: int) -> str:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    subprocess.run([sys.executable, "-c", TERMINAL], stdout=theirs, stderr=theirs, check=True)
    os.close(theirs)
    found = b""
    with ExitStack() as stack:
        stack.callback(os.close, ours)
        try:
            while part := os.read(ours, 10_000):
                found += part
        except OSError:
            pass  # the other end is closed
    return found.decode()


def test_a_terminal_sees_a_bar_that_is_gone_at_the_end() -> None:
    drawn = on_a_terminal(100)
    assert re.search(r"Embedding:  40%\|█+\S? +\| 4 of 10 files, 1 min 01 s left", drawn)
    assert re.search(r"Downloading:  70%\|█+\S? +\| 7\.0 GB of 10\.0 GB, 00:00", drawn)
    assert "Downloading: 1.0 GB, 00:00" in drawn
    assert "\ra line\r\n" in drawn
    *_, last, end = drawn.split("\r\n")
    assert end == ""
    # What a terminal shows of the last line is what follows the last return to its beginning.
    assert last.rsplit("\r", 1)[-1] == "Validation passed"


@pytest.mark.parametrize("columns", [80, 50])
def test_a_bar_is_as_wide_as_its_terminal(columns: int) -> None:
    widths = {len(line) for line in re.split(r"[\r\n]+", on_a_terminal(columns))}
    assert max(widths) <= columns
    assert "4 of 10 files, 1 min 01 s left" in on_a_terminal(columns)


def test_a_meter_counts_and_estimates_by_the_size_of_the_work() -> None:
    seen: list[Progress] = []
    clock = iter([0.0, 0.0, 10.0, 20.0])
    meter = Meter(seen.append, "Embedding", 4, done=2, work=300, clock=lambda: next(clock))
    meter.advance(work=100)
    meter.advance(work=200)
    assert [(one.done, one.total, one.seconds_left) for one in seen] == [
        (2, 4, None),
        (3, 4, 20.0),
        (4, 4, 0.0),
    ]


def test_many_units_are_shown_a_thousand_times_and_the_last_always() -> None:
    seen: list[Progress] = []
    assert list(tracked(range(100_050), 100_050, "Reading", seen.append)) == list(range(100_050))
    assert len(seen) <= 1_002
    assert (seen[0].done, seen[-1].done) == (0, 100_050)


@pytest.mark.parametrize(
    ("seconds", "text", "left"),
    [
        (6.66, "6.7 s", "7 s"),
        (59.97, "1 min 00 s", "1 min 00 s"),
        (60, "1 min 00 s", "1 min 00 s"),
        (245, "4 min 05 s", "4 min 05 s"),
        (7380, "2 h 03 min", "2 h 03 min"),
    ],
)
def test_times_are_readable(seconds: float, text: str, left: str) -> None:
    assert (human_time(seconds), human_time(seconds, decimals=0)) == (text, left)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.0 kB"),
        (600_000, "600 kB"),
        (999_960, "1.0 MB"),
        (2_480_000_000_000, "2,480 GB"),
    ],
)
def test_sizes_are_readable(size: int, text: str) -> None:
    assert human_size(size) == text


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (1, "record", "1 record"),
        (0, "merged file", "0 merged files"),
        (2, "family", "2 families"),
        (2, "batch", "2 batches"),
        (2, "class", "2 classes"),
        (2, "day", "2 days"),
    ],
)
def test_counts_have_the_right_number(number: int, noun: str, text: str) -> None:
    assert counted(number, noun) == text


def test_one_thing_is_in_the_singular(capsys: pytest.CaptureFixture[str]) -> None:
    with console(None, Manner(progress="lines")), showing() as show:
        show(Progress(1, 1, message="Reading"))
        show(Progress(1, None, "records", message="Counting"))
    assert capsys.readouterr().out == "Reading: 1 of 1 file\nCounting: 1 record\n"
    assert counted(1, "problem") == "1 problem"
    assert counted(1234, "batch", ",") == "1,234 batches"
