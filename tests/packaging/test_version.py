"""The version: from the git tag, and from something else wherever there is no git or no tag."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest


def run(*command: str, cwd: Path) -> bytes:
    return subprocess.run(command, cwd=cwd, check=True, capture_output=True).stdout


def version(tree: Path) -> str:
    return run(sys.executable, "-W", "ignore", "-m", "hatchling", "version", cwd=tree).decode().strip()


def tag(clone: Path, name: str) -> None:
    run("git", "-c", "user.name=test", "-c", "user.email=test@localhost", "tag", "-am", name, name, cwd=clone)


def exported(clone: Path, folder: Path) -> Path:
    with tarfile.open(fileobj=io.BytesIO(run("git", "archive", "HEAD", cwd=clone))) as archive:
        # Pythons before 3.11.4 have no filters.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(folder)
    return folder


@pytest.fixture
def clone(root: Path, tmp_path: Path) -> Path:
    """A fresh clone without tags."""
    if not (root / ".git").exists():
        pytest.skip("needs a git clone; this is an exported tree")
    run("git", "clone", "--quiet", "--no-tags", str(root), str(tmp_path / "clone"), cwd=tmp_path)
    return tmp_path / "clone"


def test_a_tag_is_the_version(clone: Path) -> None:
    tag(clone, "v7.8.9")
    assert version(clone) == "7.8.9"


def test_a_clone_without_tags_has_a_version_that_counts_commits(clone: Path) -> None:
    commits = int(run("git", "rev-list", "--count", "HEAD", cwd=clone))
    commit = run("git", "rev-parse", "--short=7", "HEAD", cwd=clone).decode().strip()
    assert re.fullmatch(rf"0\.1\.dev{commits}\+g{commit}[0-9a-f]*", version(clone))


def test_an_exported_archive_knows_its_tag(clone: Path, tmp_path: Path) -> None:
    tag(clone, "v7.8.9")
    assert version(exported(clone, tmp_path / "export")) == "7.8.9"


def test_an_exported_archive_without_a_tag_still_installs(clone: Path, tmp_path: Path) -> None:
    assert version(exported(clone, tmp_path / "export")) == "0.1.dev0"


def test_a_source_tree_that_was_never_installed_says_so(root: Path) -> None:
    code = "import nucpro; print(nucpro.__version__)"
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], env=environment, check=True, capture_output=True
    )
    assert done.stdout.decode().strip() == "0+unknown"


def test_the_package_has_no_other_lazy_names() -> None:
    import nucpro

    with pytest.raises(AttributeError, match="module 'nucpro' has no attribute 'verison'"):
        _ = nucpro.verison
