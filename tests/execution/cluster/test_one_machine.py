"""A cluster of this machine alone: quiet, closed to others, and gone with its driver, however that ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from folders import arguments, contents, copied, leftovers
from nucpro.cli import main
from nucpro.errors import UsageError
from nucpro.execution.ray.session import _private_folder
from nucpro.options import Options

NOT_BEYOND = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
"""Loopback addresses as the kernel lists them."""


NOBODY = "127.0.0.1:1"


def started(data: Path, model: Path) -> subprocess.Popen[str]:
    """Start a run on this machine, whose user has a cluster of his own, which does not answer."""
    command = [sys.executable, "-m", "nucpro", "extract", *arguments(data, model, "--engine", "ray")]
    theirs = data.parent / "theirs" / "ray"
    theirs.mkdir(parents=True)
    (theirs / "ray_current_cluster").write_text(NOBODY)
    settings = {"RAY_ADDRESS": NOBODY, "RAY_REDIS_ADDRESS": NOBODY, "RAY_TMPDIR": str(theirs.parent)}
    marked = {**os.environ, **settings, "STARTED_FOR": str(data)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=marked)


def until_the_first_file(run: subprocess.Popen[str]) -> None:
    """Read what a run says until it has made a file."""
    assert run.stdout is not None
    said = []
    for line in run.stdout:
        said.append(line)
        if line.startswith("[1/6] Extracted"):
            assert any(before.startswith("Started Ray") for before in said)
            return
    assert run.stderr is not None
    pytest.fail("".join([*said, *run.stderr]))


class Process(NamedTuple):
    """A process when it was looked at; it may have ended since."""

    folder: Path
    environment: bytes
    command: str


def processes_of(data: Path) -> list[Process]:
    """Processes that inherited the mark of a run and are alive."""
    mark = f"STARTED_FOR={data}\0".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with suppress(OSError):  # it ended meanwhile, or belongs to somebody else
                environment = (folder / "environ").read_bytes()
                if mark in environment:
                    found.append(Process(folder, environment, (folder / "cmdline").read_text()))
    return found


def number_of(program: str, data: Path) -> int:
    """Number of the process of a run that runs a program."""
    for process in processes_of(data):
        if Path(process.command.partition("\0")[0]).name == program:
            return int(process.folder.name)
    raise AssertionError(f"{program} does not run")


def folders_of(data: Path) -> set[Path]:
    """Folders for Ray's sockets that the processes of a run were told."""
    return {
        Path(found)
        for process in processes_of(data)
        for found in re.findall(r"/[^\0=]*/nucpro-ray-\w+", process.command)
    }


def listening(processes: Iterable[Process]) -> set[str]:
    """Addresses that processes listen on."""
    sockets = set()
    for process in processes:
        try:
            sockets |= {str(entry.readlink()) for entry in (process.folder / "fd").iterdir()}
        except OSError:
            continue
    rows = [
        line.split()
        for kind in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{kind}").read_text().splitlines()
    ]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets}


def test_a_killed_driver_takes_its_cluster_along_and_the_next_run_resumes(
    data: Path, model: Path, pristine: Path, tmp_path: Path
) -> None:
    run = started(data, model)
    until_the_first_file(run)
    addresses = listening(processes_of(data))
    assert addresses, "Ray listens somewhere"
    assert addresses <= NOT_BEYOND
    tokens = [b"\0RAY_AUTH_MODE=token\0" in process.environment for process in processes_of(data)]
    assert any(tokens), "other users need the token"
    folders = folders_of(data)
    run.kill()
    run.communicate()
    # Processes end when the system tells them that the driver is gone; each look gives them time for it.
    looks = (processes_of(data) for _ in range(50_000))
    assert next((found for found in looks if not found), None) == []
    assert folders
    with _private_folder():  # as the next run does it
        assert not [folder for folder in folders if folder.exists()]
    done = contents(data)
    assert main(["extract", *arguments(data, model)]) == 0
    fresh = copied(pristine, tmp_path / "fresh")
    assert main(["extract", *arguments(fresh, model)]) == 0
    assert contents(data) == contents(fresh)
    assert leftovers(data) == []
    assert any(done.get(name) == content for name, content in contents(fresh).items() if "_ESM" in name)


@pytest.mark.parametrize("process", ["gcs_server", "raylet"])
def test_a_cluster_that_loses_its_head_ends_the_run_in_words(
    process: str, request: pytest.FixtureRequest, data: Path, model: Path
) -> None:
    if process == "raylet" and request.config.getoption("--faults") != "all":
        pytest.skip("only in `make faults`, or with --faults=all")
    run = started(data, model)
    until_the_first_file(run)
    folders = folders_of(data)
    os.kill(number_of(process, data), signal.SIGKILL)
    _, errors = run.communicate()
    assert run.returncode == 1, errors
    # A library of Ray writes lines of its own log there when it has waited for a minute.
    said = re.sub(r"(Warning:|\[\d{4}-\d\d-\d\d ).*\n", "", errors).strip()
    assert said.startswith(
        f"Ray's process {process} ended (SIGKILL), and the cluster of this machine with it"
    )
    assert said.endswith("Run the same command again: finished work is kept")
    looks = (processes_of(data) for _ in range(50_000))
    assert next((found for found in looks if not found), None) == []
    assert folders
    assert not [folder for folder in folders if folder.exists()]
    assert main(["extract", *arguments(data, model)]) == 0
    assert leftovers(data) == []


