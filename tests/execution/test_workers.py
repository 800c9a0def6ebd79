"""Worker processes: results, errors and violent ends come back in words."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from folders import no_more_files
from nucpro.errors import FastaError, WorkerError
from nucpro.execution import engine
from nucpro.execution.workers import Background, Workers, starting_problems


def double(number: int) -> int:
    return 2 * number


def fail(number: int) -> int:
    raise FastaError(f"record {number}")


def die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def process_id(_: int) -> int:
    return os.getpid()


def test_few_calls_are_made_right_here_and_many_in_processes() -> None:
    with Workers(2) as workers:
        assert set(workers.map(process_id, range(3))) == {os.getpid()}
        others = set(workers.map(process_id, range(20)))
        assert os.getpid() not in others
        assert sorted(workers.map(double, range(50))) == [2 * number for number in range(50)]


def test_an_error_of_a_call_comes_back_as_it_is() -> None:
    with pytest.raises(FastaError, match="record 0"), Workers(1) as workers:
        list(workers.map(fail, range(20)))


def test_a_killed_worker_is_reported_in_words() -> None:
    with Workers(1) as workers:
        background = Background(workers)
        background.add(die, (1,), print)
        with pytest.raises(WorkerError, match=r"a worker process was killed.*finished work is kept"):
            background.drain()


UNGUARDED = """
import sys
from pathlib import Path
from nucpro.genomes.dataset import build
from nucpro.genomes.options import DatasetOptions
from nucpro.execution.workers import Workers

print("once")
with Workers(2) as workers:
    assert sorted(workers.map(abs, range(-20, 0))) == list(range(1, 21))
build(Path(sys.argv[1]), DatasetOptions(length=300, workers=2))
"""


@pytest.mark.parametrize("source", ["file", "standard input", "option", "module"])
def test_a_script_needs_no_guard(tmp_path: Path, source: str) -> None:
    """Scripts are top-level code: a worker that imports them again would start their work again."""
    script = tmp_path / "unguarded.py"
    script.write_text(UNGUARDED)
    data = tmp_path / "data"
    data.mkdir()
    for genome in (Path(__file__).resolve().parents[2] / "demo" / "genomes").glob("viral*"):
        (data / genome.name).write_bytes(genome.read_bytes())
    program = {
        "file": [str(script)],
        "standard input": ["-"],
        "option": ["-c", UNGUARDED],
        "module": ["-m", "unguarded"],
    }[source]
    done = subprocess.run(
        [sys.executable, *program, str(data)],
        cwd=tmp_path,
        input=UNGUARDED,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "once\n"), done.stderr
    assert (data / "viral.1.1.identified_protein.fa").exists()


def test_other_processes_of_a_script_start_as_ever(tmp_path: Path) -> None:
    """A program's own processes still find the functions that it defines, after workers were started."""
    script = tmp_path / "guarded.py"
    script.write_text("""
import multiprocessing
from nucpro.execution.workers import Workers

def shout():
    print("found", flush=True)

if __name__ == "__main__":
    with Workers(1) as workers:
        workers.submit(abs, -1).result()
        process = multiprocessing.get_context("spawn").Process(target=shout)
        process.start()
        process.join()
""")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.stdout == "found\n", done.stderr


FEW_FILES = "Too many open files; raise the limit of open files (ulimit -n), then run again"
FEW_PROCESSES = "Resource temporarily unavailable; raise the limit of processes (ulimit -u), then run again"


def test_too_few_files_or_processes_for_workers_are_told_with_the_limit_to_raise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*_: object) -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    with no_more_files():
        assert starting_problems() == [f"no worker process can be started: {FEW_FILES}"]
        with pytest.raises(WorkerError, match=re.escape(FEW_FILES)), Workers(1) as workers:
            workers.submit(abs, -3)
    monkeypatch.setattr("multiprocessing.util.spawnv_passfds", refused)
    with pytest.raises(WorkerError, match=re.escape(FEW_PROCESSES)), Workers(1) as workers:
        workers.submit(abs, -3)


def test_too_few_threads_for_workers_are_told_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("concurrent.futures.process._ExecutorManagerThread.start", refused)
    with pytest.raises(RuntimeError, match="can't start new thread"), Workers(1) as workers:
        workers.submit(abs, -3)


POOLED = """
from nucpro.execution.workers import Workers
with Workers(1) as workers:
    print(workers.submit(abs, -3).result())
"""


