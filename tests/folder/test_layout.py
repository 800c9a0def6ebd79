"""Paths: only the component that carries the meaning changes, whatever folders are called."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucpro.errors import DataError, PreflightError
from nucpro.folder.paths import (
    CATEGORIES,
    DataFolder,
    ExportFolder,
    Source,
    category_of,
    contradiction_in,
    natural_key,
    split_number,
    walk_failed,
)
from nucpro.formats.atomic import TEMPORARY_MARK, name_problem, temporary_start
from nucpro.formats.opening import is_litter

ODD = [
    "my.family.fa",
    "ESM_runs",
    "nucleotide",
    "a DNABERT_S b",
    "x.identified_nucleotide",
    "näme ü",
    "out_1.fa",
    "p",
]
odd_paths = st.lists(st.sampled_from(ODD), max_size=3)


def written(root: Path, *parts: str) -> Path:
    path = root.joinpath(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(">a\nA\n")
    return path


@given(above=odd_paths, below=odd_paths, number=st.integers(1, 10**6))
def test_every_path_is_where_the_contract_says(above: list[str], below: list[str], number: int) -> None:
    root = Path("/", *above)
    parent = root.joinpath("viral", *below)
    source = DataFolder(root).source_of(parent / "viral.1.1.identified_nucleotide.fa")
    assert source is not None
    pair = source.pair(number)
    assert source.protein_fasta == parent / "viral.1.1.identified_protein.fa"
    assert pair.nucleotide_fasta == parent / "viral.1.1.identified_nucleotide" / f"output_{number}.fa"
    assert pair.dna_vectors == parent / "viral.1.1.identified_nucleotide" / f"output_{number}_DNABERT_S.pt"
    assert pair.protein_fasta == parent / "viral.1.1.identified_protein" / f"output_{number}.fa"
    assert pair.protein_vectors == parent / "viral.1.1.identified_protein" / f"output_{number}_ESM.pt"
    merged = root.joinpath("data_merge", "viral", *below, "viral.1.1_merged", f"output_{number}_merged.pt")
    assert pair.merged == merged
    assert (pair.category, pair.label) == ("viral", 1)


@given(above=odd_paths, below=odd_paths, number=st.integers(1, 10**6))
def test_a_pair_is_found_again_from_its_files_and_its_key(
    above: list[str], below: list[str], number: int
) -> None:
    folder = DataFolder(Path("/", *above))
    source = folder.source_of(folder.root.joinpath(*below, "plant.2.1.identified_nucleotide.fa"))
    assert source is not None
    pair = source.pair(number)
    assert folder.pair_of(pair.nucleotide_fasta) == pair
    assert folder.pair_of(pair.protein_fasta) == pair
    assert folder.pair_of_key(pair.key) == pair
    for other in (pair.nucleotide_fasta.as_posix(), f"../{pair.key}", f"x/../{pair.key}", "output_1.fa", ""):
        assert folder.pair_of_key(other) is None
    assert folder.pair_of(pair.merged) is None


@pytest.mark.parametrize(
    ("path", "category"),
    [
        ("vertebrate_mammalian.3.1.identified_nucleotide.fa", "vertebrate"),
        ("vertebrate_other.1.1.identified_nucleotide.fa", "vertebrate"),
        ("invertebrate.1.1.identified_nucleotide.fa", "invertebrate"),
        ("viral/deeper/viral.1.1.identified_nucleotide.fa", "viral"),
        ("archaea.1.1.identified_nucleotide.fa", "archaea"),
        ("my_viral.1.1.identified_nucleotide.fa", None),
        ("viral.identified_nucleotide.fa", "viral"),
        ("viral_and_hosts/plant.1.1.genomic.fna.gz", "plant"),
        ("plant_viruses/viral.1.1.genomic.fna.gz", "viral"),
        ("plant_viruses/x.identified_nucleotide.fa", None),
        ("vertebrates/x.identified_nucleotide.fa", None),
        ("viralis.1.1.identified_nucleotide.fa", None),
        ("bacteriaphages.fa", None),
        ("viral/NC_001416.identified_nucleotide.fa", "viral"),
        ("vertebrate_other/2020/x.identified_nucleotide.fa", "vertebrate"),
        ("plastid/x.identified_nucleotide.fa", None),
        ("plastid/plant.1.1.genomic.fna.gz", "plant"),
        ("viral.1.1.identified_nucleotide/output_3.fa", "viral"),
        ("a/fungi.1.1.identified_protein/output_3_ESM.pt", "fungi"),
        ("a/fungi.1.1.identified_nucleotide/output_3_DNABERT_S.pt", "fungi"),
        ("a/fungi.1.1_merged/output_3_merged.pt", "fungi"),
        ("viral/x_merged/output_3_merged.pt", "viral"),
        ("viral_merged/plant.1.1.identified_nucleotide.fa", "plant"),
        ("viral_merged/x.identified_nucleotide.fa", None),
        ("output_1_merged.pt", None),
        ("Viral.1.1.identified_nucleotide.fa", None),
        ("", None),
    ],
)
def test_the_files_name_says_the_category_then_a_folder_by_its_whole_name(
    path: str, category: str | None
) -> None:
    assert category_of(path) == category
    assert category is None or category in CATEGORIES
    assert contradiction_in(path) is None


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("viral/plant.1.1.identified_nucleotide.fa", ("plant.1.1.identified_nucleotide.fa", "viral")),
        ("bacteria/new/viral.1.1_merged/output_1_merged.pt", ("viral.1.1_merged", "bacteria")),
        (
            "vertebrate_other/invertebrate.1.1.genomic.fna.gz",
            ("invertebrate.1.1.genomic.fna.gz", "vertebrate_other"),
        ),
        ("viral/fungi/x.identified_nucleotide.fa", ("fungi", "viral")),
    ],
)
def test_a_path_that_names_two_categories_is_in_doubt(path: str, names: tuple[str, str]) -> None:
    doubt = contradiction_in(path)
    assert doubt is not None
    first, second = (category_of(name) for name in names)
    assert doubt == (
        f"{names[0]} means {first}, but its folder {names[1]} means {second}, "
        "so its class is in doubt; move it, or rename the folder"
    )


def test_two_categories_stop_discovery_with_all_paths(tmp_path: Path) -> None:
    for name in ("viral/plant.1.1", "viral/viral.1.1", "fungi/bacteria.1.1"):
        written(tmp_path, *f"{name}.identified_nucleotide.fa".split("/"))
    with pytest.raises(PreflightError) as caught:
        DataFolder(tmp_path).walk_sources()
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        str(tmp_path / "fungi" / "bacteria.1.1.identified_nucleotide.fa"),
        str(tmp_path / "viral" / "plant.1.1.identified_nucleotide.fa"),
    ]


def test_a_pair_of_no_category_has_no_label() -> None:
    pair = Source(Path("d"), "x.identified_nucleotide.fa").pair(1)
    with pytest.raises(DataError, match=r"output_1.fa: its class is unknown: its name must begin with viral"):
        _ = pair.label


LITTER = [
    "._viral.1.1.identified_nucleotide.fa",
    ".viral.1.1.identified_nucleotide.fa",
    ".nfs000/viral.1.1.identified_nucleotide.fa",
    ".snapshot/hourly.0/viral.1.1.identified_nucleotide.fa",
    ".stversions/viral.1.1.identified_nucleotide.fa",
    ".Trash-1000/files/viral.1.1.identified_nucleotide.fa",
    ".ipynb_checkpoints/viral.1.1.identified_nucleotide.fa",
    "__MACOSX/._viral.1.1.identified_nucleotide.fa",
    "__MACOSX/viral.1.1.identified_nucleotide.fa",
    "@eaDir/viral.1.1.identified_nucleotide.fa",
    "#recycle/viral.1.1.identified_nucleotide.fa",
    "lost+found/viral.1.1.identified_nucleotide.fa",
    "~$viral.1.1.identified_nucleotide.fa",
]


@pytest.mark.parametrize("name", LITTER)
def test_litter_is_no_source(tmp_path: Path, name: str) -> None:
    written(tmp_path, *name.split("/"))
    written(tmp_path, "viral.2.1.identified_nucleotide.fa")
    assert [source.name for source in DataFolder(tmp_path).walk_sources()] == ["viral.2.1"]


@pytest.mark.parametrize("name", ["a~", "#a#", ".DS_Store", "lost+found"])
def test_litter_is_known_by_its_name(name: str) -> None:
    assert is_litter(name)
    assert not any(is_litter(name) for name in ("a", "a~b", "#a", "$a", "viral.1.1.genomic", "~a"))


def test_litter_is_no_merged_file(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    good = written(tmp_path, "data_merge", "viral.1.1_merged", "output_1_merged.pt")
    written(tmp_path, "data_merge", "viral.1.1_merged", "._output_1_merged.pt")
    written(tmp_path, "data_merge", ".snapshot", "viral.1.1_merged", "output_1_merged.pt")
    assert folder.merged_files() == [good]


def test_natural_order_counts() -> None:
    names = ["output_10.fa", "output_2.fa", "output_1.fa", "plant.10.1", "plant.9.10", "plant.9.9"]
    expected = ["output_1.fa", "output_2.fa", "output_10.fa", "plant.9.9", "plant.9.10", "plant.10.1"]
    assert sorted(names, key=natural_key) == expected


@pytest.mark.parametrize(
    "name", ["output_0.fa", "output_01.fa", "output_1.fasta", "output_.fa", "xoutput_1.fa"]
)
def test_other_names_are_no_split_files(name: str) -> None:
    assert split_number(name) is None


def test_the_walk_finds_sources_in_sub_folders_but_not_in_outputs(tmp_path: Path) -> None:
    inside = ["viral.1.1.identified_nucleotide.fa", "deep/er/plant.1.1.identified_nucleotide.fa"]
    inside.append("x.identified_nucleotide/fungi.1.1.identified_nucleotide.fa")
    for relative in inside:
        written(tmp_path, *relative.split("/"))
    written(tmp_path, "viral.1.1.identified_nucleotide", "output_1.identified_nucleotide.fa")
    written(tmp_path, "data_merge", "viral.1.1.identified_nucleotide.fa")
    found = [source.relative for source in DataFolder(tmp_path).walk_sources()]
    assert found == sorted(inside)


def test_links_are_followed_once(tmp_path: Path) -> None:
    data, other = tmp_path / "data", tmp_path / "other disk"
    written(other, "bacteria.1.1.identified_nucleotide.fa")
    data.mkdir()
    (data / "bacteria").symlink_to(other, target_is_directory=True)
    (other / "again").symlink_to(data, target_is_directory=True)
    (tmp_path / "link").symlink_to(data, target_is_directory=True)
    found = [source.relative for source in DataFolder(tmp_path / "link").walk_sources()]
    assert found == ["bacteria/bacteria.1.1.identified_nucleotide.fa"]


@pytest.mark.parametrize("form", ["{}", "{}/", "{}/../data", "./data"])
def test_any_way_to_name_the_folder_gives_the_same_keys(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    written(data, "viral.1.1.identified_nucleotide.fa")
    monkeypatch.chdir(tmp_path)
    (source,) = DataFolder(Path(form.format(data))).walk_sources()
    assert source.pair(3).key == "viral.1.1.identified_nucleotide/output_3.fa"
    assert source.nucleotide_fasta.samefile(data / "viral.1.1.identified_nucleotide.fa")


def test_two_sources_of_one_name_do_not_share_their_merged_folder() -> None:
    folder = DataFolder(Path("data"))
    paths = [Path("data/viral_a/x.identified_nucleotide.fa"), Path("data/viral_b/x.identified_nucleotide.fa")]
    sources = [folder.source_of(path) for path in paths]
    assert len({source.merged_folder for source in sources if source}) == 2


@pytest.mark.parametrize(
    "relative", ["viral.1.1.identified_nucleotide.fa", "sub dir/my.family.identified_nucleotide.fa"]
)
def test_a_merged_file_leads_back_to_its_pair(tmp_path: Path, relative: str) -> None:
    pair = Source(tmp_path, relative).pair(12)
    assert DataFolder(tmp_path).pair_of_merged(pair.merged) == pair


@pytest.mark.parametrize(
    "name", ["viral_merged/output_0_merged.pt", "viral_merged/output_1.pt", "viral/output_1_merged.pt"]
)
def test_a_file_of_another_name_below_data_merge_leads_to_no_pair(tmp_path: Path, name: str) -> None:
    folder = DataFolder(tmp_path)
    assert folder.pair_of_merged(folder.merge_root / name) is None


def test_the_files_beside_the_data_have_their_names() -> None:
    folder = DataFolder(Path("data"))
    names = {
        "checkpoint": ".extraction_checkpoint.json",
        "journal": ".extraction_journal.jsonl",
        "selection": ".extraction_selection.json",
        "lock": ".extraction.lock",
        "log": "extraction.log",
        "merge_root": "data_merge",
    }
    assert {name: getattr(folder, name) for name in names} == {
        name: Path("data", file) for name, file in names.items()
    }
    assert DataFolder.of_checkpoint(folder.checkpoint) == folder


def test_numbers_come_before_letters() -> None:
    assert sorted(["a1", "1a", "b", "10"], key=natural_key) == ["1a", "10", "a1", "b"]


def test_linked_folders_are_walked_once_and_litter_never(tmp_path: Path) -> None:
    data, elsewhere = DataFolder(tmp_path / "data"), tmp_path / "elsewhere"
    merged = elsewhere / "viral.1.1_merged" / "output_1_merged.pt"
    for path in (
        merged,
        elsewhere / ".snapshot" / "output_2_merged.pt",
        elsewhere / "viral.1.1_merged" / "x.txt",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert data.merged_files() == []
    data.merge_root.mkdir(parents=True)
    (data.merge_root / "more").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(data.merge_root)
    assert data.merged_files() == [data.merge_root / "more" / "viral.1.1_merged" / "output_1_merged.pt"]


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        PreflightError, match=r"no: cannot be read \(No such file or directory\); check owner"
    ):
        DataFolder(tmp_path / "no").walk_sources()
    with pytest.raises(PreflightError) as caught:
        walk_failed(PermissionError(13, "Permission denied", "deep/er"))
    assert caught.value.problems == ("deep/er: cannot be read (Permission denied); check owner and rights",)


def test_names_in_a_folder_of_exported_rows(tmp_path: Path) -> None:
    folder = ExportFolder(tmp_path / "my export")
    assert folder.manifest == tmp_path / "my export" / "_manifest.json"
    assert folder.checksums == tmp_path / "my export" / "_SHA256SUMS"
    assert folder.journal == tmp_path / "my export" / ".export_journal.jsonl"
    assert folder.lock == tmp_path / "my export" / ".export.lock"
    source = DataFolder(tmp_path).source_of(tmp_path / "sub.fa" / "viral.1.1.identified_nucleotide.fa")
    shard = folder.shard_of(source.pair(3), ".parquet")
    assert shard == "sub.fa/viral.1.1_merged/output_3_merged.parquet"
    assert (
        folder.path_of(shard)
        == tmp_path / "my export" / "sub.fa" / "viral.1.1_merged" / "output_3_merged.parquet"
    )


@given(
    st.text(st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1, max_size=300)
)
def test_names_of_unfinished_files_are_never_too_long(name: str) -> None:
    start = temporary_start(name)
    assert start.startswith(".")
    assert start.endswith(TEMPORARY_MARK)
    assert len(os.fsencode(start)) + 20 <= 255
    assert start == f".{name}{TEMPORARY_MARK}" or len(os.fsencode(name)) > 220


def test_long_names_of_unfinished_files_do_not_meet() -> None:
    long = "x" * 220
    assert temporary_start(f"{long}protein") != temporary_start(f"{long}nucleotide")


def test_names_longer_than_file_systems_take_are_reported() -> None:
    assert name_problem(Path("d" * 300, "x" * 255)) is None
    assert name_problem(Path("ü" * 128)) == "its name has 256 bytes, a file system takes 255"


@given(st.lists(st.text("a-_./09173é\x01٣", max_size=8), max_size=12))
def test_natural_order_compares_part_by_part(names: list[str]) -> None:
    def parts(name: str) -> list[tuple[int, int | str]]:
        found = re.findall("[0-9]+|[^0-9]+", name)
        return [(0, int(part)) if part[0] in "0123456789" else (1, part) for part in found]

    assert sorted(names, key=natural_key) == sorted(names, key=parts)


def test_pairs_sort_by_their_keys(tmp_path: Path) -> None:
    names = ("viral.2.1", "viral.10.1", "viral.2.1.identified_nucleotide/output_7", "a/viral.1.1")
    sources = [Source(tmp_path, f"{name}.identified_nucleotide.fa") for name in names]
    pairs = [source.pair(number) for source in sources for number in (1, 9, 10, 100)]
    assert all(pair.order == natural_key(pair.key) for pair in pairs)


def test_pairs_that_workers_return_share_their_source(tmp_path: Path) -> None:
    source = Source(tmp_path, "viral.1.1.identified_nucleotide.fa")
    assert source.pair(1).merged.name == "output_1_merged.pt"
    one, two = (pickle.loads(pickle.dumps(source.pair(number))) for number in (1, 2))
    assert (one, two) == (source.pair(1), source.pair(2))
    assert one.source is two.source


def test_sources_keep_no_paths(tmp_path: Path) -> None:
    source = Source(tmp_path, "viral.1.1.identified_nucleotide.fa")
    assert source.pair(1).files[-1].name == "output_1_merged.pt"
    assert not hasattr(source, "__dict__"), "folders hold thousands of sources"
