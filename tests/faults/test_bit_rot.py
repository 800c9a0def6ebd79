"""Bits that flip on the disk, and files that are cut, zeroed or exchanged: found, or without any effect.

A few bytes of a ``.pt`` file carry nothing: times, versions and padding of its container. Damage there is told
apart by reading the file: everything in it must be what it was, bit by bit.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from scenarios import WHOLE, Baseline, Scenario, copied, state

from folders import WIDTH, leftovers, pairs_of
from nucpro.cli import main
from nucpro.errors import DataError, NucproError
from nucpro.extraction.merging import merge
from nucpro.extraction.validation import ValidationTask, validate_file
from nucpro.folder.paths import CLASS_NAMES, DataFolder, FilePair
from nucpro.folder.selection import load
from nucpro.formats import VectorFile, read_merged, read_vectors
from nucpro.formats.sequences import SequenceType
from nucpro.state.checkpoint import Checkpoint

Damage = tuple[str, bytes]
Tell = Callable[[str, object], None]
REGION = 64


def damages(content: bytes, count: int) -> Iterator[Damage]:
    """Flips, cuts, zeros and noise, spread over every region of a file."""
    generator = random.Random(len(content))
    for number in range(count):
        place = number * (len(content) - 1) // max(1, count - 1)
        flipped = bytearray(content)
        flipped[place] ^= 1 << number % 8
        yield f"bit {number % 8} of byte {place} flipped", bytes(flipped)
        if number % 4 == 0:
            yield f"cut at {place}", content[:place]
            rest = content[place + REGION :]
            region = bytes(min(REGION, len(content) - place))
            yield f"zeros at {place}", content[:place] + region + rest
            yield f"noise at {place}", content[:place] + generator.randbytes(len(region)) + rest
    yield "bytes after its end", content + bytes(REGION)


@pytest.fixture(scope="module")
def finished(extract: Scenario, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder after a run, with its checkpoint."""
    data = copied(extract.start, tmp_path_factory.mktemp("finished") / "data")
    assert extract.repeat(data) == 0
    return data


