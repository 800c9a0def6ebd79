"""SIGINT and SIGTERM at any instant of a run: answered soon, in one line, with the exit code that belongs to it."""

from __future__ import annotations

from pathlib import Path

import pytest
from scenarios import Baseline, Scenario, baseline, copied
from strike import NO_ANSWER

ANSWERS = (
    "Interrupted. Everything that was finished is kept; run the same command again to continue.",
    "Interrupted. Run the same command again to continue.",
)
CODES = {"SIGINT": 130, "SIGTERM": 143}


@pytest.fixture(scope="module")
def from_the_start(extract: Scenario, tmp_path_factory: pytest.TempPathFactory) -> Baseline:
    """All events, also those before the command begins: imports above all."""
    return baseline(extract, tmp_path_factory.mktemp("start"), "start")


@pytest.fixture(scope="module")
def extracting(extract: Scenario, tmp_path_factory: pytest.TempPathFactory) -> Baseline:
    """Events in the data folder."""
    return baseline(extract, tmp_path_factory.mktemp("extract"))


def require_answer(base: Baseline, data: Path, who: str, point: int, sign: str) -> None:
    copied(base.scenario.start, data)
    result = base.scenario.struck(data, f"{who}:{point}:{sign}")
    assert result.returncode != NO_ANSWER, f"no answer within 5 s at {point} of {base.events}"
    assert result.returncode == CODES[sign], f"at {point} of {base.events}: {result.stderr}"
    assert result.stderr.strip() in ANSWERS
    base.require_whole_files(data)
    base.require_recovery(data)


@pytest.mark.points(2, 26)
@pytest.mark.parametrize("sign", CODES)
def test_an_interrupt_at_any_instant(
    part: int, parts: int, sign: str, from_the_start: Baseline, tmp_path: Path
) -> None:
    point = from_the_start.point(part, parts)
    require_answer(from_the_start, tmp_path / "data", "start", point, sign)


@pytest.mark.points(1, 26)
@pytest.mark.parametrize("sign", CODES)
def test_an_interrupt_while_files_are_at_work(
    part: int, parts: int, sign: str, extracting: Baseline, tmp_path: Path
) -> None:
    point = extracting.point(part, parts)
    require_answer(extracting, tmp_path / "data", "main", point, sign)
