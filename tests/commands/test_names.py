"""Commands where a file that they name is a link, a pipe, a device, a folder or unreadable; whole runs over links."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import nucpro
from folders import (
    PER_FILE,
    arguments,
    as_dangling,
    as_device,
    as_folder,
    as_pipe,
    copied,
    pairs_of,
    within,
)
from nucpro.cli import main
from nucpro.folder.paths import DataFolder

SOURCES = Path(nucpro.__file__).parent


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, pristine: Path, model: Path) -> Path:
    """A finished data folder and its model, beside each other."""
    top = tmp_path_factory.mktemp("names")
    copied(pristine, top / "data")
    copied(model, top / "model")
    assert main(["extract", *arguments(top / "data", top / "model")]) == 0
    return top


def named(top: Path) -> list[Path]:
    """Files that commands on a data folder name: inputs, outputs, and what is kept."""
    folder, pair = DataFolder(top / "data"), pairs_of(top / "data")[0]
    kept = (folder.checkpoint, folder.journal, folder.history, folder.selection, folder.lock, folder.log)
    model = (top / "model" / "config.json", top / "model" / "model.safetensors")
    return [*pair.files, pair.source.nucleotide_fasta, *kept, *model]


def commands(top: Path) -> dict[str, list[str]]:
    data, size = str(top / "data"), ("--sequences-per-file", str(PER_FILE))
    pair = pairs_of(top / "data")[0]
    return {
        "status": ["status", data, *size],
        "extract": ["extract", *arguments(top / "data", top / "model")],
        "validate": ["validate", data, *size],
        "export": ["export", data, "--to", "npz", "-o", str(top / "out"), *size],
        "inspect": ["inspect", str(pair.merged)],
    }


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        *((command, as_pipe) for command in ("status", "extract", "validate", "inspect")),
        ("status", as_device),
        ("extract", as_folder),
        ("export", as_dangling),
    ],
)
def test_no_name_makes_a_command_hang_or_fall(
    command: str,
    kind: Callable[[Path], None],
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for number, name in enumerate(path.relative_to(finished) for path in named(finished)):
        top = tmp_path / str(number)
        shutil.copytree(finished, top)
        words = commands(top)[command]
        (top / name).unlink(missing_ok=True)
        kind(top / name)
        before = {path.relative_to(top) for path in (top / "data").rglob("*")}
        with within(120):
            code = main(words)
        shown = capsys.readouterr().err
        assert code in (0, 1, 3), (name, shown)
        assert "Traceback" not in shown, name
        assert "report it" not in shown, name
        assert code == 0 or str(top) in shown or name.stem in shown, name
        lost = {path for path in before if not os.path.lexists(top / path)}
        assert not lost, name


AS_NOBODY = """
import os, sys
from pathlib import Path
from nucpro.cli import main
files = [Path(name) for name in sys.argv[1:]]
for path in files:
    main(["inspect", str(path)])  # imports everything while it may
    path.chmod(0)
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
for path in files:
    print("CODE", main(["inspect", str(path)]), flush=True)
