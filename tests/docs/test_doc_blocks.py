"""Everything that README.md and docs/ tell people to type runs, and shows what they say."""

from __future__ import annotations

import pkgutil
import re
import shutil
from collections import Counter
from pathlib import Path

import nbformat
import pytest
from doc_blocks import PAGES, ROOT, SHOWN_ONLY, Block, blocks_of, commands_of, runnable
from doc_reader import Reader

from nucpro.formats.fasta import read
from run import add_outdated_results, split_files

NOT_RUN = {
    "README.md": 3,
    "docs/api.md": 1,
    "docs/cluster.md": 6,
    "docs/dataset.md": 1,
    "docs/export.md": 1,
    "docs/compatibility.md": 1,
    "docs/index.md": 1,
    "docs/quick-start.md": 1,
    "docs/train.md": 3,
}
"""How many blocks of a page are marked as not run. One more here is a block that nobody checks."""

PAGES_THAT_GO_ON = [page for page in PAGES if runnable(page) and page.stem != "quick-start"]

CHECKS = {
    "README.md": "assert label == 1 and len(ids) == 20 and rows.shape == (20, 2048)",
    "docs/migration.md": """
from pathlib import Path
from nucpro import formats as store
files = list(Path("data/data_merge").rglob("*_merged.pt"))
assert len(files) == 14 and {store.read_merged(path).vectors.shape[1] for path in files} == {2048}
""",
    "docs/export.md": """
assert len(rows) == 280 and rows[0]["vector"].shape == (2048,)
assert frame.height == 180 and frame["vector"].to_numpy().shape == (180, 2048)
assert dict(groups)["viral"] == 180
assert X.shape == (280, 2048) and y.sum() == 180
assert vectors.shape == (20, 2048) and len(ids) == 20 and classifier.coef_.shape == (1, 2048)
""",
}
"""What must hold after the last block of a page."""


def test_the_quick_start_leads_from_genomes_to_scores(finished: Path) -> None:
    scores = (finished / "contigs_prediction" / "sequences.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in scores[1:]] == read(finished / "contigs.fasta").ids


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("page", PAGES_THAT_GO_ON, ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run(
    page: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = Path(shutil.copytree(finished, tmp_path / "work"))
    if page.stem == "migration":
        add_outdated_results([pair for pair in split_files(folder / "data") if pair.dna_vectors.exists()])
    reader = Reader(folder)
    for block in runnable(page):
        reader.follow(block)
    monkeypatch.chdir(folder)
    exec(CHECKS.get(page.relative_to(ROOT).as_posix(), ""), reader.names)


def test_every_name_of_the_api_page_exists() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    listed = re.findall(r"^::: (\S+)\n(?: +options:\n +members: \[(.*)\])?", page, re.MULTILINE)
    assert listed
    for name, members in listed:
        found = pkgutil.resolve_name(name)
        assert [member for member in members.split(", ") if member and not hasattr(found, member)] == [], name


def test_every_part_of_the_api_page_has_an_example() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    parts = re.split(r"^##+ ", page, flags=re.MULTILINE)[1:]
    without = [part.splitlines()[0] for part in parts if "```python" not in part]
    assert without == ["Encoders"]  # the example at the top of its part is of encoders


def test_the_notebook_runs(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = nbformat.read(ROOT / "docs" / "notebook.ipynb", as_version=4)
    nbformat.validate(notebook)
    monkeypatch.chdir(shutil.copytree(finished, tmp_path / "work"))
    names: dict[str, object] = {"__name__": "notebook"}
    for cell in notebook.cells:
        assert not cell.get("outputs"), "clear the outputs: they are those of one machine"
        if cell.cell_type == "code":
            exec(compile(cell.source, cell.id, "exec"), names)
    assert names["X"].shape[1] == 2048  # type: ignore[attr-defined]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_is_of_a_language_that_runs_or_is_marked(page: Path) -> None:
    allowed = {"python", "bash", *SHOWN_ONLY}
    odd = [b.place for b in blocks_of(page) if b.not_run is None and b.language not in allowed]
    assert not odd, f"fence them as python or bash, or mark them as not run: {odd}"


def test_the_blocks_that_are_not_run_are_those_that_are_known() -> None:
    marked = [b for page in PAGES for b in blocks_of(page) if b.not_run]
    assert Counter(b.page.relative_to(ROOT).as_posix() for b in marked) == NOT_RUN


def test_a_mark_without_a_block_below_it_is_noticed() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert text.count("<!-- not run") == sum(b.not_run is not None for b in blocks_of(page)), page


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.stem)
def test_what_the_copy_button_copies_can_be_pasted(page: Path) -> None:
    assert "```console" not in page.read_text(encoding="utf-8"), (
        "commands in a bash block, output in text below"
    )
    prompts = [
        b.place
        for b in blocks_of(page)
        if re.search(r"^ *[$>%] +[^ ]", b.text, re.M) and b.language == "bash"
    ]
    assert not prompts, "a prompt is copied with the command"


def test_commands_go_on_after_a_backslash_and_the_last_shows_what_is_below(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- not run: why -->\n```bash\na \\\n    b\nc\n```\n\n```text\nshown\n```\n\n    indented\n"
    )
    first, second, third = blocks_of(page)
    assert (first.not_run, first.language, first.line) == ("why", "bash", 2)
    assert [(c.text, c.shown) for c in commands_of(first)] == [("a b", ()), ("c", ("shown",))]
    assert (second.language, third.language, third.not_run) == ("text", "", None)


@pytest.mark.parametrize(
    ("text", "below", "message"),
    [
        ("nucpro status nowhere\n", "", r"page.md:1: nucpro status nowhere"),
        ("nucpro validate data\n", "Validation failed\n", "shows no line like 'Validation failed'"),
        ("false | cat\n", "", r"false"),
    ],
)
def test_a_command_that_fails_or_shows_something_else_is_noticed(
    finished: Path, text: str, below: str, message: str
) -> None:
    block = Block(ROOT / "page.md", 1, "bash", text, None, below)
    with pytest.raises(AssertionError, match=message):
        Reader(finished).follow(block)
