"""The release workflow: every action pinned, the versions of Python that are declared, and what it runs."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

WORKFLOWS = sorted((Path(__file__).resolve().parents[2] / ".github" / "workflows").glob("*.yml"))
_PINNED = re.compile(r"uses: [\w./-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_is_pinned_by_digest_with_its_version(path: Path) -> None:
    lines = [line.strip().removeprefix("- ") for line in path.read_text().splitlines() if "uses:" in line]
    assert lines
    assert [line for line in lines if not _PINNED.fullmatch(line)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_has_no_rights_but_those_that_a_job_names(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] in ({}, {"contents": "read"})
    for job in workflow["jobs"].values():
        assert "write-all" not in str(job.get("permissions", {}))


def test_workflows_have_no_known_weak_places(root: Path) -> None:
    command = [Path(sys.executable).with_name("zizmor"), "--offline", "--no-progress", root / ".github"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_wheel_is_tested_with_every_version_and_extra(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    matrix = yaml.safe_load((root / ".github/workflows/release.yml").read_text())["jobs"]["test"]["strategy"][
        "matrix"
    ]
    declared = {c.rpartition(" ")[2] for c in project["classifiers"] if re.search(r"Python :: 3\.\d+$", c)}
    assert set(matrix["python"]) == declared
    users = project["optional-dependencies"].keys() - {"dev", "docs"}
    assert {extra.strip("[]") for extra in matrix["extra"]} == {"", *users}


def test_what_the_release_tries_works_with_what_pip_installed(
    installed: Mapping[str, str], root: Path
) -> None:
    script = root / "tests" / "packaging" / "installed.py"
    command = ["python", str(script)]
    done = subprocess.run(command, env=dict(installed), cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 vectors of width 16" in done.stderr