"""


def test_a_file_that_may_not_be_read_is_named_in_one_line(finished: Path) -> None:
    # Outside of the folders of a test, which only their owner may enter.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        files = [Path(shutil.copy(path, folder)) for path in pairs_of(finished / "data")[0].files]
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, *map(str, files)], capture_output=True, text=True, check=False
        )
    said = [line for line in done.stderr.splitlines() if "Permission denied" in line]
    assert [line.partition(": ")[0] for line in said] == list(map(str, files)), done.stderr
    assert done.stdout.count("CODE 1") == len(files), done.stdout
    assert "Traceback" not in done.stderr


def test_a_whole_run_over_links_ends_with_the_same_bytes(
    data: Path, model: Path, finished: Path, tmp_path: Path
) -> None:
    """Folders on other disks, FASTA and weights out of stores, an output that is a link: all as people have them."""
    store = tmp_path / "store"
    store.mkdir()
    # A folder's name stands in what is made with it.
    linked_model = tmp_path / "of_links" / "model"
    linked_model.mkdir(parents=True)
    for file in model.iterdir():
        shutil.copy(file, store / f"blob_{file.name}")
        (linked_model / file.name).symlink_to(f"../../store/blob_{file.name}")
    for number, fasta in enumerate(sorted(data.rglob("*.fa"))):
        fasta.rename(store / f"annexed_{number}")
        fasta.symlink_to(store / f"annexed_{number}")
    for number, folder in enumerate(sorted(path for path in data.iterdir() if path.is_dir())):
        folder.rename(store / f"disk_{number}")
        folder.symlink_to(store / f"disk_{number}")
    (store / "merged").mkdir()
    if not (data / "data_merge").is_symlink():
        shutil.rmtree(data / "data_merge", ignore_errors=True)
        (data / "data_merge").symlink_to(store / "merged")
    own = tmp_path / "own.pt"
    own.write_bytes(b"mine")
    vectors = pairs_of(data)[0].protein_vectors
    vectors.unlink(missing_ok=True)
    vectors.symlink_to(own)
    data.rename(tmp_path / "elsewhere")
    data.symlink_to(tmp_path / "elsewhere")
    assert main(["extract", *arguments(data, linked_model)]) == 0
    assert not vectors.is_symlink()
    assert own.read_bytes() == b"mine"
    for pair, plain in zip(pairs_of(data), pairs_of(finished / "data"), strict=True):
        if plain.merged.exists():  # part of a file is never selected
            assert pair.merged.read_bytes() == plain.merged.read_bytes()


OPENERS = {
    "open",
    "read_text",
    "read_bytes",
    "write_text",
    "write_bytes",
    "memmap",
    "safe_open",
    "ZipFile",
    "fdopen",
}
ALLOWED = {
    "formats/opening.py": "the one way to open by a name",
    "formats/atomic.py": "the one way to write by a rename",
    "machine.py": "files of the system",
    "execution/workers.py": "files of the system",
    "inspection/speed.py": "files of the system",
    "inspection/environment.py": "files of the system",
    "embedding/device.py": "files of the system",
    "classifier/features.py": "a nameless file, and files of the system",
    "__main__.py": "the streams of this process",
    "cli/main.py": "the streams of this process",
    "report/page.py": "files of the package",
    "inspection/answers.py": "files of the package",
    "inspection/others.py": "opened by open_input just before; zipfile and safetensors want names",
    "api.py": "a file in a temporary folder of its own",
    "formats/fasta.py": "a new file in a new folder",
    "folder/splitting.py": "a file in a folder that it made",
    "formats/transfer.py": "a part that it opened itself",
    "models/hub.py": "the cache of huggingface_hub, in its own way",
    "models/tensors.py": "opened by open_input just before; torch and safetensors want names",
    "classifier/model.py": "opened by open_input just before; safetensors want names",
    "vectors/outputs.py": "opened by open_input just before; safetensors want names",
    "vectors/work.py": "rows that it wrote itself",
    "vectors/hdf5.py": "a new file in its own folder, and shards as below; h5py and safetensors want names",
    "vectors/residues.py": "shards whose digest was compared; safetensors want names",
    "genomes/taxonomy.py": "opened by open_input just before; tarfile wants names",
    "execution/runner.py": "the history, which opens nothing itself",
}


def _openings(source: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Attribute):
                name = called.attr
            else:
                # The functions of these names are the one way to write by a rename.
                name = getattr(called, "id", "").removeprefix("write_")
            if name in OPENERS:
                yield f"{source.relative_to(SOURCES)}:{node.lineno} {name}"


def test_files_are_opened_in_one_place() -> None:
    """A new opening goes through ``formats/opening.py``, or says here why it cannot."""
    found = {source: list(_openings(source)) for source in sorted(SOURCES.rglob("*.py"))}
    odd = [
        line
        for source, lines in found.items()
        for line in lines
        if str(source.relative_to(SOURCES)) not in ALLOWED
    ]
    assert odd == []
