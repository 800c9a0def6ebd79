"""Power lost at any instant: no file is ever wrong under its final name, and the repeated run ends as always."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from power import EXTREMES, Disk, Event, Loss, record, write_out
from scenarios import WHOLE, Scenario, copied, state, timeless

from folders import leftovers
from nucpro.folder.paths import DataFolder

pytestmark = pytest.mark.skipif(
    shutil.which("strace") is None, reason="needs strace (on Debian: apt install strace)"
)

Crash = dict[str, bytes | None]
OUTPUT_FACTS = ("vectors", "merged", "valid", "dna")
"""Kinds of facts that say of an output that it is right."""


@dataclass(frozen=True)
class Recording:
    """What a run did to its folder."""

    scenario: Scenario
    root: Path
    events: list[Event]
    initial: dict[str, bytes]
    final: dict[str, bytes]

    def replayed(self, after: Callable[[Disk, Event], object]) -> Disk:
        disk = Disk(self.root, self.scenario.start)
        for event in self.events:
            disk.apply(event)
            after(disk, event)
        return disk

    def crashes(self, seeds: int) -> dict[str, Crash]:
        """Everything that a loss of power at any instant may leave, by digest."""
        found: dict[str, Crash] = {}

        def lose(disk: Disk, _: Event) -> None:
            losses = [Loss(*extreme) for extreme in EXTREMES]
            losses += [Loss("some", "some", len(found) * seeds + seed) for seed in range(seeds)]
            for crash in map(disk.crash, losses):
                found[digest_of(crash)] = crash

        self.replayed(lose)
        return found


def digest_of(crash: Crash) -> str:
    digest = hashlib.sha256()
    for name in sorted(crash):
        digest.update(f"{name}\0".encode() + hashlib.sha256(crash[name] or b"").digest())
    return digest.hexdigest()


NAMES = (
    *("extract", "dataset", "embed_dna", "split"),
    *("train", "compare", "predict", "export", "report", "embed", "download", "fetch_models"),
)
FAST = ("extract", "dataset")


@pytest.fixture(scope="module", params=NAMES)
def recording(
    request: pytest.FixtureRequest, whole: bool, tmp_path_factory: pytest.TempPathFactory
) -> Recording:
    if not (whole or request.param in FAST):
        pytest.skip(WHOLE)
    scenario: Scenario = request.getfixturevalue(request.param)
    folder = tmp_path_factory.mktemp("recorded")
    data = copied(scenario.start, folder / "data")
    command = [sys.executable, "-m", "nucpro", *scenario.command(data)]
    events = record(command, folder / "trace", data)
    (folder / "trace").unlink()
    return Recording(scenario, data, events, state(scenario.start), state(data))


def test_the_model_ends_where_the_run_ended(recording: Recording) -> None:
    disk = recording.replayed(lambda *_: None)
    ended = {name: content for name, content in disk.crash(Loss("all", "all")).items() if content is not None}
    real = {
        path.relative_to(recording.root).as_posix(): path.read_bytes()
        for path in recording.root.rglob("*")
        if path.is_file()
    }
    assert ended == real


def test_a_finished_run_survives_whole(recording: Recording) -> None:
    left = recording.replayed(lambda *_: None).crash(Loss("none", "none"))
    files = {name: timeless(content) for name, content in left.items() if content is not None}
    assert {name: files.get(name) for name in recording.final} == recording.final


def test_no_file_is_wrong_under_its_final_name(
    recording: Recording, whole: bool, record_property: Callable[[str, object], None]
) -> None:
    crashes = recording.crashes(8 if whole else 1)
    record_property("cases", len(crashes))
    for crash in crashes.values():
        for name, content in crash.items():
            if name in recording.final and content is not None:
                assert timeless(content) in (recording.final[name], recording.initial.get(name)), name
        for name, content in recording.initial.items():
            assert crash[name] in (content, recording.final.get(name)), name


def test_nothing_is_recorded_as_right_before_it_is_safe(recording: Recording) -> None:
    folder = DataFolder(recording.root)
    own = {str(folder.journal).encode(), str(folder.checkpoint).encode()}
    checked = []

    def check(disk: Disk, event: Event) -> None:
        if event.call == "write" and event.texts[0] in own:
            for line in event.texts[1].splitlines():
                for key in facts_in(line):
                    kind, _, path = key.partition(":")
                    if kind in OUTPUT_FACTS:
                        assert disk.is_safe(path), f"{key} is recorded, but power may take {path}"
                        checked.append(key)

    recording.replayed(check)
    made = [name for name, content in recording.final.items() if content != recording.initial.get(name)]
    assert bool(checked) == any("_ESM" in name or "_DNABERT" in name for name in made)


def facts_in(line: bytes) -> list[str]:
    start = line.find(b"{")
    return list(json.loads(line[start:])) if start >= 0 else []


def test_the_repeated_run_ends_as_one_without_a_loss(
    recording: Recording, whole: bool, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    crashes = recording.crashes(2 if whole else 0)
    chosen = random.Random(1).sample(sorted(crashes), min(25 if whole else 1, len(crashes)))
    record_property("cases", len(chosen))
    for digest in chosen:
        data = write_out(crashes[digest], tmp_path / digest / recording.root.name)
        assert recording.scenario.repeat(data) == 0
        assert state(data) == recording.final
        assert leftovers(data) == []
        shutil.rmtree(data)