def test_files_of_the_working_folder_are_no_modules_of_workers(tmp_path: Path) -> None:
    """Neither of workers nor of the process that removes their semaphores."""
    program, here = tmp_path / "program" / "start.py", tmp_path / "here"
    program.parent.mkdir()
    here.mkdir()
    program.write_text(POOLED)
    for name in ("multiprocessing", "pickle", "random", "signal"):
        (here / f"{name}.py").write_text("raise SystemExit('ran a file of the working folder')")
    done = subprocess.run(
        [sys.executable, str(program)], cwd=here, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "")


def test_a_fault_beside_is_reported_while_a_unit_is_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_SECONDS_BETWEEN_LOOKS", 1e-3)
    told = threading.Event()

    def meanwhile() -> None:
        told.set()
        raise FastaError("beside")

    with pytest.raises(FastaError, match="beside"):
        list(engine.in_order(range(5), lambda _: told.wait(), meanwhile))


def test_background_results_arrive_and_first_goes_first() -> None:
    seen: list[int] = []
    with Workers(1) as workers:
        background = Background(workers)
        for number in range(8):
            background.add(double, (number,), seen.append)
        background.add(double, (100,), seen.append, first=True)
        background.drain()
    assert sorted(seen) == sorted([200, *(2 * number for number in range(8))])
    assert seen.index(200) < len(seen) - 1


def test_a_folder_that_cannot_be_read_is_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nucpro.errors import PreflightError
    from nucpro.folder.paths import DataFolder

    (tmp_path / "secret").mkdir()
    scandir = os.scandir

    def refusing(path: str):
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(PreflightError, match=r"secret: cannot be read \(Permission denied\)"):
        DataFolder(tmp_path).walk_sources()


AT_WORK = """
import sys, time
from nucpro.execution.workers import Workers
with Workers(1) as workers:
    workers.submit(abs, 1).result()
    print("at work", flush=True)
    sys.stdin.read()
"""


def semaphores(process: int) -> list[str]:
    return [path.name for path in Path("/dev/shm").glob(f"sem.*-{process}-*")]


def test_semaphores_of_a_killed_group_are_removed_by_the_next_run() -> None:
    command = [sys.executable, "-c", AT_WORK]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    killed, living = (subprocess.Popen(command, start_new_session=True, **pipes) for _ in range(2))
    for process in (killed, living):
        assert process.stdout is not None
        assert process.stdout.readline() == b"at work\n"
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert semaphores(killed.pid)
    with Workers(1) as workers:
        workers.submit(abs, 1).result()
        assert semaphores(killed.pid) == []
        assert semaphores(living.pid)
        assert semaphores(os.getpid())
    living.communicate()
    assert living.returncode == 0
    assert semaphores(living.pid) == semaphores(os.getpid()) == []


READ_ONLY = "mount -t tmpfs -o ro none /dev/shm && exec "
MOUNTS = subprocess.run(
    ["unshare", "-m", "sh", "-c", f"{READ_ONLY} true"], check=False, capture_output=True
).returncode


@pytest.mark.skipif(MOUNTS != 0, reason="needs the right to mount")
def test_shared_memory_that_cannot_be_written_is_named() -> None:
    code = "from nucpro.execution.workers import *; print(starting_problems()[0]); Workers(2).submit(print)"
    command = f"{READ_ONLY} {sys.executable} -c '{code}'"
    done = subprocess.run(["unshare", "-m", "sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.stdout.startswith(
        "shared memory (/dev/shm) cannot be used: Read-only file system; but worker processes need it"
    )
    assert "nucpro.errors.WorkerError: shared memory (/dev/shm) cannot be used" in done.stderr
    doctor = f"{READ_ONLY} {sys.executable} -m nucpro doctor --device cpu"
    said = subprocess.run(["unshare", "-m", "sh", "-c", doctor], capture_output=True, text=True, check=False)
    assert "Workers" in said.stdout
    assert "shared memory (/dev/shm) cannot be used" in said.stdout


def test_shared_memory_here_can_be_used() -> None:
    assert starting_problems() == []


INTERRUPTED_START = """
import os, signal, sys
from nucpro.execution.workers import Workers

def strike(event, arguments):
    if event == "open" and str(arguments[0]).endswith("oom_score_adj"):
        os.kill(os.getpid(), signal.SIGINT)

sys.addaudithook(strike)
try:
    with Workers(1) as workers:
        workers.submit(int).result()
except KeyboardInterrupt:
    os._exit(7)
"""


def test_a_worker_that_is_interrupted_while_it_starts_says_nothing() -> None:
    result = subprocess.run([sys.executable, "-c", INTERRUPTED_START], capture_output=True, check=False)
    assert (result.returncode, result.stderr) == (7, b"")
