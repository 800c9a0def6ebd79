"""The built wheel, installed by pip into a clean environment, far from the source tree."""

from __future__ import annotations

import re
import subprocess
import tomllib
import zipfile
from collections.abc import Mapping
from email.message import Message
from email.parser import Parser
from pathlib import Path

import torch

from folders import arguments, copied, write_fasta
from nucpro.formats.fasta import read


def shell(variables: Mapping[str, str], *command: str) -> str:
    """Run a program as a user of the environment, away from the clone, and give what it prints."""
    done = subprocess.run(command, env=variables, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def test_what_pip_installed_runs_without_the_source_tree(wheel: Path, installed: dict[str, str]) -> None:
    out = shell(installed, "python", "-c", "import nucpro; print(nucpro.__file__, nucpro.__version__)")
    file, version = out.split()
    assert Path(file).is_relative_to(Path(installed["PATH"].split(":")[0]).parent)
    assert version == metadata(wheel)["Version"]
    assert "extract, merge and validate" in shell(installed, "nucpro", "--help")


def test_an_installed_nucpro_embeds_a_fasta_file(
    installed: dict[str, str], pristine: Path, model: Path, tmp_path: Path
) -> None:
    records = read(pristine / "viral.1.1.identified_protein.fa")
    fasta, output = tmp_path / "proteins.fa", tmp_path / "vectors.pt"
    write_fasta(fasta, [(name, s.decode()) for name, s in zip(records.ids, records.sequences, strict=True)])
    device = ("--protein-model", str(model), "--device", "cpu")
    assert "13 vectors of width 16" in shell(
        installed, "nucpro", "embed", str(fasta), "-o", str(output), *device
    )
    assert torch.load(output, weights_only=True)["proteins"] == list(records.ids)


def test_an_installed_nucpro_runs_the_job(
    installed: dict[str, str], pristine: Path, model: Path, tmp_path: Path
) -> None:
    data = copied(pristine, tmp_path / "data")
    lines = shell(installed, "nucpro", "extract", *arguments(data, model), "--no-report").splitlines()
    assert any(line.startswith("Validation passed: 6 files") for line in lines)


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path, root: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {"nucpro"} == {top for top in tops if not top.endswith(".dist-info")}
    assert "nucpro/py.typed" in names
    code = {path.relative_to(root / "src").as_posix() for path in (root / "src").rglob("*.py")}
    assert code <= set(names)


def test_the_wheel_says_what_it_needs(wheel: Path) -> None:
    found = metadata(wheel)
    assert "torch>=2.9.0a0" in found.get_all("Requires-Dist", [])
    assert found["License-Expression"] == "MIT"
    assert found["Requires-Python"] == ">=3.11"
    assert {"ray", "report", "train", "export", "all"} <= set(found.get_all("Provides-Extra", []))


def test_the_declared_python_versions_are_those_that_are_run(root: Path) -> None:
    classifiers = tomllib.loads((root / "pyproject.toml").read_text())["project"]["classifiers"]
    declared = {c.rpartition(" ")[2] for c in classifiers if re.search(r"Python :: 3\.\d+$", c)}
    workflow = (root / ".github" / "workflows" / "ci.yml").read_text()
    assert declared == set(re.findall(r'"(3\.\d+)"', workflow))