@pytest.fixture(scope="module")
def finished_dna(embed_dna: Scenario, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with DNABERT-S files of our own, which say what made them."""
    data = copied(embed_dna.start, tmp_path_factory.mktemp("finished") / "data")
    assert embed_dna.repeat(data) == 0
    more = ["--protein-model", str(model), "--device", "cpu", "--sequences-per-file", "4", "--no-report"]
    assert main(["extract", "--data-dir", str(data), *more]) == 0
    return data


def read(path: Path) -> VectorFile:
    if path.name.endswith("_merged.pt"):
        return read_merged(path)
    return read_vectors(path, SequenceType.DNA if "DNABERT" in path.name else SequenceType.PROTEIN)


def content_of(path: Path) -> tuple[object, ...]:
    file = read(path)
    return file.ids, file.vectors.tobytes(), file.meta, getattr(file, "label", None)


FILES = {
    "protein": lambda pair: pair.protein_vectors,
    "merged": lambda pair: pair.merged,
    "dna": lambda pair: pair.dna_vectors,
}


@pytest.mark.parametrize(
    ("origin", "kind"),
    [("finished", "protein"), ("finished", "merged"), ("finished", "dna"), ("finished_dna", "dna")],
)
def test_damage_of_a_vector_file_is_found_or_has_no_effect(
    kind: str, origin: str, whole: bool, request: pytest.FixtureRequest, record_property: Tell, tmp_path: Path
) -> None:
    if origin == "finished_dna" and not whole:
        pytest.skip(WHOLE)
    data = copied(request.getfixturevalue(origin), tmp_path / "data")
    pair = pairs_of(data)[0]
    path = FILES[kind](pair)
    content, before = path.read_bytes(), content_of(path)
    found = harmless = 0
    for what, damaged in damages(content, 160 if whole else 16):
        if damaged == content:
            continue
        path.write_bytes(damaged)
        problems = validate_file(ValidationTask(pair, WIDTH)).problems
        if problems:
            found += 1
            assert all(str(path) in problem for problem in problems), what
            require_unmerged(pair, path)
        else:
            harmless += 1
            assert content_of(path) == before, what
    record_property("cases", found + harmless)
    record_property("harmless", harmless)
    assert found > harmless


def require_unmerged(pair: FilePair, damaged: Path) -> None:
    """A damaged source is never merged."""
    if damaged != pair.merged:
        before = pair.merged.read_bytes()
        with pytest.raises(NucproError):
            merge(pair.dna_vectors, pair.protein_vectors, pair.merged, CLASS_NAMES[pair.label])
        assert pair.merged.read_bytes() == before


@pytest.mark.parametrize("kind", FILES)
def test_files_that_are_exchanged_are_found(
    kind: str, finished: Path, whole: bool, record_property: Tell, tmp_path: Path
) -> None:
    """Valid files, most of them of the same size, under the name of another."""
    data = copied(finished, tmp_path / "data")
    pairs = [pair for pair in pairs_of(data) if pair.merged.exists()]
    exchanges = list(permutations(pairs, 2))[:: 1 if whole else 12]
    for pair, other in exchanges:
        path, content = FILES[kind](pair), FILES[kind](pair).read_bytes()
        path.write_bytes(FILES[kind](other).read_bytes())
        problems = validate_file(ValidationTask(pair, WIDTH)).problems
        assert any(str(path) in problem for problem in problems)
        path.write_bytes(content)
    record_property("cases", len(exchanges))


@pytest.mark.points(1, 12)
@pytest.mark.parametrize("kind", ["protein", "merged"])
def test_a_repeated_run_makes_damaged_files_again(
    part: int, parts: int, kind: str, extracting: Baseline, finished: Path, tmp_path: Path
) -> None:
    data = copied(finished, tmp_path / "data")
    path = FILES[kind](merged_pair(data, part))
    before = content_of(path)
    found = [d for _, d in damages(path.read_bytes(), 3 * parts) if damaged_for_readers(path, d, before)]
    path.write_bytes(found[part % len(found)])
    extracting.require_recovery(data)


def merged_pair(data: Path, number: int) -> FilePair:
    """One of the pairs that were selected, which short last files are not."""
    pairs = [pair for pair in pairs_of(data) if pair.merged.exists()]
    return pairs[number % len(pairs)]


def damaged_for_readers(path: Path, damaged: bytes, before: tuple[object, ...]) -> bool:
    content = path.read_bytes()
    path.write_bytes(damaged)
    try:
        return content_of(path) != before
    except NucproError:
        return True
    finally:
        path.write_bytes(content)


@pytest.mark.points(1, 8)
def test_a_damaged_dna_file_stops_the_run(
    part: int,
    parts: int,
    extracting: Baseline,
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Before anything is merged from it; the original program made it, so this one does not recompute it."""
    data = copied(finished, tmp_path / "data")
    path = merged_pair(data, part).dna_vectors
    before, content = content_of(path), path.read_bytes()
    found = [d for _, d in damages(content, 3 * parts) if damaged_for_readers(path, d, before)]
    path.write_bytes(found[part % len(found)])
    assert extracting.scenario.repeat(data) in (1, 3)
    assert str(path) in capsys.readouterr().err
    after = state(data)
    after[path.relative_to(data).as_posix()] = content
    assert after == extracting.final
    path.write_bytes(content)
    extracting.require_recovery(data)


def facts_of(data: Path) -> tuple[dict[str, bytes], list[str]]:
    checkpoint = Checkpoint(DataFolder(data), read_only=True)
    lines = (line.partition(b'":') for line in checkpoint._facts.lines())
    return {name[1:].decode(): fact for name, _, fact in lines}, checkpoint.completed


def test_a_damaged_checkpoint_is_never_believed(
    finished: Path, whole: bool, record_property: Tell, tmp_path: Path
) -> None:
    data = copied(finished, tmp_path / "data")
    path = DataFolder(data).checkpoint
    content, (facts, completed) = path.read_bytes(), facts_of(data)
    assert len(facts) > 20
    cases = 0
    for what, damaged in damages(content, 400 if whole else 30):
        path.write_bytes(damaged)
        found, listed = facts_of(data)
        assert found in ({}, facts), what
        assert listed in ([], completed), what
        cases += 1
    record_property("cases", cases)


def test_a_damaged_journal_loses_lines_but_shows_nothing_wrong(
    finished: Path, whole: bool, record_property: Tell, tmp_path: Path
) -> None:
    data = copied(finished, tmp_path / "data")
    folder = DataFolder(data)
    facts, completed = facts_of(data)
    folder.checkpoint.unlink()
    with_journal(folder, facts, completed)
    content = folder.journal.read_bytes()
    assert facts_of(data) == (facts, completed)
    cases = 0
    for what, damaged in damages(content, 400 if whole else 30):
        folder.journal.write_bytes(damaged)
        found, listed = facts_of(data)
        assert found.items() <= facts.items(), what
        assert set(listed) <= set(completed), what
        cases += 1
    record_property("cases", cases)


def with_journal(folder: DataFolder, facts: dict[str, bytes], completed: list[str]) -> None:
    """Record facts again, one line each, as a run that was killed leaves them."""
    checkpoint = Checkpoint(folder)
    for key, fact in facts.items():
        checkpoint._record(key, json.loads(fact))
    for name in completed:
        checkpoint.complete(folder.root / name)
    checkpoint.close()


@pytest.mark.points(0, 12)
@pytest.mark.parametrize("name", ["checkpoint", "lock"])
def test_a_run_with_damaged_records_ends_as_always(
    part: int,
    parts: int,
    name: str,
    extracting: Baseline,
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = copied(finished, tmp_path / "data")
    path: Path = getattr(DataFolder(data), name)
    path.write_bytes(list(damages(path.read_bytes() or b"{}", parts))[part][1])
    if name == "lock" and (damaged := path.read_bytes()) and extracting.scenario.repeat(data) == 3:
        # It may be a file of somebody else: it stays as it is until the user has moved it away.
        assert str(path) in capsys.readouterr().err
        assert path.read_bytes() == damaged
        path.unlink()
    extracting.require_recovery(data)


def test_a_damaged_selection_is_refused_by_name(
    finished: Path, whole: bool, record_property: Tell, tmp_path: Path
) -> None:
    """It decides which files are used, so it is never guessed; blanks between its values may change."""
    folder = DataFolder(copied(finished, tmp_path / "data"))
    content, before = folder.selection.read_bytes(), load(folder)
    found = harmless = 0
    for what, damaged in damages(content, 200 if whole else 30):
        folder.selection.write_bytes(damaged)
        problem = refusal(folder)
        if problem is None:
            assert load(folder) == before, what
            harmless += 1
        else:
            assert problem.startswith(f"{folder.selection}: the recorded selection is damaged"), what
            found += 1
    record_property("cases", found + harmless)
    assert found > harmless


def refusal(folder: DataFolder) -> str | None:
    try:
        load(folder)
    except DataError as error:
        return str(error)
    return None


@pytest.mark.points(1, 60)
@pytest.mark.parametrize("suffix", [".identified.json", ".identified_protein.fa"])
def test_damage_of_a_data_set_is_found(
    part: int,
    parts: int,
    suffix: str,
    building: Baseline,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Files are recomputed, a record that cannot be right is refused by name."""
    data = copied(building.scenario.start, tmp_path / "data")
    assert building.scenario.repeat(data) == 0
    path = next(data.glob(f"bacteria*{suffix}"))
    content = path.read_bytes()
    what, damaged = list(damages(content, parts))[part]
    path.write_bytes(damaged)
    capsys.readouterr()
    if building.scenario.repeat(data) != 0:
        assert str(path) in capsys.readouterr().err, what
        path.write_bytes(content)
    assert building.scenario.repeat(data) == 0
    assert state(data) == building.final, what
    assert leftovers(data) == []


def test_nothing_that_is_not_finite_is_read(finished: Path, tmp_path: Path) -> None:
    """Also where all checksums are right: a file that was written wrong."""
    from nucpro.formats.archive import archive_pieces
    from nucpro.formats.pickles import dump
    from nucpro.formats.vectors import value_of

    data = copied(finished, tmp_path / "data")
    pair = pairs_of(data)[0]
    file = read_merged(pair.merged)
    for value in (np.nan, np.inf):
        wrong = file.vectors.copy()
        wrong[2, 700] = value
        pickle = dump(value_of("merged", file.ids, wrong.shape[1], file.label, file.meta))
        pair.merged.write_bytes(b"".join(map(bytes, archive_pieces(pickle, wrong.data.cast("B")))))
        problems = validate_file(ValidationTask(pair, WIDTH)).problems
        assert len(problems) == 1
        assert f"{pair.merged}: row 2 ({file.ids[2]!r}) holds {value} at column 700" in problems[0]
