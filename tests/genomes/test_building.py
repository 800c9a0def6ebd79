"""Whole runs on real and made-up genomes: what they write, what they count, and how they go on."""

from __future__ import annotations

import gzip
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import gb_io
import pytest
from annotated_genomes import DEMO, Gene, Genome, gene, outputs, write_fasta, write_genbank, write_pair

from frame_reference import kept
from nucpro.cli import main
from nucpro.errors import (
    DataError,
    LockedError,
    PreflightError,
    UsageError,
    ValidationError,
    WorkerError,
)
from nucpro.folder.paths import DataFolder
from nucpro.formats.atomic import TEMPORARY_MARK
from nucpro.formats.records import write_record
from nucpro.genomes.dataset import build
from nucpro.genomes.options import DatasetOptions
from nucpro.genomes.reports import Counts
from nucpro.progress import Progress
from nucpro.state.lock import hold

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())
ONE = DatasetOptions(workers=1)


def alone(length: int = 300, **changes: object) -> DatasetOptions:
    return DatasetOptions(length, workers=1, **changes)  # type: ignore[arg-type]


@pytest.fixture
def every_category(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    shutil.copytree(DEMO, folder, ignore=shutil.ignore_patterns("*.md"))
    return folder


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for path in sorted(DEMO.glob("[vf][iu]*.gz")):
        shutil.copy(path, folder)
    return folder


def digests(folder: Path, stem: str) -> dict[str, object]:
    contents = {
        sequence_type: (folder / f"{stem}.identified_{sequence_type}.fa").read_bytes()
        for sequence_type in ("nucleotide", "protein")
    }
    found: dict[str, object] = {
        sequence_type: hashlib.sha256(content).hexdigest() for sequence_type, content in contents.items()
    }
    return {"records": contents["nucleotide"].count(b">"), **found}


def contents(folder: Path) -> dict[str, bytes]:
    """Everything that a run may write, by path."""
    names = (path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".gz"))
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in names if path.name != ".extraction.lock"
    }


# The digests are those of VirNucPro's own code on these genomes.
@pytest.mark.parametrize("length", [300, 500])
def test_real_genomes_give_the_files_of_the_original(every_category: Path, length: int) -> None:
    report = build(every_category, alone(length))
    assert report.length == length
    for source in report.sources:
        stem = source.name.removesuffix(".genomic.fna.gz")
        assert digests(every_category, stem) == GOLDEN[str(length)][stem]
        assert source.counts.kept_frames == GOLDEN[str(length)][stem]["records"]
        assert source.made
    assert len(report.sources) == 8
    assert report.totals.records == report.totals.annotated_records == 15


@pytest.mark.parametrize("length", [300, 500])
def test_archaea_give_the_files_of_the_original(real_data: Path, tmp_path: Path, length: int) -> None:
    for path in (real_data / "refseq_mini").glob("archaea.*.gz"):
        shutil.copy(path, tmp_path)
    build(tmp_path, alone(length))
    assert digests(tmp_path, "archaea.1.1") == GOLDEN[str(length)]["archaea.1.1"]


def test_real_genomes_by_the_code_of_each_cds(every_category: Path) -> None:
    report = build(every_category, alone(genetic_code="auto"))
    by_category = {category: counts.kept_frames for category, counts in report.by_category.items()}
    assert by_category == {
        "bacteria": 28,
        "fungi": 376,
        "invertebrate": 35,
        "plant": 187,
        "protozoa": 3,
        "vertebrate": 33,
        "viral": 192,
    }
    assert report.totals.lost_frames == 0


def test_what_the_standard_code_loses_is_counted_and_named(every_category: Path) -> None:
    report = build(every_category, ONE)
    lost = {source.name.partition(".")[0]: source.counts.lost_frames for source in report.sources}
    assert {name: count for name, count in lost.items() if count} == {
        "invertebrate": 28,
        "vertebrate_mammalian": 26,
    }
    examples = [source.examples["lost_frames"] for source in report.sources if source.counts.lost_frames]
    assert examples == [["NC_024511.2"], ["NC_012920.1"]]
    assert report.totals.cds_across_origin == 3
    assert report.totals.cds_without_translation == 2
    assert report.totals.ambiguous_chunks == 1


