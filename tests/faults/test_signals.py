"""SIGINT, SIGTERM and SIGHUP at any instant of a run: answered soon, in one line, with the right exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from scenarios import WHOLE, Baseline, copied
from strike import NO_ANSWER

ANSWERS = (
    "Interrupted. Finished work is kept; run the same command again to continue.",
    "Interrupted. Run the same command again to continue.",
)
FAST = (("SIGINT", "main"), ("SIGTERM", "start"), ("SIGHUP", "main"))
CODES = {"SIGHUP": 129, "SIGINT": 130, "SIGTERM": 143}


@pytest.mark.points(1, 13)
@pytest.mark.parametrize(
    ("sign", "who"),
    [
        ("SIGINT", "main"),
        ("SIGTERM", "start"),
        ("SIGHUP", "main"),
        ("SIGINT", "start"),
        ("SIGTERM", "main"),
        ("SIGHUP", "start"),
    ],
)
def test_an_interrupt_at_any_instant(
    part: int, parts: int, sign: str, who: str, whole: bool, extracting: Baseline, tmp_path: Path
) -> None:
    if not whole and (sign, who) not in FAST:
        pytest.skip(WHOLE)
    point = extracting.point(who, part, parts)
    data = copied(extracting.scenario.start, tmp_path / "data")
    result = extracting.scenario.struck(data, f"{point}:{sign}")
    assert result.returncode != NO_ANSWER, f"no answer within 5 s at {point}"
    assert result.returncode == CODES[sign], f"at {point} of {extracting.events}: {result.stderr}"
    answers = [line for line in result.stderr.splitlines() if not line.startswith("Warning: ")]
    assert len(answers) == 1, f"at {point}: {result.stderr}"
    assert answers[0] in ANSWERS
    extracting.require_whole_files(data)
    extracting.require_recovery(data)


@pytest.mark.parametrize("is_ignored", [False, True])
def test_a_terminal_that_closes(is_ignored: bool, extracting: Baseline, data: Path) -> None:
    """The log says that it ended the run; a run that ignores it, as nohup makes it, goes on."""
    own, theirs = os.openpty()
    ignoring = ["env", "--ignore-signal=HUP"] if is_ignored else []
    program = [sys.executable, "-m", "nucpro", *extracting.scenario.command(data)]
    run = subprocess.Popen(
        ["setsid", "--ctty", *ignoring, *program], stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    said = b""
    while b"are used" not in said:
        said += os.read(own, 4096)
    os.close(own)
    assert run.wait() == (0 if is_ignored else 128 + signal.SIGHUP)
    assert is_ignored or (data / "extraction.log").read_text().endswith(f"ERROR {ANSWERS[0]}\n")
    extracting.require_whole_files(data)
    extracting.require_recovery(data)
