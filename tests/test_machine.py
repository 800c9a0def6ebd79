"""Cores and memory that a process may use, from files as the kernel shows them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nucpro.execution.workers import MOST_WORKERS, Workers
from nucpro.genomes.options import DatasetOptions
from nucpro.machine import cores, free_memory

HERE = len(os.sched_getaffinity(0))


def machine(root: Path, own: str, files: dict[str, str]) -> tuple[Path, Path]:
    """A process and its control groups, as folders."""
    (root / "proc").mkdir()
    (root / "proc" / "cgroup").write_text(own)
    for name, text in files.items():
        path = root / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root / "proc", root / "groups"


MACHINES = [
    ("0::/\n", {"cpu.max": "100000 100000\n"}, 1),
    ("0::/\n", {"cpu.max": "150000 100000\n"}, 1),
    ("0::/\n", {"cpu.max": "10000 100000\n"}, 1),
    ("0::/\n", {"cpu.max": "max 100000\n"}, HERE),
    ("0::/\n", {}, HERE),
    ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "100000 100000\n"}, 1),
    ("0::/a/b\n", {"a/b/cpu.max": "100000 100000\n", "a/cpu.max": "max 100000\n"}, 1),
    ("0::/docker/0123\n", {"cpu.max": "100000 100000\n"}, 1),
    ("0::/../../a\n", {"cpu.max": "100000 100000\n"}, 1),
    (
        "4:cpu,cpuacct:/slurm/job_1\n3:memory:/\n",
        {
            "cpu,cpuacct/slurm/job_1/cpu.cfs_quota_us": "100000",
            "cpu,cpuacct/slurm/job_1/cpu.cfs_period_us": "100000",
        },
        1,
    ),
    ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 1),
    ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, HERE),
    ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "100000"}, HERE),
    ("junk", {"cpu.max": "100000 100000\n"}, HERE),
    ("0::/\n", {"cpu.max": "junk"}, HERE),
    ("0::/\n", {"cpu.max": "0 0"}, HERE),
    ("0::/\n", {"cpu.max": "99900000 100000\n"}, HERE),
]


@pytest.mark.parametrize(("own", "files", "expected"), MACHINES)
def test_a_share_of_control_groups_counts(
    tmp_path: Path, own: str, files: dict[str, str], expected: int
) -> None:
    assert cores(*machine(tmp_path, own, files)) == expected


def test_without_proc_the_bound_cores_count(tmp_path: Path) -> None:
    assert cores(tmp_path / "no", tmp_path / "no") == HERE
    assert free_memory(tmp_path / "no", tmp_path / "no", tmp_path / "no") is None


V1, V2 = "5:memory:/a\n", "0::/a/b\n"
HALF_CACHED = "anon 10\ninactive_file 300\nactive_file 200\n"
OF_ALL = "inactive_file 1\nactive_file 1\ntotal_inactive_file 300\ntotal_active_file 200\n"


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        (V2, {"a/b/memory.max": "max", "memory.max": "4096\n"}, 4096),
        (V2, {"a/b/memory.max": "1024", "a/memory.max": "2048", "memory.max": "4096\n"}, 1024),
        (V2, {"a/b/memory.max": "4096", "a/memory.max": "2048", "a/memory.current": "1500"}, 548),
        (V2, {"a/memory.max": "2048", "a/memory.current": "1500", "a/memory.stat": HALF_CACHED}, 1048),
        (V2, {"a/memory.max": "2048", "a/memory.current": "3000"}, 0),
        (V2, {"a/memory.max": "2048", "a/memory.current": "junk", "a/memory.stat": "junk\n\n"}, 2048),
        (V1, {"memory/a/memory.limit_in_bytes": "2048"}, 2048),
        (V1, {"memory/a/memory.limit_in_bytes": "2048", "memory/a/memory.usage_in_bytes": "48"}, 2000),
        (
            V1,
            {
                "memory/a/memory.limit_in_bytes": "2048",
                "memory/a/memory.usage_in_bytes": "1500",
                "memory/a/memory.stat": OF_ALL,
            },
            1048,
        ),
        (V1, {"memory/a/memory.limit_in_bytes": str(2**63 - 4096)}, 8192),
        ("0::/\n", {}, 8192),
    ],
)
def test_what_the_narrowest_control_group_leaves_is_free(
    tmp_path: Path, own: str, files: dict[str, str], expected: int
) -> None:
    system = tmp_path / "meminfo"
    system.write_text("MemTotal: 16 kB\nMemAvailable: 8 kB\n")
    assert free_memory(*machine(tmp_path, own, files), system) == expected


BOUND = """
import os, torch
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from nucpro.genomes.options import DatasetOptions
from nucpro.embedding.device import choose_device
from nucpro.execution.workers import Workers
choose_device("cpu")
print(Workers().count, DatasetOptions().workers, torch.get_num_threads())
"""


def test_one_bound_core_means_one_worker_and_one_thread() -> None:
    done = subprocess.run([sys.executable, "-c", BOUND], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1", "1"]


def test_workers_are_as_many_as_the_cores() -> None:
    assert DatasetOptions().workers == cores()
    assert Workers().count == min(MOST_WORKERS, cores())
    assert Workers(3).count == 3


def priority_of_ending() -> str:
    return Path("/proc/self/oom_score_adj").read_text().strip()


def test_where_memory_runs_out_the_system_ends_a_worker_first() -> None:
    """The run can tell of a killed worker, but not of its own end."""
    with Workers(1) as workers:
        workers.submit(os.getpid).result()
        assert workers.submit(priority_of_ending).result() == "1000"
    assert priority_of_ending() != "1000"
