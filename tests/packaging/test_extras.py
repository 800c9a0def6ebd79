"""The wheel and the sdist with each extra alone, from the package index into an empty environment: `make extras`."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
USERS = sorted(PROJECT["optional-dependencies"].keys() - {"dev", "docs"})


@pytest.fixture(scope="module")
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Wheel and sdist by suffix, the wheel made from the sdist, as a release does."""
    if request.config.getoption("--packaging") != "all":
        pytest.skip("needs the package index and minutes for each extra: make extras, or --packaging=all")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return {path.suffix: path for path in folder.iterdir()}


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """What the release workflow keeps of the clone: everything but its source tree."""
    for name in ("demo", "tests/packaging/installed.py"):
        target = tmp_path / "clone" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(ROOT / name, target) if (ROOT / name).is_dir() else shutil.copy(ROOT / name, target)
    return tmp_path / "clone" / "tests" / "packaging"


@pytest.mark.parametrize(
    ("suffix", "extra"), [(".whl", ""), *((".whl", f"[{extra}]") for extra in USERS), (".gz", "")]
)
def test_it_installs_and_works_with_an_extra_alone(
    suffix: str, extra: str, built: dict[str, Path], scripts: Path, tmp_path: Path
) -> None:
    venv.create(tmp_path / "empty", with_pip=True)
    python = tmp_path / "empty" / "bin" / "python"
    commands = [
        [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--constraint",
            ROOT / "constraints.txt",
            f"{built[suffix]}{extra}",
        ],
        ["-m", "pip", "check"],
        [scripts / "installed.py"],
    ]
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    # The tests have a home of their own, and settings of the package index may lie in the user's.
    home = Path(pwd.getpwuid(os.getuid()).pw_dir)
    variables.setdefault("PIP_CONFIG_FILE", str(home / ".config" / "pip" / "pip.conf"))
    for command in commands:
        done = subprocess.run(
            [python, *command], env=variables, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    packages = PROJECT["optional-dependencies"].get(extra.strip("[]"), ())
    assert done.stdout.count(": works") >= len(packages)
    shutil.rmtree(tmp_path / "empty")