WAITING = """
import logging, os, signal, threading
import ray
from nucpro.execution.ray import session as sessions
from nucpro.options import ModelOptions

logging.basicConfig(format="%(message)s")
sessions._SECONDS_TO_CLOSE = 0.5
session = sessions.Session(ModelOptions(device="cpu"))
session.start()
print(ray._private.worker._global_node._ray_params.temp_dir, flush=True)
os.kill(session._processes["gcs_server"].pid, signal.SIGKILL)
threading.Event().wait()
"""


def test_a_lost_cluster_ends_a_process_that_waits_for_it(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", WAITING],
        env={**os.environ, "STARTED_FOR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("Ray's process gcs_server ended (SIGKILL)")
    looks = (processes_of(tmp_path) for _ in range(50_000))
    assert next((found for found in looks if not found), None) == []
    folder = Path(ended.stdout.strip()).parent
    assert folder.name.startswith("nucpro-ray-")
    assert not folder.exists()


def test_two_runs_at_once_have_a_cluster_each(
    data: Path, model: Path, pristine: Path, tmp_path: Path
) -> None:
    folders = [data, copied(pristine, tmp_path / "second" / "data")]
    runs = [started(folder, model) for folder in folders]
    for run in runs:
        _, errors = run.communicate()
        assert run.returncode == 0, errors
    alone = copied(pristine, tmp_path / "alone")
    assert main(["extract", *arguments(alone, model)]) == 0
    assert [contents(folder) for folder in folders] == [contents(alone)] * 2


TIGHT = (
    "mount -t tmpfs -o size={size} none /tmp && mount --bind /tmp /var/tmp && exec {python} -m nucpro {words}"
)
MAY_MOUNT = (
    subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], check=False).returncode == 0
)


@pytest.mark.skipif(not MAY_MOUNT, reason="needs the right to mount")
@pytest.mark.parametrize("size", ["4k", "64k", "256k", "1m"])
def test_too_little_space_for_temporary_files_is_reported(
    size: str, request: pytest.FixtureRequest, data: Path, model: Path
) -> None:
    if size != "64k" and request.config.getoption("--faults") != "all":
        pytest.skip("only in `make faults`, or with --faults=all")
    words = " ".join(["extract", *arguments(data, model, "--engine", "ray")])
    command = TIGHT.format(size=size, python=sys.executable, words=words)
    run = subprocess.run(["unshare", "-m", "sh", "-c", command], capture_output=True, text=True, check=False)
    assert run.returncode in (0, 1, 3)
    assert "Traceback" not in run.stderr
    assert "report it" not in run.stderr
    assert main(["extract", *arguments(data, model)]) == 0
    assert leftovers(data) == []


def test_an_interrupt_ends_with_one_line_and_leaves_no_process_or_folder(data: Path, model: Path) -> None:
    run = started(data, model)
    until_the_first_file(run)
    folders = folders_of(data)
    assert folders
    run.send_signal(signal.SIGTERM)
    _, errors = run.communicate()
    assert run.returncode == 143
    assert errors.strip().splitlines()[-1].startswith("Interrupted. Finished work is kept")
    assert re.sub(r"Warning:.*\n", "", errors).strip().count("\n") == 0
    assert processes_of(data) == []
    assert not [folder for folder in folders if folder.exists()]


def test_without_the_extra_the_error_names_it(
    data: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["extract", *arguments(data, model, "--engine", "ray")]) == 2
    assert "install the extra: pip install 'nucpro[ray]'" in capsys.readouterr().err


def test_the_local_engine_never_imports_ray(data: Path, model: Path) -> None:
    program = (
        "import sys\nfrom nucpro.cli import main\n"
        f"assert main({['extract', *arguments(data, model)]!r}) == 0\nassert 'ray' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"engine": "spark"}, "--engine is spark; allowed: local or ray"),
        ({"address": "auto"}, "--address is auto; allowed: only with --engine ray"),
        (
            {"engine": "ray", "address": "ray://head:10001"},
            "--address is ray://head:10001; allowed: auto, or HOST:PORT of the cluster's head",
        ),
        ({"workers": 2}, "--workers is 2; allowed: only with --engine ray"),
        ({"engine": "ray", "workers": 0}, "--workers is 0; allowed: 1 or more"),
        (
            {"engine": "ray", "device": "cuda:1"},
            "--device is cuda:1; allowed: auto, cuda or cpu with --engine ray",
        ),
        (
            {"engine": "ray", "gpus_per_worker": 1.5},
            "--gpus-per-worker is 1.5; allowed: a number above 0: a part of 1, or a whole number",
        ),
        (
            {"engine": "ray", "cpus_per_worker": 0.0},
            "--cpus-per-worker is 0.0; allowed: a number above 0: a part of 1, or a whole number",
        ),
    ],
)
def test_options_that_make_no_sense_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Options.of(values)
    assert str(caught.value) == message
