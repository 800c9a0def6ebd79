"""What a newcomer gets: the wheel without the source tree, the README's code, the container files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from folders import arguments, copied
from nucpro.cli import main

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = folder.glob("nucpro-*.whl")
    return built


def test_the_wheel_runs_the_job_without_the_source_tree(
    wheel: Path, pristine: Path, model: Path, tmp_path: Path
) -> None:
    installed = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    data = copied(pristine, tmp_path / "data")
    site = Path(torch.__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": f"{installed}:{site}"}
    python = [sys.executable, "-S"]  # without the editable installation of the tests' own environment
    where = subprocess.run(
        [*python, "-c", "import nucpro; print(nucpro.__file__)"],
        env=environment, cwd="/", capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert where.stdout.startswith(str(installed))
    done = subprocess.run(
        [*python, "-m", "nucpro", "extract", *arguments(data, model)],
        env=environment, cwd="/", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("Validation passed: 6 files")


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {"nucpro"} == {top for top in tops if not top.endswith(".dist-info")}
    assert "nucpro/py.typed" in names
    metadata = zipfile.ZipFile(wheel).read(next(name for name in names if name.endswith("METADATA"))).decode()
    assert "Requires-Dist: torch>=2.9.0a0" in metadata
    assert "License-Expression: MIT" in metadata


def test_the_readme_shows_the_two_commands_first() -> None:
    first_screen = "\n".join((ROOT / "README.md").read_text().splitlines()[:20])
    assert first_screen.index("make demo") < first_screen.index("make test")


def test_the_readmes_code_runs(
    pristine: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied(pristine, tmp_path / "data")
    assert main(["extract", *arguments(tmp_path / "data", model)]) == 0
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        names: dict[str, object] = {}
        exec(compile(block, "README.md", "exec"), names)
        assert names["label"] == 1
        assert len(names["ids"]) == len(names["rows"]) == 4


def test_the_readme_names_every_module() -> None:
    tree = (ROOT / "README.md").read_text()
    for path in (ROOT / "src" / "nucpro").iterdir():
        if path.name.startswith("__") or path.name == "py.typed":
            continue
        assert path.name in tree, f"{path.name} has no line in the README's tree"


def test_the_container_keeps_the_torch_of_its_image() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert re.search(r"^ARG BASE=\S*pytorch:25\.09-py3$", text, re.MULTILINE)
    (install,) = re.findall(r"pip install.*", text)
    assert "--constraint /tmp/constraints.txt" in install
    assert "torch" not in install
    for name in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE):
        assert all((ROOT / part).exists() for part in name.split())


def test_the_compose_file_reserves_a_gpu_and_mounts_data_cache_and_code() -> None:
    yaml = pytest.importorskip("yaml", reason="comes with huggingface_hub")
    service = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["nucpro"]
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    targets = {volume.split(":")[1] for volume in service["volumes"]}
    assert {"/work/data", "/root/.cache/huggingface", "/opt/nucpro/src"} <= targets


def test_the_demo_goes_from_genomes_to_validated_files(tmp_path: Path) -> None:
    code = f"import sys, pathlib, run; run.TARGET = pathlib.Path({str(tmp_path)!r}) / 'demo'; sys.exit(run.main())"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "demo")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Validation passed: 14 files, 280 sequences, all dimensions correct") == 2
    assert done.stdout.endswith(
        f"Results (of UNTRAINED models): {tmp_path / 'demo' / 'data' / 'data_merge'}\n"
    )
