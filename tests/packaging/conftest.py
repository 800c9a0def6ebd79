"""A wheel, and clean environments: the big dependencies of the tests' own one, without its nucpro and source tree."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from environments import make_environment

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    """The clone."""
    return ROOT


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = folder.glob("nucpro-*.whl")
    return built


@pytest.fixture(scope="session")
def dependencies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that is installed here but nucpro."""
    folder = tmp_path_factory.mktemp("dependencies")
    for entry in Path(torch.__file__).parent.parent.iterdir():
        if not entry.name.startswith(("nucpro", "_editable_impl_nucpro")) and entry.suffix != ".pth":
            (folder / entry.name).symlink_to(entry)
    return folder


@pytest.fixture(scope="session")
def installed(wheel: Path, dependencies: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables of an environment into which pip installed the wheel with all extras."""
    variables = make_environment(tmp_path_factory.mktemp("environment"), dependencies)
    requirement = f"nucpro[all] @ {wheel.as_uri()}"
    subprocess.run(
        ["python", "-m", "pip", "install", "--quiet", requirement],
        env=variables, cwd="/", check=True, capture_output=True, text=True,
    )  # fmt: skip
    return variables
