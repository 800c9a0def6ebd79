"""Files that people and their tools read beside the code: each follows the schema of its format and tells the truth."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from environments import assert_valid


@pytest.mark.parametrize(
    ("schema", "pattern"),
    [
        ("vendor.citation-file-format", "CITATION.cff"),
        ("vendor.github-workflows", ".github/workflows/*.yml"),
        ("vendor.github-issue-config", ".github/ISSUE_TEMPLATE/config.yml"),
        ("vendor.github-issue-forms", ".github/ISSUE_TEMPLATE/[!c]*.yml"),
    ],
)
def test_a_file_follows_its_schema(root: Path, schema: str, pattern: str) -> None:
    files = sorted(root.glob(pattern))
    assert files
    assert_valid(schema, *files)


def test_the_public_workflow_runs_what_ci_runs(root: Path) -> None:
    workflow = yaml.safe_load((root / ".github" / "workflows" / "ci.yml").read_text())
    steps = workflow["jobs"]["check"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == ["bash .ci/run"]
    # Without all tags, the version would not be that of the commit.
    (checkout,) = (step for step in steps if step.get("uses", "").startswith("actions/checkout@"))
    assert checkout["with"]["fetch-depth"] == 0


def test_the_citation_names_the_licence_of_the_package(root: Path) -> None:
    citation = yaml.safe_load((root / "CITATION.cff").read_text())
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert citation["license"] == project["license"]
    assert citation["title"].startswith(project["name"])


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "SECURITY.md", "recipes/README.md"])
def test_what_a_text_names_exists(root: Path, name: str) -> None:
    text = (root / name).read_text()
    paths = re.findall(r"`((?:\.ci|docs|tests|src|benchmarks)/[\w./-]+)`", text)
    paths += re.findall(r"\]\(\.\./([\w./-]+)\)", text)
    targets = set(re.findall(r"^([a-z]+):", (root / "Makefile").read_text(), re.MULTILINE))
    assert all((root / path).exists() for path in paths), paths
    assert set(re.findall(r"`make (\w+)`", text)) <= targets


def test_contributors_read_the_name_of_every_part_of_an_encoder(root: Path) -> None:
    text = (root / "CONTRIBUTING.md").read_text()
    parts = re.findall(r"`(config|encoder|architectures|tokens)\.([A-Z]\w+)`", text)
    assert len(parts) >= 5
    for module, part in parts:
        source = (root / "src" / "nucpro" / "models" / f"{module}.py").read_text()
        assert re.search(rf"^class {part}\b", source, re.MULTILINE)
