"""Which files: all viral ones and a draw of hosts that depends on nothing but the files there are."""

from __future__ import annotations

import hashlib
import json
import math
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucpro.errors import DataError, PreflightError, RecordError
from nucpro.folder.paths import HOST_CATEGORIES, DataFolder, FilePair, Source
from nucpro.folder.selection import Recorded, Selection, draw_hosts, load, save, select
from nucpro.formats.records import write_record
from nucpro.options import HostSelection


def pairs(category: str, count: int, root: Path = Path("data")) -> list[FilePair]:
    source = Source(root, f"{category}.1.1.identified_nucleotide.fa")
    return [source.pair(number) for number in range(1, count + 1)]


def folder_with(viral: int, each: int) -> list[FilePair]:
    hosts = [pair for category in HOST_CATEGORIES for pair in pairs(category, each)]
    return [*pairs("viral", viral), *hosts]


def nothing(_: FilePair) -> bool:
    return False


counts = st.dictionaries(st.sampled_from(HOST_CATEGORIES), st.integers(0, 30))


@given(counts=counts, viral=st.integers(1, 60), seed=st.integers())
def test_the_draw_keeps_its_shares_and_ignores_order(counts: dict[str, int], viral: int, seed: int) -> None:
    full = [pair for category, number in counts.items() for pair in pairs(category, number)]
    drawn = draw_hosts(full, viral)
    shuffled = random.Random(seed).sample(full, len(full))
    assert draw_hosts(shuffled, viral) == drawn
    share = math.ceil(viral / 7)
    available = sum(min(share, number) for number in counts.values())
    assert len(drawn) == len(set(drawn)) == min(viral, available)
    for category in counts:
        assert sum(pair.category == category for pair in drawn) <= share


def test_the_draw_is_the_one_of_seed_42() -> None:
    drawn = draw_hosts([p for p in folder_with(9, 5) if p.category != "viral"], 9)
    generator = random.Random(42)
    expected: list[FilePair] = []
    for category in HOST_CATEGORIES:
        expected += generator.sample(pairs(category, 5), 2)
    expected = generator.sample(expected, 9)
    assert sorted(p.key for p in drawn) == sorted(p.key for p in expected)


def test_all_viral_files_are_used_in_natural_order() -> None:
    selection = select(folder_with(12, 2)[::-1], nothing, None)
    assert [pair.number for pair in selection.viral] == list(range(1, 13))
    assert selection.reason == "seeded"


def test_no_viral_file_is_an_error() -> None:
    with pytest.raises(PreflightError) as caught:
        select(pairs("plant", 3), nothing, None)
    assert caught.value.problems == (
        "no full viral split file was found; at least one is needed (see --sequences-per-file)",
    )


def test_files_of_no_category_are_not_used() -> None:
    selection = select([*folder_with(2, 1), *pairs("unknown", 5)], nothing, None, HostSelection.ALL)
    assert {pair.category for pair in selection.hosts} == set(HOST_CATEGORIES)


def test_existing_outputs_decide_before_a_draw() -> None:
    full = folder_with(2, 4)
    chosen = set(pairs("fungi", 4))
    selection = select(full, lambda pair: pair in chosen, None)
    assert set(selection.hosts) == chosen
    assert selection.reason == "existing"


def test_the_record_decides_before_existing_outputs() -> None:
    recorded = Recorded(10_000, tuple(pair.key for pair in pairs("plant", 2)), "seeded")
    selection = select(folder_with(2, 4), lambda _: True, recorded)
    assert selection.hosts == tuple(pairs("plant", 2))
    assert selection.reason == "recorded"


def test_a_named_way_overrides_the_record() -> None:
    recorded = Recorded(10_000, (), "seeded")
    full = folder_with(2, 4)
    everything = select(full, nothing, recorded, HostSelection.ALL)
    assert (len(everything.hosts), everything.reason) == (28, "all")
    assert select(full, lambda _: True, recorded, HostSelection.SEEDED).reason == "seeded"
    assert select(full, nothing, recorded, HostSelection.SEEDED).reason == "seeded"
    assert select(full, nothing, recorded, HostSelection.EXISTING).hosts == ()


def test_a_recorded_file_that_is_gone_is_an_error() -> None:
    recorded = Recorded(10_000, (pairs("plant", 9)[-1].key,), "seeded")
    with pytest.raises(PreflightError) as caught:
        select(folder_with(2, 4), nothing, recorded)
    assert caught.value.problems == (
        f"{recorded.hosts[0]}: chosen by an earlier run (of files of 10000 records), but not among the full files "
        "of this one; bring it back, give that --sequences-per-file, or select again with --host-selection existing "
        "or seeded",
    )


def test_too_few_hosts_are_reported() -> None:
    full = [*pairs("viral", 15), *pairs("plant", 9), *pairs("fungi", 1)]
    warnings = select(full, nothing, None).warnings
    assert "fungi has 1 full file, fewer than its share of 3" in warnings
    assert "vertebrate has 0 full files, fewer than its share of 3" in warnings
    assert warnings[-1] == "only 4 host files for 15 viral files: the classes are unbalanced"


def test_enough_hosts_give_no_warning() -> None:
    assert select(folder_with(14, 2), nothing, None).warnings == ()


def test_a_selection_is_recorded_and_loaded(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    assert load(folder) is None
    selection = select(folder_with(3, 1), nothing, None)
    save(folder, selection, 10_000)
    recorded = load(folder)
    assert recorded == Recorded(10_000, tuple(pair.key for pair in selection.hosts), "seeded")
    before = folder.selection.read_bytes()
    save(folder, Selection(selection.viral, (), "recorded"), 10_000)
    assert folder.selection.read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x02}", b"[]", b'{"hosts": 3}', b"[" * 100_000, json.dumps({"hosts": []}).encode()]
)
def test_a_damaged_record_is_never_guessed(tmp_path: Path, content: bytes) -> None:
    folder = DataFolder(tmp_path)
    folder.selection.write_bytes(content)
    with pytest.raises(DataError, match="the recorded selection is damaged") as caught:
        load(folder)
    assert str(caught.value).startswith(f"{folder.selection}: ")
    assert str(caught.value).endswith(
        "; restore it from a backup, or remove it so that the files that have outputs are selected again"
    )


@pytest.mark.parametrize("name", ["viral", "hosts"])
def test_a_record_that_names_a_file_twice_is_refused(tmp_path: Path, name: str) -> None:
    keys = {"viral": ["viral.1.1/output_1.fa"], "hosts": ["plant.1.1/output_1.fa"]}
    content = {"format": 1, "reason": "seeded", "sequences_per_file": 4, **keys, name: 2 * keys[name]}
    write_record(DataFolder(tmp_path).selection, content)
    with pytest.raises(RecordError, match=r"is damaged \(it names a file twice\); restore it from a backup"):
        load(DataFolder(tmp_path))


def test_the_record_can_be_read_by_people(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    viral, hosts = pairs("viral/ü", 1), pairs("plant", 1)
    save(folder, Selection(tuple(viral), tuple(hosts), "seeded"), 7)
    content = {
        "format": 1,
        "reason": "seeded",
        "sequences_per_file": 7,
        "viral": ["viral/ü.1.1.identified_nucleotide/output_1.fa"],
        "hosts": ["plant.1.1.identified_nucleotide/output_1.fa"],
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    text = json.dumps(content | {"sha256": digest}, indent=1, ensure_ascii=False) + "\n"
    assert folder.selection.read_text(encoding="utf-8") == text