PROTEIN = "MKVLAAGIVGLSR"
CODING = "ATGAAAGTTCTTGCTGCTGGTATTGTTGGTCTTTCTCGT"


def test_every_outcome_of_a_record_is_counted_and_named(tmp_path: Path) -> None:
    across_origin = gb_io.Join([gb_io.Range(60, 78), gb_io.Range(0, 9)])
    good = Genome("GOOD.1", CODING, [gene(PROTEIN)])
    genbank = [
        good,
        Genome("EMPTY.1", "A", [gene(PROTEIN)]),
        Genome("OTHER.2", CODING, [gene(PROTEIN)]),
        Genome("BARE.1", CODING),
        Genome("PSEUDO.1", CODING, [gene(None, pseudo=""), gene("")]),
        Genome("RING.1", CODING * 2, [Gene(across_origin, {"translation": "M"})]),
        Genome("TWICE.1", CODING, [gene("W")]),
        Genome("TWICE.1", CODING, [gene(PROTEIN, transl_table="99")]),
        Genome("UNUSED.1", CODING, [gene(PROTEIN)]),
    ]
    fasta = [(genome.name, genome.bases) for genome in (*genbank[:1], *genbank[3:7])]
    fasta += [
        ("EMPTY.1", ""),
        ("OTHER.1", CODING),
        ("ALIEN.1", CODING),
        ("GOOD.1", CODING),
        ("AMBIGUOUS.1", CODING),
    ]
    fasta += [("LATE.1", "N" + CODING)]
    genbank += [Genome("LATE.1", "N" + CODING, [gene(PROTEIN)])]
    write_fasta(tmp_path / "viral.1.1.genomic.fna.gz", fasta)
    write_genbank(tmp_path / "viral.1.genomic.gbff.gz", genbank)
    (source,) = build(tmp_path, ONE).sources
    expected = Counts(
        records=11,
        annotated_records=4,
        empty_records=1,
        duplicate_records=1,
        records_not_in_genbank=2,
        records_of_other_version=1,
        records_without_cds=1,
        records_without_translation=1,
        genbank_records=10,
        duplicate_genbank_records=1,
        cds=10,
        cds_without_translation=2,
        cds_across_origin=1,
        cds_of_unknown_code=1,
        chunks=4,
        ambiguous_chunks=1,
        frames=18,
        kept_frames=2,
    )
    actual = asdict(source.counts)
    assert actual.pop("frames_with_stop") + actual.pop("frames_not_in_cds") == 16
    assert actual == {name: count for name, count in asdict(expected).items() if name in actual}
    assert source.examples == {
        "empty_records": ["EMPTY.1"],
        "duplicate_records": ["GOOD.1"],
        "records_not_in_genbank": ["ALIEN.1", "AMBIGUOUS.1"],
        "records_of_other_version": ["OTHER.1"],
        "records_without_cds": ["BARE.1"],
        "records_without_translation": ["PSEUDO.1"],
        "duplicate_genbank_records": ["TWICE.1"],
        "cds_without_translation": ["PSEUDO.1"],
        "cds_across_origin": ["RING.1"],
        "cds_of_unknown_code": ["TWICE.1"],
        "ambiguous_chunks": ["LATE.1"],
    }
    assert [name for name, _, _ in outputs(tmp_path, "viral.1.1")] == [
        "GOOD.1_chunk_1F1",
        "TWICE.1_chunk_1F1",
    ]


def test_records_may_come_in_another_order_than_in_genbank(tmp_path: Path) -> None:
    generator = random.Random(3)
    genomes = [Genome(f"NC_{number}.1", CODING + "ACGT" * number, [gene(PROTEIN)]) for number in range(40)]
    shuffled = generator.sample(genomes, len(genomes))
    write_fasta(
        tmp_path / "viral.1.1.genomic.fna.gz", [(genome.name, genome.bases.lower()) for genome in shuffled]
    )
    write_genbank(tmp_path / "viral.1.genomic.gbff.gz", genomes)
    build(tmp_path, alone(30))
    assert outputs(tmp_path, "viral.1.1") == [
        record for genome in shuffled for record in kept(genome.name, genome.bases, [PROTEIN], 30)
    ]


