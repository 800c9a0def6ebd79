"""Links, pipes, devices and folders in place of each file that a command reads, writes or keeps."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from scenarios import WHOLE, Scenario, copied
from test_no_room import as_root

from folders import as_dangling, as_device, as_folder, as_pipe, within
from nucpro.cli import main

COMMANDS = (
    *("train", "model_comparison", "evaluate", "predict", "export", "report", "embed"),
    *("embed_dna", "dataset", "split", "download", "fetch_models"),
)
MODELS = ("--model", "--protein-model", "--dna-model")
"""Options with the folder of a model, which is copied, so that its files can be exchanged."""


def as_link(path: Path) -> None:
    """Lead to a file of the user's own."""
    target = path.with_name("own")
    target.write_bytes(b"mine")
    path.symlink_to(target)


KINDS = {kind.__name__: kind for kind in (as_pipe, as_device, as_folder, as_dangling, as_link)}
FAST = {("predict", "as_pipe"), ("fetch_models", "as_link"), ("train", "as_dangling")}


@dataclass(frozen=True)
class Finished:
    """A folder in which a command was run, and the command for a copy of it."""

    top: Path
    command: Callable[[Path], list[str]]

    def names(self) -> list[Path]:
        """Files of the folder: of those that differ only by a number, the first."""
        files = (path.relative_to(self.top) for path in sorted(self.top.rglob("*")) if path.is_file())
        return list({re.sub(r"\d+", "0", str(path)): path for path in reversed(list(files))}.values())


@pytest.fixture(scope="session")
def model_comparison(train: Scenario, tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    """``nucpro compare`` of a model with itself."""
    start = copied(train.start, tmp_path_factory.mktemp("trained") / "data")
    assert train.repeat(start) == 0
    copied(start / "model", start / "other")
    models = ("model", "other")
    return Scenario(
        start, lambda data: ["compare", *(str(data / name) for name in models), "--device", "cpu"]
    )


@pytest.fixture(scope="session")
def finished(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Finished]:
    return cache(lambda name: _finish(request.getfixturevalue(name), tmp_path_factory.mktemp(name)))


def _finish(scenario: Scenario, top: Path) -> Finished:
    data = copied(scenario.start, top / "data")
    words = scenario.command(data)
    models = {
        words[place + 1]: words[place]
        for place, word in enumerate(words[:-1])
        if word in MODELS and Path(words[place + 1]).is_dir()
    }
    for folder, option in models.items():
        copied(Path(folder), top / option.strip("-") / Path(folder).name)

    def command(new: Path) -> list[str]:
        return [
            str(new / models[word].strip("-") / Path(word).name) if word in models else word
            for word in scenario.command(new / "data")
        ]

    assert main(command(top)) == 0
    return Finished(top, command)


def contents(top: Path) -> dict[Path, bytes | None]:
    """What is there by relative path; of what is no regular file the name alone."""
    return {
        path.relative_to(top): path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in top.rglob("*")
        if not path.is_dir()
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", COMMANDS)
def test_no_odd_file_makes_a_command_hang_fall_or_spoil_another(
    name: str,
    kind: str,
    whole: bool,
    finished: Callable[[str], Finished],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if not whole and (name, kind) not in FAST:
        pytest.skip(WHOLE)
    done = finished(name)
    problems = []
    for number, odd in enumerate(done.names()):
        if kind == "as_pipe" and str(done.top / odd) in done.command(done.top):
            continue  # an input that may be a pipe: waiting for its writer is right
        top = tmp_path / str(number)
        shutil.copytree(done.top, top, symlinks=True)
        (top / odd).unlink()
        KINDS[kind](top / odd)
        before = contents(top)
        capsys.readouterr()
        with within(60):
            code = main(done.command(top))
        told = capsys.readouterr().err
        if code not in (0, 1, 2, 3) or "Traceback" in told or "report it" in told:
            problems.append(f"{odd}: code {code}: {told}")
        # Files of the user's own may be read, and are not what they should be for many reasons.
        if code != 0 and kind != "as_link" and odd.name not in told and str(odd.parent) not in told:
            problems.append(f"{odd} is not named: {told}")
        after = contents(top)
        # An export that begins removes what says that it is complete, a report the figures that it cannot draw.
        kept = (path for path in before if not path.name.startswith("_") and path.parent.name != "report")
        lost = [str(path) for path in kept if not os.path.lexists(top / path)]
        if lost or after.get((odd.parent / "own"), b"mine") != b"mine":
            problems.append(f"{odd}: lost {lost}")
        shutil.rmtree(top)
    assert problems == [], "\n".join(problems)


EACH_UNREADABLE = """
import json, sys
from pathlib import Path
from nucpro.cli import main
for path, arguments in json.load(sys.stdin):
    mode = Path(path).stat().st_mode
    Path(path).chmod(0)
    print("TRIED", path, file=sys.stderr, flush=True)
    print("CODE", main(arguments), file=sys.stderr, flush=True)
    if Path(path).exists():
        Path(path).chmod(mode)
"""
WITHOUT_RIGHTS = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--"]


@as_root
@pytest.mark.parametrize("name", COMMANDS)
def test_no_unreadable_file_makes_a_command_fall(
    name: str, whole: bool, finished: Callable[[str], Finished], tmp_path: Path
) -> None:
    """Root without the right to override permissions is as any other user."""
    if not whole:
        pytest.skip(WHOLE)
    done = finished(name)
    tries = []
    for number, odd in enumerate(done.names()):
        top = Path(shutil.copytree(done.top, tmp_path / str(number), symlinks=True))
        tries.append((str(top / odd), done.command(top)))
    command = [*WITHOUT_RIGHTS, sys.executable, "-c", EACH_UNREADABLE]
    run = subprocess.run(command, input=json.dumps(tries), capture_output=True, text=True, check=False)
    told = run.stderr.split("TRIED ")[1:]
    assert len(told) == len(tries), run.stderr
    for (path, _), text in zip(tries, told, strict=True):
        assert "Traceback" not in text, text
        assert "report it" not in text, text
        code = text.rpartition("CODE ")[2].strip()
        assert code in ("0", "1", "2", "3"), text
        assert code == "0" or text.count(Path(path).name) > 1 or text.count(str(Path(path).parent)) > 1, text
