"""A container or a batch job may use fewer processors than its machine has."""

from __future__ import annotations

import os

import pytest

from nucpro.processors import processors_allowed

AFFINITY = len(os.sched_getaffinity(0))


@pytest.fixture
def system(tmp_path, monkeypatch):
    """Control groups in a folder, and a process that may run on eight processors."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))

    def make(own, **files):
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            file = tmp_path / "groups" / name.replace("__", "/").replace("max", "cpu.max")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return processors_allowed(tmp_path / "own", tmp_path / "groups")

    return make


def test_here_they_are_those_of_the_affinity_or_fewer():
    assert 1 <= processors_allowed() <= AFFINITY


@pytest.mark.parametrize(
    ("quota", "allowed"),
    [("max 100000\n", 8), ("400000 100000\n", 4), ("150000 100000\n", 2), ("10000 100000\n", 1), ("", 8)],
)
def test_a_quota_of_a_container_counts(system, quota, allowed):
    assert system("0::/\n", max=quota) == allowed


def test_the_tightest_quota_above_a_process_counts(system):
    assert system("0::/job/step\n", job__step__max="max 100000", job__max="300000 100000") == 3


def test_a_group_that_is_called_otherwise_inside_a_container_is_no_error(system):
    assert system("0::/../../elsewhere\n", max="200000 100000") == 2


def test_first_version_of_control_groups(system, tmp_path):
    group = tmp_path / "groups" / "cpu" / "job"
    group.mkdir(parents=True)
    (group / "cpu.cfs_quota_us").write_text("500000\n")
    (group / "cpu.cfs_period_us").write_text("100000\n")
    assert system("5:cpu,cpuacct:/job\n3:memory:/job\n") == 5
    (group / "cpu.cfs_quota_us").write_text("-1\n")
    assert system("5:cpu,cpuacct:/job\n") == 8


def test_without_control_groups_the_affinity_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 5, 7})
    assert processors_allowed(tmp_path / "none", tmp_path) == 3
