"""A wheel, and clean environments: the big dependencies of the tests' own one, without its nucpro and source tree."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import torch

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


def make_environment(folder: Path, dependencies: Path) -> dict[str, str]:
    """Make a virtual environment with the dependencies and no nucpro; what a shell in it has as its variables."""
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(f"{dependencies}\n")
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    # Nothing is fetched: pip either finds a requirement in the folder above, or fails.
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return {**kept, **offline, "PATH": f"{folder / 'bin'}:{kept['PATH']}"}


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
