"""The one runner: what was done is recorded before anybody hears of it, and one command at a time makes files."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from nucpro.errors import LockedError, StoreError
from nucpro.execution.runner import Committed, Runner, Statistics, statistics_warnings
from nucpro.progress import Meter, Progress


def test_a_piece_is_recorded_before_it_is_logged_shown_and_yielded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[str] = []

    def commit(piece: str) -> Committed:
        heard.append(f"recorded {piece}, log has {len(caplog.messages)} lines")
        return Committed(f"Made {piece}", units=5)

    def show(progress: Progress) -> None:
        heard.append(f"{progress.done} of {progress.total}, log has {len(caplog.messages)} lines")

    with caplog.at_level(logging.INFO, "nucpro"), Runner(tmp_path / "lock") as runner:
        meter = Meter(show, "Making", 20, "rows", done=10)
        for piece in runner.each(["a", "b"], commit, meter, done=2, total=4):
            heard += [f"yielded {piece}"]
    assert caplog.messages == ["[3/4] Made a", "[4/4] Made b"]
    assert heard == [
        "10 of 20, log has 0 lines",
        "recorded a, log has 0 lines",
        "15 of 20, log has 1 lines",
        "yielded a",
        "recorded b, log has 1 lines",
        "20 of 20, log has 2 lines",
        "yielded b",
    ]


def test_a_piece_that_cannot_be_recorded_is_not_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shown: list[int] = []

    def commit(piece: str) -> Committed:
        raise StoreError(f"{piece}: no room")

    with caplog.at_level(logging.INFO, "nucpro"), Runner(tmp_path / "lock") as runner:
        meter = Meter(lambda progress: shown.append(progress.done), "Making", 2)
        with pytest.raises(StoreError, match="a: no room"):
            list(runner.each(["a", "b"], commit, meter, done=0, total=2))
    assert (shown, caplog.messages) == ([0], [])


def test_one_at_a_time(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with Runner(lock), pytest.raises(LockedError, match=f"{tmp_path}: in use by process"), Runner(lock):
        pass
    with Runner(lock):
        pass


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("truncated", "{} truncated at the maximum length of the model"),
        ("splits", "{} split because memory ran out; lower --tokens-per-batch"),
        ("unknown_tokens", "{} ({share}) unknown to the model (runs of N?)"),
    ],
)
def test_what_differs_from_an_ordinary_run_is_a_warning(name: str, says: str, count: int) -> None:
    ordinary = Statistics(files=2, sequences=8, size=800, tokens=1000, seconds=2)
    assert list(statistics_warnings(ordinary)) == []
    what = {"truncated": "sequence", "splits": "batch", "unknown_tokens": "token"}[name]
    plural = {"batch": "batches"}.get(what, f"{what}s")
    counted = f"{count} {what if count == 1 else plural}"
    expected = says.format(counted, share=f"{count / 1000:.2%}")
    assert list(statistics_warnings(replace(ordinary, **{name: count}))) == [expected]
