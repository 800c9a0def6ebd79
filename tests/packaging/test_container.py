"""The container files: what can be done without a Docker engine is done, the rest is compared with its schema."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from dockerfile import Build, copied_paths, instructions
from environments import assert_valid, make_environment

from folders import arguments, copied


@pytest.fixture(scope="module")
def image(root: Path, dependencies: Path, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """The Dockerfile, followed in a clean folder over a base that has torch."""
    folder = tmp_path_factory.mktemp("image")
    base = make_environment(folder / "usr", dependencies)
    build = Build(root, folder, base | {"VERSION": "7.8.9"})
    build.run(root / "Dockerfile")
    return build


def test_the_torch_of_the_base_is_kept(image: Build, root: Path) -> None:
    constraints = (image.root / "opt" / "nucpro" / "constraints.txt").read_text()
    assert constraints == f"torch=={version('torch')}\n"
    (install,) = (text for _, text in instructions(root / "Dockerfile") if "pip install" in text)
    assert "--constraint constraints.txt" in install


def test_a_base_without_torch_gets_no_constraint(root: Path, tmp_path: Path) -> None:
    (command,) = (
        text for name, text in instructions(root / "Dockerfile") if name == "RUN" and "found" in text
    )
    bare = tmp_path / "bin" / "python"
    bare.parent.mkdir()
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    subprocess.run(["/bin/sh", "-c", command], cwd=tmp_path, env={"PATH": f"{bare.parent}"}, check=True)
    assert (tmp_path / "constraints.txt").read_text() == "\n"


def test_the_container_starts_with_the_state_of_the_machine_and_runs_the_job(
    image: Build, pristine: Path, model: Path
) -> None:
    data = copied(pristine, image.root / "work" / "data")
    done = image.start(*arguments(data, model)[2:], "--no-report")
    assert done.returncode == 0, done.stderr
    assert "Validation passed: 6 files" in done.stdout
    assert "Python:" in done.stderr
    assert "Python:" not in done.stdout


def test_the_image_has_the_version_that_it_was_built_with(image: Build) -> None:
    command = ["python", "-c", "import nucpro; print(nucpro.__version__)"]
    done = subprocess.run(command, env=image.variables, cwd="/", capture_output=True, text=True, check=True)
    assert done.stdout == "7.8.9\n"


def test_the_exit_code_is_the_commands(image: Build) -> None:
    done = image.start(arguments=["validate", "/nowhere"])
    assert done.returncode == 3


def test_nobody_is_root_and_every_user_can_write_the_caches(image: Build) -> None:
    assert image.user == "1000:1000"
    home = Path(image.variables["HOME"])
    for folder in (
        home,
        home / ".cache",
        home / ".cache" / "huggingface",
        Path(image.variables["TRITON_CACHE_DIR"]),
    ):
        assert folder.stat().st_mode & 0o7777 == 0o1777


def test_the_base_is_an_argument_and_nvidias_by_default(root: Path) -> None:
    first, second = instructions(root / "Dockerfile")[:2]
    assert first == ("ARG", "BASE=nvcr.io/nvidia/pytorch:25.09-py3")
    assert second == ("FROM", "${BASE}")


def test_what_is_copied_is_not_ignored(root: Path) -> None:
    kept = {line[1:] for line in (root / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert kept == set(copied_paths(root / "Dockerfile"))


def test_the_compose_file_follows_the_compose_specification(root: Path) -> None:
    assert_valid("vendor.compose-spec", root / "docker-compose.yml")


def test_a_wrong_compose_file_is_refused(root: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "docker-compose.yml"
    wrong.write_text((root / "docker-compose.yml").read_text().replace("volumes:", "volume:"))
    with pytest.raises(AssertionError, match="'volume' was unexpected"):
        assert_valid("vendor.compose-spec", wrong)


def test_the_compose_file_fits_the_image(root: Path, image: Build) -> None:
    service = yaml.safe_load((root / "docker-compose.yml").read_text())["services"]["nucpro"]
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    targets = {volume.split(":")[1] for volume in service["volumes"]}
    assert targets == {"/work/data", "/home/nucpro/.cache", "/opt/nucpro/src", "/opt/nucpro/scripts"}
    home = Path("/") / Path(image.variables["HOME"]).relative_to(image.root)
    assert f"{home}/.cache" in targets
    assert image.command[-1] in targets
    assert service["environment"]["PYTHONPATH"] in targets