def test_several_fasta_files_share_one_genbank_file(tmp_path: Path) -> None:
    genomes = [Genome(f"NC_{number}.1", CODING, [gene(PROTEIN)]) for number in (1, 2)]
    write_genbank(tmp_path / "plant.12.genomic.gbff.gz", genomes)
    for number, genome in enumerate(genomes, start=1):
        write_fasta(tmp_path / f"plant.12.{number}.genomic.fna.gz", [(genome.name, genome.bases)])
    report = build(tmp_path, ONE)
    assert [source.name for source in report.sources] == [f"plant.12.{n}.genomic.fna.gz" for n in (1, 2)]
    assert outputs(tmp_path, "plant.12.2") == [("NC_2.1_chunk_1F1", CODING, PROTEIN)]


def test_fasta_files_without_a_partner_are_named_and_left_out(every_category: Path) -> None:
    (every_category / "plant.1.genomic.gbff.gz").unlink()
    # Equal beginnings of names are no partnership.
    shutil.copy(every_category / "viral.1.genomic.gbff.gz", every_category / "plant.11.genomic.gbff.gz")
    report = build(every_category, ONE)
    assert report.without_partner == ("plant.1.1.genomic.fna.gz",)
    assert not list(every_category.glob("plant.*.fa"))
    assert len(report.sources) == 7


def test_sub_folders_links_and_odd_names(tmp_path: Path) -> None:
    odd = tmp_path / "my data.fa" / "genomic.fna.gz folder é"
    write_pair(odd, "viral.1", [Genome("NC_1.1", CODING, [gene(PROTEIN)])])
    write_pair(tmp_path / "elsewhere", "fungi.2", [Genome("NC_2.1", CODING, [gene(PROTEIN)])])
    write_pair(tmp_path / "my data.fa" / "data_merge", "plant.1", [Genome("NC_3.1", CODING, [gene(PROTEIN)])])
    (tmp_path / "my data.fa" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "my data.fa" / "linked" / "circle").symlink_to(tmp_path / "my data.fa")
    report = build(tmp_path / "my data.fa", ONE)
    assert [source.name for source in report.sources] == [
        "genomic.fna.gz folder é/viral.1.1.genomic.fna.gz",
        "linked/fungi.2.1.genomic.fna.gz",
    ]
    assert outputs(odd, "viral.1.1") == [("NC_1.1_chunk_1F1", CODING, PROTEIN)]


def test_a_source_without_a_frame_has_no_files_and_is_done(tmp_path: Path) -> None:
    write_pair(tmp_path, "viral.1", [Genome("NC_1.1", CODING, [gene("WWWW")])])
    assert build(tmp_path, ONE).totals.kept_frames == 0
    assert list(contents(tmp_path)) == ["viral.1.1.identified.json"]
    (again,) = build(tmp_path, ONE).sources
    assert not again.made


