"""Clean environments for what is installed and built, and the schemas that files of others' formats follow."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path


def make_environment(folder: Path, dependencies: Path) -> dict[str, str]:
    """Make a virtual environment with the dependencies and no nucpro; what a shell in it has as its variables."""
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(f"{dependencies}\n")
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    # Nothing is fetched: pip either finds a requirement in the folder above, or fails.
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return {**kept, **offline, "PATH": f"{folder / 'bin'}:{kept['PATH']}"}


def assert_valid(schema: str, *files: Path) -> None:
    """Compare YAML files with a schema that check-jsonschema ships."""
    command = ["-m", "check_jsonschema", "--force-filetype", "yaml", "--builtin-schema", schema]
    done = subprocess.run([sys.executable, *command, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
