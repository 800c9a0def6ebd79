"""How scores of frames become verdicts on chunks and sequences."""

from __future__ import annotations

import pytest

from nucpro.prediction.verdict import ChunkScore, FrameScore, Rules, SequenceScore


def chunk(*scores: float, number: int = 1) -> ChunkScore:
    frames = tuple(FrameScore(number, f"F{i}", 100, score) for i, score in enumerate(scores, start=1))
    return ChunkScore(number, 1, 300, frames)


@pytest.mark.parametrize(
    ("scores", "best", "score"),
    [
        ((0.2, 0.9, 0.6), "F2", 0.9),
        ((0.05, 0.9), "F1", 0.05),
        ((0.25, 0.75), "F1", 0.25),
        ((0.5,), "F1", 0.5),
        ((1.0, 0.0), "F1", 1.0),
    ],
)
def test_a_chunk_has_the_score_of_its_most_decided_frame(
    scores: tuple[float, ...], best: str, score: float
) -> None:
    found = chunk(*scores)
    assert found.best is not None
    assert (found.best.frame, found.score) == (best, score)
    # The original compares the highest scores for and against.
    against = max(1 - score for score in scores)
    assert max(scores) == pytest.approx(against) or (found.score >= 0.5) == (max(scores) > against)


def test_a_sequence_has_the_mean_of_its_chunks_not_the_highest() -> None:
    record = SequenceScore("r", 900)
    for number, scores in enumerate([(0.1, 0.4), (), (0.999,), (0.2,)], start=1):
        record.add(chunk(*scores, number=number))
    assert record.score == pytest.approx((0.1 + 0.999 + 0.2) / 3, abs=1e-6)
    assert (record.chunks, record.scored_chunks, record.viral_chunks) == (4, 3, 1)
    assert record.highest == FrameScore(3, "F1", 100, 0.999)
    assert Rules().verdict(record.score) == "host"


def test_without_a_frame_there_is_no_verdict() -> None:
    record = SequenceScore("r", 300)
    record.add(chunk())
    assert (record.score, record.highest, chunk().score) == (None, None, None)
    assert Rules().verdict(record.score) == "undetermined"


@pytest.mark.parametrize(
    ("score", "rules", "bases", "name"),
    [
        (0.5, Rules(), None, "viral"),
        (0.499999, Rules(), None, "host"),
        (1.0, Rules(), 3, "viral"),
        (0.0, Rules(), None, "host"),
        (0.7, Rules(threshold=0.8), None, "host"),
        (0.8, Rules(threshold=0.8), 500, "viral"),
        (0.9, Rules(min_length=150), 149, "undetermined"),
        (0.9, Rules(min_length=150), 150, "viral"),
        (0.9, Rules(min_length=150), None, "viral"),
    ],
)
def test_names_of_verdicts(score: float, rules: Rules, bases: int | None, name: str) -> None:
    assert rules.verdict(score, bases) == name
