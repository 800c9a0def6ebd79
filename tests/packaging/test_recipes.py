"""The recipes: SLURM scripts run with stand-ins for SLURM's programs; the conda recipe is compared with the package."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import jinja2
import pytest
import torch
import yaml

from folders import arguments, copied

IN_CONDA = {"torch": "pytorch"}
"""Names of packages on conda-forge and bioconda, where they are others than for pip."""


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """Variables of a task of an array; ``srun`` runs here, ``scontrol`` writes down what it is asked for."""
    programs = tmp_path / "slurm"
    programs.mkdir()
    srun = 'while [ "${1#--}" != "$1" ]; do shift; done\nexec "$@"'
    scontrol = f'echo "$@" >> "{programs / "asked.txt"}"'
    for name, text in (("srun", srun), ("scontrol", scontrol)):
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    here = Path(sys.executable).parent
    task = {
        "SLURM_ARRAY_TASK_ID": "2",
        "SLURM_ARRAY_JOB_ID": "77",
        "SLURM_JOB_ID": "79",
        "SLURM_CPUS_ON_NODE": "1",
    }
    return {**os.environ, **task, "PATH": f"{programs}:{here}:{os.environ['PATH']}"}


def submit(variables: Mapping[str, str], script: Path, *words: object) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(script), *map(str, words)]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)


def test_a_task_runs_the_job_on_its_own_data_folder(
    slurm: dict[str, str], root: Path, pristine: Path, model: Path, tmp_path: Path
) -> None:
    folders = [copied(pristine, tmp_path / name) for name in ("one", "number two")]
    (tmp_path / "folders.txt").write_text("".join(f"{folder}\n" for folder in folders))
    options = arguments(folders[1], model)[2:]
    script = root / "recipes" / "slurm" / "extract-array.sh"
    done = submit(slurm, script, tmp_path / "folders.txt", *options, "--no-report")
    assert done.returncode == 0, done.stderr
    assert "Validation passed: 6 files" in done.stdout
    assert not any((folders[0] / "data_merge").rglob("output_1_merged.pt"))


@pytest.mark.parametrize(
    ("script", "words", "asked"),
    [("extract-array.sh", ["LIST"], "requeue 77_2"), ("extract-ray.sh", ["data"], "requeue 79")],
)
def test_a_task_that_is_out_of_time_goes_back_into_the_queue(
    slurm: dict[str, str], root: Path, tmp_path: Path, script: str, words: list[str], asked: str
) -> None:
    (tmp_path / "list.txt").write_text("one\ntwo\n")
    (tmp_path / "slurm" / "srun").write_text("#!/bin/sh\nexit 143\n")
    told = [tmp_path / "list.txt" if word == "LIST" else word for word in words]
    assert submit(slurm, root / "recipes" / "slurm" / script, *told).returncode == 0
    assert (tmp_path / "slurm" / "asked.txt").read_text() == f"{asked}\n"


def test_a_task_that_fails_does_not_go_back_into_the_queue(
    slurm: dict[str, str], root: Path, tmp_path: Path
) -> None:
    (tmp_path / "list.txt").write_text("one\n/nowhere\n")
    done = submit(
        slurm, root / "recipes" / "slurm" / "extract-array.sh", tmp_path / "list.txt", "--device", "cpu"
    )
    assert done.returncode == 3
    assert "/nowhere: no such folder" in done.stderr
    assert not (tmp_path / "slurm" / "asked.txt").exists()


@pytest.mark.parametrize("script", ["extract-array.sh", "embed-array.sh"])
def test_a_task_without_a_line_says_so(
    slurm: dict[str, str], root: Path, tmp_path: Path, script: str
) -> None:
    (tmp_path / "list.txt").write_text("only one\n")
    done = submit(slurm, root / "recipes" / "slurm" / script, tmp_path / "list.txt", tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"{tmp_path / 'list.txt'} has no line 2\n"


def test_a_task_embeds_its_own_file_once(
    slurm: dict[str, str], root: Path, pristine: Path, model: Path, tmp_path: Path
) -> None:
    fasta = pristine / "bacteria.1.1.identified_protein.fa"
    (tmp_path / "files.txt").write_text(f"elsewhere.fa\n{fasta}\n")
    words = [tmp_path / "files.txt", tmp_path / "vectors", "--protein-model", model, "--device", "cpu"]
    done = submit(slurm, root / "recipes" / "slurm" / "embed-array.sh", *words)
    assert done.returncode == 0, done.stderr
    output = tmp_path / "vectors" / f"2.{fasta.name}.pt"
    assert len(torch.load(output, weights_only=True)["proteins"]) == 9
    again = submit(slurm, root / "recipes" / "slurm" / "embed-array.sh", *words)
    assert again.stdout == f"{output} is there already\n"


def lower_bounds(requirements: list[str]) -> dict[str, str]:
    """Smallest version of each requirement, by its name for conda; pre-releases have other names there."""
    found = {}
    for requirement in requirements:
        name, bound = re.split(r"\s*>=", requirement)
        found[IN_CONDA.get(name, name)] = re.sub(r"\.0a0$", "", bound)
    return found


def test_the_conda_recipe_needs_what_the_package_needs(root: Path) -> None:
    text = (root / "recipes" / "conda" / "meta.yaml").read_text()
    environ = {"SETUPTOOLS_SCM_PRETEND_VERSION": "7.8.9"}
    recipe = yaml.safe_load(jinja2.Template(text).render(environ=environ, PYTHON="python"))
    project = tomllib.loads((root / "pyproject.toml").read_text())
    python = {"python": project["project"]["requires-python"].removeprefix(">=")}
    needs = lower_bounds(project["project"]["dependencies"])
    assert lower_bounds(recipe["requirements"]["run"]) == needs | python
    host = lower_bounds([line for line in recipe["requirements"]["host"] if ">=" in line])
    assert host == lower_bounds(project["build-system"]["requires"]) | python
    assert recipe["package"] == {"name": "nucpro", "version": "7.8.9"}
    assert recipe["build"]["entry_points"] == [f"nucpro = {project['project']['scripts']['nucpro']}"]
