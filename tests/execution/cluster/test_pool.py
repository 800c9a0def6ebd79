"""Encoders and calls on a real cluster: what is lost is tried again, what joins is used, errors come back."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from trial_encoder import DyingEncoder, TrialEncoder, Unreadable, die, double, extract_file, fail

from nucpro.errors import ExtractionError, NucproError, PreflightError, WorkerError
from nucpro.execution.ray.calls import ClusterWorkers
from nucpro.execution.ray.pool import EncoderPool, _Encoder
from nucpro.execution.ray.session import Session
from nucpro.execution.ray.worker import EncoderWorker, Report
from nucpro.execution.workers import Background
from nucpro.options import Options
from nucpro.state.checkpoint import Fingerprint
from nucpro.state.history import Totals

AddNode = Callable[[], Any]

pytestmark = pytest.mark.xdist_group("ray")


def session(**more: Any) -> Session:
    return Session(Options(engine="ray", device="cpu", **more))


def make(folder: Path, contents: Sequence[str]) -> list[Path]:
    files = [folder / f"output_{number}.fa" for number in range(1, len(contents) + 1)]
    for file, content in zip(files, contents, strict=True):
        file.write_text(content)
    return files


def pool_of(encoder: type[Any], **more: Any) -> EncoderPool[Path, tuple[float, Fingerprint | None]]:
    return EncoderPool(session(**more), encoder, extract_file)


def run(
    pool: EncoderPool[Path, tuple[float, Fingerprint | None]], files: Sequence[Path]
) -> Iterator[tuple[Path, float, Fingerprint | None]]:
    return pool.run(files, len(files))


def made(files: Sequence[Path]) -> int:
    return sum(file.with_suffix(".pt").exists() for file in files)


@pytest.mark.usefixtures("node")
def test_every_file_is_made_once_and_reported_with_its_stamp(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = make(tmp_path, ["copy"] * 40)
    pool = pool_of(TrialEncoder)
    with caplog.at_level(logging.INFO, "nucpro"):
        done = list(run(pool, files))
    assert sorted(file for file, _, _ in done) == sorted(files)
    assert all(stamp.size == file.with_suffix(".pt").stat().st_size for file, _, (_, stamp) in done if stamp)
    assert all(stamp and seconds == stamp.size / 1000 for _, _, (seconds, stamp) in done)
    assert pool.totals.tokens == 40
    assert pool.lost == 0
    # Lines of workers come here; the second encoder may be late for so little work.
    assert any(
        re.fullmatch(r"Encoder \d \(.+, process \d+\): Trial encoder is ready", m) for m in caplog.messages
    )


def test_an_answer_that_was_overtaken_takes_nothing_from_the_counts() -> None:
    pool = pool_of(TrialEncoder)
    encoder = _Encoder[Path](number=1, actor=None)
    for tokens in (3, 5, 4):
        pool._take_note(encoder, Report("host", (), Totals(tokens=tokens), None))
    assert pool.totals.tokens == 5


@pytest.mark.usefixtures("node")
def test_a_file_that_kills_its_process_is_named_after_three_attempts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = make(tmp_path, ["copy", "die", "copy", "copy", "copy"])
    pool = pool_of(TrialEncoder, workers=1)
    with pytest.raises(
        WorkerError, match=r"output_2\.fa: 3 encoders were lost on this item, the last two with"
    ):
        list(run(pool, files))
    assert pool.lost == 3
    lost = [message for message in caplog.messages if "was lost; work items to retry" in message]
    assert len(lost) == 3
    assert all("work items to retry: 1." in message for message in lost[1:])


@pytest.mark.usefixtures("node")
def test_neighbours_of_a_deadly_file_are_made_before_it_is_given_up(tmp_path: Path) -> None:
    files = make(tmp_path, ["die", "copy", "copy"])
    with pytest.raises(WorkerError, match="output_1"):
        list(run(pool_of(TrialEncoder, workers=1), files))
    assert made(files) == 2


@pytest.mark.usefixtures("node")
def test_an_error_stops_at_once_and_brings_type_and_traceback(tmp_path: Path) -> None:
    files = make(tmp_path, ["copy", "fail 7", *["copy"] * 60])
    with pytest.raises(ExtractionError, match=r"output_2\.fa: record 7$") as caught:
        list(run(pool_of(TrialEncoder), files))
    assert type(caught.value) is ExtractionError
    assert "trial_encoder.py" in str(caught.value.__cause__)
    assert made(files) < 61


@pytest.mark.usefixtures("node")
def test_encoders_that_never_load_end_the_run_in_words(tmp_path: Path) -> None:
    with pytest.raises(
        WorkerError, match=r"3 encoders in a row were lost while they loaded.*fewer --workers"
    ):
        list(run(pool_of(DyingEncoder), make(tmp_path, ["copy"])))


def test_a_node_is_lost_and_another_joins(head: Any, add_node: AddNode, tmp_path: Path) -> None:
    first = add_node()
    files = make(tmp_path, ["copy"] * 10)
    pool = pool_of(TrialEncoder)
    work = run(pool, files)
    next(work)
    head.remove_node(first)
    add_node()
    assert len(list(work)) == 9
    assert pool.lost == 1
    assert made(files) == 10


def test_a_node_that_joins_gets_an_encoder(add_node: AddNode, tmp_path: Path) -> None:
    add_node()
    pipes = [tmp_path / f"pipe_{number}" for number in range(4)]
    for pipe in pipes:
        os.mkfifo(pipe)
    files = make(tmp_path, ["copy", *(f"wait {pipe}" for pipe in pipes)])
    pool = pool_of(TrialEncoder)
    work = run(pool, files)
    next(work)
    add_node()
    # One encoder has three files at a time: the fourth pipe is opened by one on the other node, or never.
    opened: list[Any] = []
    release = threading.Thread(target=lambda: opened.extend(pipe.open("w") for pipe in pipes), daemon=True)
    release.start()
    closer = threading.Thread(target=lambda: (release.join(), [pipe.close() for pipe in opened]), daemon=True)
    closer.start()
    assert len(list(work)) == 4
    processes = {file.with_suffix(".pt").read_text().split()[1] for file in files}
    assert len(processes) == 2


@pytest.mark.usefixtures("node")
def test_calls_give_results_errors_and_the_news_of_killed_processes() -> None:
    cluster = ClusterWorkers(session())
    assert sorted(cluster.map(double, range(30))) == [2 * number for number in range(30)]
    with pytest.raises(ExtractionError, match=r"^record 3$") as caught:
        cluster.submit(fail, 3).result()
    assert "in fail" in str(caught.value.__cause__)
    with pytest.raises(
        WorkerError, match=r"die\(4\): its process was killed or its node lost, 3 times or for good"
    ):
        cluster.submit(die, 4).result()
    with pytest.raises(
        WorkerError, match=r"cannot read what it was sent; install the same .*: System error: unsup"
    ):
        cluster.submit(double, Unreadable()).result()
    seen: list[int] = []
    background = Background(cluster)
    background.add(double, (21,), seen.append)
    background.drain()
    assert seen == [42]


@pytest.mark.usefixtures("add_node")
def test_a_cluster_without_room_is_a_problem_with_remedies() -> None:
    empty = session()
    empty.start()
    [problem] = empty.problems()
    assert problem == (
        "no node of the cluster has the resources for an encoder, which takes 1 cpus, 0 gpus; "
        "its nodes have 0 cpus, 0 gpus; "
        "lower --gpus-per-worker or --cpus-per-worker, add nodes, or use --device cpu"
    )


@pytest.mark.usefixtures("add_node")
def test_parts_of_gpus_and_cores_decide_how_many_encoders_there_are(head: Any) -> None:
    head.add_node(num_cpus=8, num_gpus=2)
    assert session().room() == 7
    gpus = Session(Options(engine="ray"))
    halves = Session(Options(engine="ray", gpus_per_worker=0.5, cpus_per_worker=2))
    assert (gpus.room(), halves.room()) == (2, 4)
    assert Session(Options(engine="ray", workers=3)).encoders == 3


def test_a_wrong_version_on_a_node_is_refused() -> None:
    logger = logging.getLogger("nucpro")
    before = logger.handlers[:], logger.level, logger.propagate
    try:
        with pytest.raises(NucproError, match=r"has nucpro .*, the driver 0\.0\.0; install the same version"):
            EncoderWorker().load(TrialEncoder, extract_file, "0.0.0")
    finally:
        logger.handlers[:], logger.level, logger.propagate = before


def test_an_unreachable_cluster_is_a_problem() -> None:
    program = (
        "from nucpro.execution.ray.session import Session\nfrom nucpro.options import Options\n"
        "Session(Options(engine='ray', address='127.0.0.1:1', device='cpu')).start()\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert f"{PreflightError.__name__}: 1 problem found" in result.stderr
    assert "the Ray cluster at 127.0.0.1:1 cannot be used: [Errno 111] Connection refused" in result.stderr
    assert "see with `ray status` whether it is up" in result.stderr
