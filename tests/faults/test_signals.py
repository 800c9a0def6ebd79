"""SIGINT and SIGTERM at any instant of a run: answered soon, in one line, with the exit code that belongs to it."""

from __future__ import annotations

from pathlib import Path

import pytest
from scenarios import WHOLE, Baseline, copied
from strike import NO_ANSWER

ANSWERS = (
    "Interrupted. Finished work is kept; run the same command again to continue.",
    "Interrupted. Run the same command again to continue.",
)
FAST = (("SIGINT", "main"), ("SIGTERM", "start"))
CODES = {"SIGINT": 130, "SIGTERM": 143}


@pytest.mark.points(1, 13)
@pytest.mark.parametrize(
    ("sign", "who"), [("SIGINT", "main"), ("SIGTERM", "start"), ("SIGINT", "start"), ("SIGTERM", "main")]
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