def test_worker_processes_change_nothing(every_category: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(every_category, other)
    alone_report = build(every_category, ONE)
    shown: list[Progress] = []
    report = build(other, DatasetOptions(workers=2), shown.append)
    assert report == alone_report
    assert contents(other) == contents(every_category)
    size = sum(path.stat().st_size for path in other.glob("*.gz"))
    assert (shown[0].done, shown[-1].done, shown[-1].total, len(shown)) == (0, size, size, 9)


def test_a_second_run_makes_nothing_and_reports_the_same(demo: Path) -> None:
    first = build(demo, ONE)
    before = {path: path.stat().st_mtime_ns for path in demo.glob("*.fa")}
    second = build(demo, ONE)
    assert {path: path.stat().st_mtime_ns for path in demo.glob("*.fa")} == before
    assert [source.made for source in second.sources] == [False] * 2
    assert [asdict(s) | {"made": True} for s in second.sources] == [asdict(s) for s in first.sources]


@pytest.mark.parametrize(
    "harm",
    [
        lambda demo: (demo / "viral.1.1.identified_protein.fa").unlink(),
        lambda demo: (demo / "viral.1.1.identified_nucleotide.fa").write_text(">a\nACGT\n"),
        lambda demo: (demo / "viral.1.1.identified_protein.fa").write_text(""),
    ],
    ids=["missing", "changed", "emptied"],
)
def test_a_file_that_is_not_as_recorded_is_made_again(demo: Path, harm: object) -> None:
    build(demo, ONE)
    right = contents(demo)
    harm(demo)  # type: ignore[operator]
    report = build(demo, ONE)
    assert [source.name for source in report.sources if source.made] == ["viral.1.1.genomic.fna.gz"]
    assert contents(demo) == right


def test_a_changed_file_that_is_made_again_is_named(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dataset", str(demo), "--length", "300"]) == 0
    assert "recreated" not in capsys.readouterr().err
    edited = demo / "viral.1.1.identified_protein.fa"
    edited.write_text(">mine\nMKV\n")
    assert main(["dataset", str(demo), "--length", "300"]) == 0
    assert f"recreated 1 FASTA file that differed from earlier output: {edited};" in capsys.readouterr().err


def test_genomes_that_changed_are_converted_again(demo: Path) -> None:
    build(demo, ONE)
    shutil.copy(demo / "fungi.1.1.genomic.fna.gz", demo / "viral.1.1.genomic.fna.gz")
    shutil.copy(demo / "fungi.1.genomic.gbff.gz", demo / "viral.1.genomic.gbff.gz")
    report = build(demo, ONE)
    assert [source.name for source in report.sources if source.made] == ["viral.1.1.genomic.fna.gz"]
    assert digests(demo, "viral.1.1") == GOLDEN["300"]["fungi.1.1"]


def test_split_folders_of_older_files_are_never_left_beside_new_ones(demo: Path) -> None:
    build(demo, ONE)
    (demo / "viral.1.1.identified_protein").mkdir()
    assert not any(source.made for source in build(demo, ONE).sources)
    (demo / "viral.1.1.identified_nucleotide.fa").unlink()
    with pytest.raises(
        DataError, match=r"viral\.1\.1\.identified_protein: holds split files of FASTA files that would be"
    ):
        build(demo, ONE)


@pytest.mark.parametrize("other", [alone(500), alone(genetic_code="auto")])
def test_another_kind_in_the_same_folder_is_refused(every_category: Path, other: DatasetOptions) -> None:
    build(every_category, ONE)
    before = contents(every_category)
    with pytest.raises(PreflightError) as caught:
        build(every_category, other)
    (problem,) = caught.value.problems
    assert problem == (
        f"{every_category}: made with length 300 and the standard genetic code: bacteria.1.1.identified_nucleotide.fa, "
        "fungi.1.1.identified_nucleotide.fa, invertebrate.1.1.identified_nucleotide.fa and 5 more; this run asks for "
        f"{other.length} and {other.genetic_code}, and one data folder holds one kind: use another folder, or recreate "
        "all with --replace"
    )
    assert contents(every_category) == before
    assert recorded_lengths(every_category) == {300}


def recorded_lengths(data: Path) -> set[int]:
    return {json.loads(path.read_bytes())["length"] for path in data.glob("*.identified.json")}


def test_replacing_makes_all_of_another_kind(demo: Path) -> None:
    build(demo, ONE)
    build(demo, alone(500, replace=True))
    assert digests(demo, "viral.1.1") == GOLDEN["500"]["viral.1.1"]
    assert recorded_lengths(demo) == {500}


def test_files_of_another_kind_whose_genomes_are_gone_cannot_be_replaced(demo: Path) -> None:
    build(demo, ONE)
    (demo / "viral.1.1.genomic.fna.gz").unlink()
    with pytest.raises(
        PreflightError, match=r"300 and the standard .*: viral\.1\.1\.identified_nucleotide\.fa;"
    ):
        build(demo, alone(500, replace=True))


def test_files_that_nothing_is_recorded_about_are_refused_and_replaced_on_request(demo: Path) -> None:
    for sequence_type in ("nucleotide", "protein"):
        (demo / f"viral.1.1.identified_{sequence_type}.fa").write_text(">a\nA\n")
    with pytest.raises(PreflightError) as caught:
        build(demo, ONE)
    assert [problem.partition(": ")[0] for problem in caught.value.problems] == [
        str(demo / f"viral.1.1.identified_{sequence_type}.fa") for sequence_type in ("nucleotide", "protein")
    ]
    assert "there is no record that nucpro wrote it; move it away" in str(caught.value)
    build(demo, alone(replace=True))
    assert digests(demo, "viral.1.1") == GOLDEN["300"]["viral.1.1"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"length": 300}', "[" * 100_000])
def test_a_damaged_manifest_is_refused(demo: Path, content: str) -> None:
    build(demo, ONE)
    (demo / "viral.1.1.identified.json").write_text(content)
    with pytest.raises(
        DataError, match=r"viral\.1\.1\.identified\.json: .*; remove it, and recreate its FASTA files"
    ):
        build(demo, ONE)


@pytest.mark.parametrize("change", [{"length": "300"}, {"counts": {"records": 1}}, {"more": 1}])
def test_a_manifest_with_other_values_is_refused(demo: Path, change: dict[str, object]) -> None:
    build(demo, ONE)
    path = demo / "viral.1.1.identified.json"
    content = json.loads(path.read_text()) | change
    del content["sha256"]
    write_record(path, content)
    with pytest.raises(
        DataError, match=r"(is damaged \(.*|does not hold the counts of a data set); remove it"
    ):
        build(demo, ONE)


def test_files_made_by_other_rules_are_made_again(demo: Path) -> None:
    build(demo, ONE)
    path = demo / "viral.1.1.identified.json"
    content = json.loads(path.read_text()) | {"rules": 0, "counts": {"other": 1}}
    # As it was before manifests had a digest of their own.
    del content["sha256"]
    path.write_text(json.dumps(content))
    assert [source.name for source in build(demo, ONE).sources if source.made] == ["viral.1.1.genomic.fna.gz"]


def test_a_manifest_that_was_changed_is_refused(demo: Path) -> None:
    build(demo, ONE)
    path = demo / "viral.1.1.identified.json"
    path.write_text(path.read_text().replace('"rules": 1', '"rules": 2'))
    with pytest.raises(
        DataError,
        match=r"1.1.identified.json: the record of a data set is damaged .*checksum .* --replace",
    ):
        build(demo, ONE)


KILLED_RUN = """
import os, pathlib, signal, sys
from nucpro.genomes.dataset import build
from nucpro.genomes.options import DatasetOptions
folder, wanted, left = sys.argv[1], sys.argv[2], int(sys.argv[3])
def kill(event, arguments):
    global left
    if event == wanted and str(arguments[0]).startswith(folder):
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(kill)
build(pathlib.Path(folder), DatasetOptions(workers=1))
"""


def test_a_run_killed_at_any_point_ends_like_one_that_was_not(demo: Path, tmp_path: Path) -> None:
    right = tmp_path / "right"
    shutil.copytree(demo, right)
    build(right, ONE)
    for event, count in [
        ("open", 4),
        ("open", 7),
        ("os.rename", 2),
        ("os.rename", 3),
        ("os.rename", 4),
        ("open", 16),
    ]:
        arguments = [sys.executable, "-c", KILLED_RUN, str(demo), event, str(count)]
        assert subprocess.run(arguments, check=False).returncode == -signal.SIGKILL
        for path in demo.glob("*.fa"):
            assert path.read_bytes() == (right / path.name).read_bytes()
    build(demo, ONE)
    assert contents(demo) == contents(right)


def test_left_overs_of_killed_writers_are_removed(demo: Path) -> None:
    left_over = demo / f".viral.1.1.identified_protein.fa{TEMPORARY_MARK}0123"
    left_over.write_text("half")
    build(demo, ONE)
    assert not left_over.exists()


def test_an_error_names_file_and_record_and_keeps_what_was_finished(demo: Path) -> None:
    write_fasta(demo / "viral.1.1.genomic.fna.gz", [("NC_001416.1", "ACGTJACGT")])
    with pytest.raises(
        DataError, match=r"viral\.1\.1\.genomic\.fna\.gz: record NC_001416\.1 has 'J' at position 5;"
    ):
        build(demo, ONE)
    assert digests(demo, "fungi.1.1") == GOLDEN["300"]["fungi.1.1"]
    assert not (demo / "viral.1.1.identified_nucleotide.fa").exists()


def kill_workers(progress: Progress) -> None:
    """Kill all worker processes as soon as one of them has answered."""
    if progress.done:
        for process in multiprocessing.active_children():
            process.kill()


def test_a_worker_process_that_dies_ends_the_run(tmp_path: Path) -> None:
    for number in range(1, 101):
        for path in DEMO.glob("fungi*.gz"):
            os.link(path, tmp_path / path.name.replace("fungi.1.", f"fungi.{number}."))
    with pytest.raises(WorkerError, match="a worker process was killed, probably for lack of memory"):
        build(tmp_path, DatasetOptions(workers=2), kill_workers)
    assert 1 <= len(list(tmp_path.glob("*.fa"))) < 200


def test_an_error_in_a_worker_process_ends_the_run(demo: Path) -> None:
    (demo / "fungi.1.genomic.gbff.gz").write_bytes((demo / "fungi.1.genomic.gbff.gz").read_bytes()[:-100])
    with pytest.raises(DataError, match=r"fungi\.1\.genomic\.gbff\.gz: gzip stream 1, .* is truncated"):
        build(demo, DatasetOptions(workers=2))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"the file is empty; remove it or write it again"),
        (b"ACGT\n", r"cannot be read as FASTA: it starts with 'ACGT'; the file must start with '>'"),
        (b"@read\nACGT\n+\nIIII\n", r"record 1 is FASTQ \(starts with '@'\); convert it to FASTA first"),
        (b">a\nACGT\n>\nACGT\n", r"the id of record 2 is missing; give every header an id after '>'"),
    ],
)
def test_files_that_are_no_fasta_are_refused(demo: Path, content: bytes, message: str) -> None:
    (demo / "viral.1.1.genomic.fna.gz").write_bytes(content)
    with pytest.raises(DataError, match=rf"viral\.1\.1\.genomic\.fna\.gz: {message}"):
        build(demo, ONE)


def test_a_cut_fasta_file_is_refused(demo: Path) -> None:
    path = demo / "viral.1.1.genomic.fna.gz"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(
        DataError,
        match=r"viral\.1\.1\.genomic\.fna\.gz: gzip stream 1, which starts at byte 0 of .*, is truncated",
    ):
        build(demo, ONE)


def test_a_folder_without_genomes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        PreflightError, match=r"no genomes found; it must hold pairs of X\.genomic\.fna\.gz and Y\.gen"
    ):
        build(tmp_path, ONE)
    with pytest.raises(PreflightError, match="nowhere: no such folder; give the path of the data folder"):
        build(tmp_path / "nowhere", ONE)


def test_two_runs_on_one_folder_are_refused(demo: Path) -> None:
    with hold(DataFolder(demo).lock), pytest.raises(LockedError):
        build(demo, ONE)


LIMITED_RUN = """
import pathlib, resource, sys
from nucpro.genomes.dataset import build
from nucpro.genomes.options import DatasetOptions
from nucpro.errors import StoreError
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    build(pathlib.Path(sys.argv[1]), DatasetOptions(workers=1))
except StoreError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        (10_000, "the proteins of fungi.1.genomic.gbff.gz cannot be kept there: File too large; free space"),
        (60_000, "fungi.1.1.identified_nucleotide.fa: cannot be written: File too large"),
    ],
)
def test_a_disk_that_takes_no_more_is_reported_with_the_file(demo: Path, limit: int, message: str) -> None:
    arguments = [sys.executable, "-c", LIMITED_RUN, str(demo), str(limit)]
    told = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout
    assert message in told
    assert not list(demo.glob("*.fa"))
    assert not list(demo.glob(f".*{TEMPORARY_MARK}*"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"length": 2}, "length 2 is too short; a chunk needs at least 3 bases"),
        ({"genetic_code": "11"}, "genetic code '11' is not allowed; use standard or auto"),
        ({"workers": 0}, "0 workers are not allowed; use at least 1"),
    ],
)
def test_options_are_checked(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DatasetOptions(**changes)  # type: ignore[arg-type]


def test_counts_that_do_not_add_up_are_an_error() -> None:
    with pytest.raises(ValidationError, match="viral: 5 records went in, 4 are accounted for; report this"):
        Counts(records=5, annotated_records=3, empty_records=1).require_balance("viral")
    with pytest.raises(ValidationError, match="viral: 6 frames went in, 5 are accounted for"):
        Counts(frames=6, kept_frames=5, chunks=1).require_balance("viral")


STRANGERS = [
    ("gi|9626243|ref|NC_1.1|", "NC_1.1"),
    ("NC_1.1", "NC_1.2"),
    ("lcl|NC_1.1", "NC_1.1"),
    ("NC_1", "NC_1.1"),
    ("chr1", "NC_1.1"),
]


@pytest.mark.parametrize(("in_fasta", "in_genbank"), STRANGERS)
def test_a_pair_without_a_common_record_is_refused(tmp_path: Path, in_fasta: str, in_genbank: str) -> None:
    write_fasta(tmp_path / "viral.1.1.genomic.fna.gz", [(in_fasta, "ACGT" * 90)])
    write_genbank(tmp_path / "viral.1.genomic.gbff.gz", [Genome(in_genbank, "ACGT" * 90, [gene("MA")])])
    with pytest.raises(DataError) as caught:
        build(tmp_path, ONE)
    assert "no record of it is in viral.1.genomic.gbff.gz" in str(caught.value)
    assert f"the first is {in_fasta}, there it is {in_genbank}; the ids must be equal" in str(caught.value)
    assert not (tmp_path / "viral.1.1.identified.json").exists()


@pytest.mark.parametrize("content", [b"", gzip.compress(b""), gzip.compress(b"\n\n")])
def test_an_empty_genbank_file_is_refused(tmp_path: Path, content: bytes) -> None:
    write_fasta(tmp_path / "viral.1.1.genomic.fna.gz", [("NC_1.1", "ACGT" * 90)])
    (tmp_path / "viral.1.genomic.gbff.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"viral\.1\.genomic\.gbff\.gz: is empty; genomes without"):
        build(tmp_path, ONE)


def unusable_link(path: Path) -> None:
    path.symlink_to("../.git/annex/objects/XX/yy/SHA256E-s1--0.gz")


@pytest.mark.parametrize("name", ["fungi.1.1.genomic.fna.gz", "fungi.1.genomic.gbff.gz"])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            unusable_link,
            r"is a link to \.\./\.git/annex/.*, which does not exist; get the file \(git annex get.*cp -L",
        ),
        (os.mkfifo, "is a pipe or a device, expected a file"),
    ],
)
def test_what_cannot_be_opened_is_named_and_the_other_pairs_are_done(
    demo: Path, caplog: pytest.LogCaptureFixture, name: str, make: Callable[[Path], None], message: str
) -> None:
    (demo / name).unlink()
    make(demo / name)
    with pytest.raises(
        DataError,
        match=rf"1 of 2 pairs .* could not be used; all other files are done:\n  - .*{name}: {message}",
    ):
        build(demo, ONE)
    assert name in caplog.text
    assert (demo / "viral.1.1.identified_nucleotide.fa").is_file()
    assert not (demo / "fungi.1.1.identified_nucleotide.fa").exists()
    for path in demo.glob("viral*.gz"):
        path.unlink()
    with pytest.raises(PreflightError, match=message):
        build(demo, ONE)


def test_all_damaged_genomes_are_named_and_the_other_pairs_are_done(demo: Path) -> None:
    for kind, size in (("protozoa", 0), ("bacteria", 2000)):
        for end in (".1.genomic.fna.gz", ".genomic.gbff.gz"):
            content = (demo / f"fungi.1{end}").read_bytes()
            (demo / f"{kind}.1{end}").write_bytes(content[:size] if "fna" in end else content)
    with pytest.raises(
        DataError, match=r"2 of 4 pairs .* could not be used; all other files are done"
    ) as caught:
        build(demo, ONE)
    assert "bacteria.1.1.genomic.fna.gz: gzip stream 1, which starts at byte 0" in str(caught.value)
    assert "protozoa.1.1.genomic.fna.gz: " in str(caught.value)
    assert [path.name for path in sorted(demo.glob("*_nucleotide.fa"))] == [
        "fungi.1.1.identified_nucleotide.fa",
        "viral.1.1.identified_nucleotide.fa",
    ]


def test_files_that_look_like_genomes_are_named(demo: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ("a.genomic.fna", "plant.1.1.genomic.fna.gz.part", "plant.1.genomic.gbff.gz")
    for name in (*names, ".plant.2.1.genomic.fna.gz.part", "viral.1.protein.faa.gz"):
        (demo / name).write_bytes(b"")
    assert len(build(demo, ONE).sources) == 2
    (line,) = (message for message in caplog.messages if "not used" in message)
    assert line.startswith(
        f"3 other files not used: {', '.join(names)}; a pair has names like viral.1.1.genomic"
    )


def test_links_to_files_are_good_genomes(demo: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    for path in demo.iterdir():
        (linked / path.name).symlink_to(path)
    assert [source.made for source in build(linked, ONE).sources] == [True, True]


def test_litter_beside_genomes_is_no_genome(demo: Path) -> None:
    for path in list(demo.iterdir()):
        (demo / f"._{path.name}").write_bytes(b"\0\5\26\7Mac OS X")
        for folder in (".snapshot", "__MACOSX", "@eaDir"):
            (demo / folder).mkdir(exist_ok=True)
            (demo / folder / path.name).write_bytes(b"junk")
    assert [source.name for source in build(demo, ONE).sources] == [
        "fungi.1.1.genomic.fna.gz",
        "viral.1.1.genomic.fna.gz",
    ]


def test_the_class_of_genomes_is_that_of_their_names(demo: Path) -> None:
    shutil.move(demo, demo.parent / "moved")
    (demo / "viral_and_hosts").mkdir(parents=True)
    for path in (demo.parent / "moved").iterdir():
        shutil.move(path, demo / "viral_and_hosts")
    assert [source.category for source in build(demo, ONE).sources] == ["fungi", "viral"]
    (demo / "viral_and_hosts").rename(demo / "viral")
    with pytest.raises(
        PreflightError, match=r"fungi\.1\.1.* means fungi, but its folder viral .*means viral"
    ):
        build(demo, ONE)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_folders_that_cannot_be_read_are_not_left_out(demo: Path) -> None:
    (demo / "sub").mkdir(mode=0)
    with pytest.raises(PreflightError, match="sub: cannot be read"):
        build(demo, ONE)


def test_long_names_are_written_or_refused_with_their_length(demo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "long"
    folder.mkdir()
    stem = f"viral.{'x' * 224}"
    for suffix in (".genomic.fna.gz", ".genomic.gbff.gz"):
        (folder / f"{stem}{suffix}").write_bytes(next(demo.glob(f"viral*{suffix}")).read_bytes())
    (source,) = build(folder, ONE).sources
    assert source.made
    for suffix in (".genomic.fna.gz", ".genomic.gbff.gz"):
        (folder / f"{stem}{suffix}").rename(folder / f"{stem}xxxxx{suffix}")
    with pytest.raises(
        PreflightError, match="its name has 260 bytes, a file system takes 255; shorten the names"
    ):
        build(folder, ONE)
