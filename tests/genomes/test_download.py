"""Downloads from a real HTTP server on the loopback interface, with all that can go wrong on the way."""

from __future__ import annotations

import hashlib
import json
import random
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucpro.errors import DataError, LockedError, PreflightError, StoreError, UsageError
from nucpro.folder.paths import DataFolder
from nucpro.formats.records import document, unsealed
from nucpro.genomes.catalogue import GROUPS, choose, parse_catalogue
from nucpro.genomes.download import download
from nucpro.genomes.options import DownloadOptions
from nucpro.progress import Progress
from nucpro.state.checkpoint import Fingerprint
from nucpro.state.lock import hold
from release_server import BREAK, ELSEWHERE, ERROR, GARBAGE, GONE, LONG, SHORT, STALL, WHOLE, ReleaseServer

GENOMES = Path(__file__).resolve().parents[2] / "demo" / "genomes"
NAMES = sorted(path.name for path in GENOMES.glob("*.gz"))
VIRAL = "viral.1.1.genomic.fna.gz"


@pytest.fixture
def server() -> Iterator[ReleaseServer]:
    with ReleaseServer(GENOMES, NAMES) as server:
        yield server


def options(server: ReleaseServer, **changes: object) -> DownloadOptions:
    few: dict[str, object] = {
        "counts": dict.fromkeys(GROUPS, 0),
        "attempts": 3,
        "wait_s": 0.0,
        "timeout_s": 5.0,
    }
    return DownloadOptions(server.address, **{**few, **changes})  # type: ignore[arg-type]


def downloading(done: int, total: int) -> Progress:
    return Progress(done, total, "B", None if done == 0 else 0.0, "Downloading")


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def held(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name.endswith(".gz")}


def published(*names: str) -> dict[str, bytes]:
    return {name: (GENOMES / name).read_bytes() for name in names}


def test_everything_arrives_verified_and_nothing_else_is_left(server: ReleaseServer, tmp_path: Path) -> None:
    shown: list[Progress] = []
    report = download(tmp_path / "new" / "data", options(server, counts={}), shown.append)
    assert held(tmp_path / "new" / "data") == published(*NAMES)
    assert report.release == 231
    assert [file.name for file in report.files][:2] == [VIRAL, "viral.1.genomic.gbff.gz"]
    assert set(report.fetched) == set(report.files)
    size = sum(map(len, published(*NAMES).values()))
    assert (shown[0], shown[-1]) == (downloading(0, size), downloading(size, size))
    assert [now.done for now in shown] == sorted({now.done for now in shown})
    others = {path.name for path in (tmp_path / "new" / "data").iterdir()} - set(NAMES)
    assert others == {".download.json", DataFolder(tmp_path).lock.name}


def test_groups_with_too_few_pairs_give_all_they_have_and_are_named(
    server: ReleaseServer, tmp_path: Path
) -> None:
    report = download(
        tmp_path, options(server, counts={**dict.fromkeys(GROUPS, 0), "plant": 10, "archaea": 2})
    )
    assert report.short == {"plant": (10, 1), "archaea": (2, 0)}
    assert sorted(held(tmp_path)) == [name for name in NAMES if name.startswith(("plant", "viral"))]


def test_a_complete_folder_asks_the_server_nothing(server: ReleaseServer, tmp_path: Path) -> None:
    download(tmp_path, options(server))
    server.requests.clear()
    report = download(tmp_path, options(server))
    assert server.requests == []
    assert report.fetched == ()


def test_more_pairs_later_fetch_only_these(server: ReleaseServer, tmp_path: Path) -> None:
    download(tmp_path, options(server))
    server.requests.clear()
    report = download(tmp_path, options(server, counts={**dict.fromkeys(GROUPS, 0), "fungi": 1}))
    assert [file.name for file in report.fetched] == ["fungi.1.1.genomic.fna.gz", "fungi.1.genomic.gbff.gz"]
    assert server.gets(VIRAL) == []


@pytest.mark.parametrize("fault", [BREAK, LONG, ERROR, GARBAGE, SHORT])
def test_one_fault_of_any_kind_is_overcome(server: ReleaseServer, tmp_path: Path, fault: str) -> None:
    server.fault(VIRAL, fault)
    shown: list[Progress] = []
    download(tmp_path, options(server), shown.append)
    assert held(tmp_path)[VIRAL] == (GENOMES / VIRAL).read_bytes()
    assert shown[-1].done == shown[-1].total
    assert len(server.gets(VIRAL)) == 2


def test_a_broken_connection_goes_on_where_it_broke(server: ReleaseServer, tmp_path: Path) -> None:
    size = (GENOMES / VIRAL).stat().st_size
    server.fault(VIRAL, BREAK, BREAK)
    download(tmp_path, options(server))
    half, rest = size // 2, size - size // 2
    assert server.gets(VIRAL) == [None, f"bytes={half}-", f"bytes={half + rest // 2}-"]


@pytest.mark.parametrize("fault", [WHOLE, ELSEWHERE])
def test_an_answer_to_another_range_does_no_harm(server: ReleaseServer, tmp_path: Path, fault: str) -> None:
    server.fault(VIRAL, BREAK, fault)
    shown: list[Progress] = []
    download(tmp_path, options(server), shown.append)
    assert held(tmp_path)[VIRAL] == (GENOMES / VIRAL).read_bytes()
    assert shown[-1].done == shown[-1].total


def test_a_later_run_goes_on_with_the_part_of_an_earlier_one(server: ReleaseServer, tmp_path: Path) -> None:
    server.fault(VIRAL, BREAK)
    with pytest.raises(
        DataError, match="not downloaded after 1 attempts, the last one failed with: the connection ended"
    ):
        download(tmp_path, options(server, attempts=1))
    assert VIRAL not in held(tmp_path)
    server.requests.clear()
    shown: list[Progress] = []
    download(tmp_path, options(server), shown.append)
    assert server.gets(VIRAL) == [f"bytes={(GENOMES / VIRAL).stat().st_size // 2}-"]
    assert shown[-1].done == shown[-1].total
    assert held(tmp_path)[VIRAL] == (GENOMES / VIRAL).read_bytes()


@pytest.mark.parametrize("tail", [b"", b"bytes too many"])
def test_a_part_with_every_byte_is_verified_without_a_transfer(
    server: ReleaseServer, tmp_path: Path, tail: bytes
) -> None:
    (tmp_path / f".{VIRAL}.part").write_bytes((GENOMES / VIRAL).read_bytes() + tail)
    download(tmp_path, options(server))
    assert held(tmp_path)[VIRAL] == (GENOMES / VIRAL).read_bytes()
    # With bytes too many the size is wrong, and the file comes again from its start.
    assert server.gets(VIRAL) == ([None] if tail else [])


def test_a_part_of_another_file_is_thrown_away(server: ReleaseServer, tmp_path: Path) -> None:
    (tmp_path / f".{VIRAL}.part").write_bytes(b"from an older release")
    download(tmp_path, options(server))
    assert held(tmp_path)[VIRAL] == (GENOMES / VIRAL).read_bytes()
    assert server.gets(VIRAL) == ["bytes=21-", None]


def test_a_file_that_is_never_right_fails_with_both_sums(server: ReleaseServer, tmp_path: Path) -> None:
    server.fault(VIRAL, GARBAGE, GARBAGE, GARBAGE)
    with pytest.raises(DataError) as caught:
        download(tmp_path, options(server))
    right = (GENOMES / VIRAL).read_bytes()
    wrong = bytes(byte ^ 1 for byte in right)
    assert f"the MD5 sum is {md5(wrong)} where the release lists {md5(right)}" in str(caught.value)
    assert "after 3 attempts" in str(caught.value)
    assert VIRAL not in held(tmp_path)


def test_a_server_that_keeps_failing_is_named_with_its_answer(server: ReleaseServer, tmp_path: Path) -> None:
    server.fault(VIRAL, *[ERROR] * 3)
    with pytest.raises(
        DataError, match=r"viral/viral\.1\.1.* after 3 attempts, .*HTTP 503 Service Unavailable; check"
    ):
        download(tmp_path, options(server))


def test_a_listed_file_that_is_missing_fails_at_once(server: ReleaseServer, tmp_path: Path) -> None:
    del server.files[f"/refseq/release/viral/{VIRAL}"]
    with pytest.raises(
        DataError, match=r"viral\.1\.1\.genomic\.fna\.gz: the server answers HTTP 404 Not Found; check"
    ):
        download(tmp_path, options(server))
    assert server.gets(VIRAL) == []


def test_one_failure_ends_the_other_transfers(server: ReleaseServer, tmp_path: Path) -> None:
    server.fault(VIRAL, *[GARBAGE] * 3)
    with pytest.raises(DataError, match=r"viral\.1\.1"):
        download(tmp_path, options(server, counts={}, connections=1))
    assert held(tmp_path) == {}


def test_one_failure_ends_the_waits_of_others(server: ReleaseServer, tmp_path: Path) -> None:
    server.fault(VIRAL, ERROR)
    server.fault("viral.1.genomic.gbff.gz", GONE)
    with pytest.raises(DataError, match=r"viral\.1\.genomic\.gbff\.gz: the server answers HTTP 404"):
        download(tmp_path, options(server, wait_s=3600.0))


def test_a_connection_that_stalls_counts_as_broken(server: ReleaseServer, tmp_path: Path) -> None:
    server.fault(VIRAL, STALL)
    download(tmp_path, options(server, timeout_s=0.2))
    assert held(tmp_path)[VIRAL] == (GENOMES / VIRAL).read_bytes()


def test_no_server_at_all_is_an_error_that_says_so(tmp_path: Path) -> None:
    with ReleaseServer(GENOMES, []) as server:
        choices = options(server)
    with pytest.raises(
        DataError, match=r"RELEASE_NUMBER: the server cannot be reached \(.*refused\); check the network"
    ):
        download(tmp_path, choices)


def test_a_damaged_file_is_found_and_fetched_again(server: ReleaseServer, tmp_path: Path) -> None:
    download(tmp_path, options(server))
    (tmp_path / VIRAL).write_bytes(b"damaged")
    report = download(tmp_path, options(server))
    assert [file.name for file in report.fetched] == [VIRAL]
    assert held(tmp_path)[VIRAL] == (GENOMES / VIRAL).read_bytes()


def test_files_that_were_copied_in_are_verified_and_kept(server: ReleaseServer, tmp_path: Path) -> None:
    (tmp_path / VIRAL).write_bytes((GENOMES / VIRAL).read_bytes())
    report = download(tmp_path, options(server))
    assert [file.name for file in report.fetched] == ["viral.1.genomic.gbff.gz"]


def test_a_folder_with_a_part_of_an_older_release_is_refused(server: ReleaseServer, tmp_path: Path) -> None:
    download(tmp_path, options(server))
    (tmp_path / VIRAL).unlink()
    server.publish(232)
    with pytest.raises(
        DataError, match="holds files of RefSeq release 231, the server has release 232 by now; one data"
    ):
        download(tmp_path, options(server))


def test_a_complete_folder_of_an_older_release_stays_good(server: ReleaseServer, tmp_path: Path) -> None:
    download(tmp_path, options(server))
    server.publish(232)
    assert download(tmp_path, options(server)).release == 231


def test_the_record_lists_the_choice_before_the_first_byte(server: ReleaseServer, tmp_path: Path) -> None:
    server.fault(VIRAL, *[ERROR] * 3)
    with pytest.raises(DataError):
        download(tmp_path, options(server, connections=1))
    record = json.loads((tmp_path / ".download.json").read_text())
    assert record["release"] == 231
    assert [file["name"] for file in record["files"]] == [VIRAL, "viral.1.genomic.gbff.gz"]
    assert record["files"][0]["md5"] == md5((GENOMES / VIRAL).read_bytes())


@pytest.mark.parametrize("content", ["{", "[]", '{"release": 1}', '{"files": [{"name": 1}]}', "[" * 100_000])
def test_a_damaged_record_is_refused(server: ReleaseServer, tmp_path: Path, content: str) -> None:
    (tmp_path / ".download.json").write_text(content)
    with pytest.raises(
        DataError,
        match=r"\.download\.json: the record of a download is damaged .*; remove it, then run again",
    ):
        download(tmp_path, options(server))


def test_too_little_disk_is_found_before_the_first_byte(server: ReleaseServer, tmp_path: Path) -> None:
    class Liar(dict[str, bytes]):
        """Files of an announced size that no disk holds."""

    huge = type("Huge", (bytes,), {"__len__": lambda self: 1 << 60})
    server.files = Liar(server.files)
    server.files[f"/refseq/release/viral/{VIRAL}"] = huge()
    with pytest.raises(
        PreflightError, match=r"[\d,]{13} GB to download, the disk has [\d.,]+ [kMG]?B free; free space"
    ):
        download(tmp_path, options(server))
    assert server.gets(VIRAL) == []


def test_a_file_in_the_folders_place_is_refused(server: ReleaseServer, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(
        PreflightError, match="data: is a file, not a folder; move it away, or name another folder"
    ):
        download(tmp_path / "data", options(server))


def test_a_disk_that_takes_no_more_is_distinguished_from_a_broken_connection(
    server: ReleaseServer, tmp_path: Path
) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limit[1]))
    try:
        with pytest.raises(StoreError, match=r"viral.*\.part: cannot be written: File too large; free space"):
            download(tmp_path, options(server, connections=1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert len(server.gets(VIRAL)) == 1


def test_two_runs_on_one_folder_are_refused(server: ReleaseServer, tmp_path: Path) -> None:
    with hold(DataFolder(tmp_path).lock), pytest.raises(LockedError):
        download(tmp_path, options(server))


def test_a_release_number_that_is_none_is_refused(server: ReleaseServer, tmp_path: Path) -> None:
    server.files["/refseq/release/RELEASE_NUMBER"] = b"<html>Log in to this network</html>"
    with pytest.raises(DataError, match="holds '<html>Log in to this network</html>', not a release number"):
        download(tmp_path, options(server))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"server": "ftp://ftp.ncbi.nlm.nih.gov"},
            "server 'ftp://ftp.ncbi.nlm.nih.gov' is not allowed; use an address",
        ),
        ({"server": "file:///etc"}, "server 'file:///etc' is not allowed"),
        (
            {"counts": {"virus": 1}},
            "group 'virus' does not exist; RefSeq's host groups are bacteria, archaea",
        ),
        ({"counts": {"plant": -1}}, "-1 pairs of plant are not allowed; use 0 or more"),
        ({"connections": 0}, "0 connections and 8 attempts are not allowed"),
        ({"attempts": 0}, "3 connections and 0 attempts are not allowed"),
    ],
)
def test_options_are_checked(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DownloadOptions(**changes)  # type: ignore[arg-type]


def catalogue_of(counts: dict[str, int]) -> dict[str, str]:
    names = ["viral.1.1.genomic.fna.gz", "viral.1.genomic.gbff.gz"]
    for group, count in counts.items():
        for number in range(1, count + 1):
            names += [f"{group}.{number}.1.genomic.fna.gz", f"{group}.{number}.genomic.gbff.gz"]
    return {name: md5(name.encode()) for name in names}


def test_the_draw_is_that_of_the_published_script() -> None:
    sizes = {group: 40 + 7 * number for number, group in enumerate(GROUPS)}
    counts = {group: 10 if group.startswith(("plant", "inv", "ver")) else 1 for group in GROUPS}
    files = choose(catalogue_of(sizes), counts, seed=42)
    # What random.seed(42) and one random.sample a group give over the server's listing, which is sorted by name.
    draw = random.Random(42)
    expected = ["viral.1"]
    for group in GROUPS:
        listing = sorted(f"{group}.{number}.genomic.gbff.gz" for number in range(1, sizes[group] + 1))
        expected += [name.removesuffix(".genomic.gbff.gz") for name in draw.sample(listing, counts[group])]
    assert [file.name for file in files[1::2]] == [f"{stem}.genomic.gbff.gz" for stem in expected]
    assert [file.name for file in files[::2]] == [f"{stem}.1.genomic.fna.gz" for stem in expected]


@given(
    st.dictionaries(st.sampled_from(GROUPS), st.integers(0, 12)),
    st.integers(0, 12),
    st.integers(),
    st.randoms(),
)
def test_a_choice_depends_on_content_only(
    sizes: dict[str, int], count: int, seed: int, shuffler: random.Random
) -> None:
    catalogue = catalogue_of(sizes)
    shuffled = list(catalogue.items())
    shuffler.shuffle(shuffled)
    counts = dict.fromkeys(GROUPS, count)
    files = choose(catalogue, counts, seed)
    assert files == choose(dict(shuffled), counts, seed)
    assert len(set(files)) == len(files) == 2 + 2 * sum(min(count, size) for size in sizes.values())
    assert all(catalogue[file.name] == file.md5 and file.name.startswith(f"{file.group}.") for file in files)


def test_a_genbank_file_without_fasta_is_never_chosen() -> None:
    catalogue = catalogue_of({"plant": 2})
    del catalogue["plant.1.1.genomic.fna.gz"]
    files = choose(catalogue, dict.fromkeys(GROUPS, 5), seed=1)
    assert [file.name for file in files[2:]] == ["plant.2.1.genomic.fna.gz", "plant.2.genomic.gbff.gz"]


def test_a_release_without_the_viral_pair_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"lists no viral\.1\.1\.genomic\.fna\.gz with viral\.1\.genomic\.gbff\.gz"
    ):
        choose({"viral.2.genomic.gbff.gz": "0" * 32}, dict.fromkeys(GROUPS, 1), seed=42)


def test_a_catalogue_keeps_genome_files_only() -> None:
    text = "\n".join(
        [
            "MD5 checksum\tFile name",
            f"{'A' * 32}\tviral.1.1.genomic.fna.gz",
            f"{'b' * 32}  plant/plant.12.genomic.gbff.gz",
            f"{'c' * 32}\tviral.1.protein.faa.gz",
            f"{'d' * 32}\tcomplete.1.genomic.gbff.gz",
            f"{'e' * 32}\t../viral.1.genomic.gbff.gz/x",
            "",
        ]
    )
    assert parse_catalogue(text, "list") == {
        "viral.1.1.genomic.fna.gz": "a" * 32,
        "plant.12.genomic.gbff.gz": "b" * 32,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3141592653\tviral.1.1.genomic.fna.gz", "line 1 has '3141592653' where the MD5 sum of viral.1.1"),
        ("<html></html>", "list: lists no genome files; check the address of the server"),
    ],
)
def test_lists_that_cannot_be_used_are_refused(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_catalogue(text, "list")


@pytest.mark.parametrize("status", [400, 401, 403, 405, 429, 500, 501, 502, 503, 0])
def test_a_server_that_does_not_report_sizes_gives_its_files(
    server: ReleaseServer, tmp_path: Path, status: int
) -> None:
    server.head_status = status
    shown: list[Progress] = []
    download(tmp_path, options(server, counts={}), shown.append)
    assert held(tmp_path) == published(*NAMES)
    assert {now.total for now in shown} == {None}
    heads = [path for method, path, _ in server.requests if method == "HEAD"]
    assert len(heads) == len(set(heads)) == len(NAMES)


def test_a_file_that_the_server_does_not_have_is_reported_before_anything_is_fetched(
    server: ReleaseServer, tmp_path: Path
) -> None:
    server.head_status = 404
    with pytest.raises(DataError, match="the server answers HTTP 404"):
        download(tmp_path, options(server, counts={}))
    assert held(tmp_path) == {}


def test_a_file_of_somebody_else_under_a_genomes_name_is_not_replaced(
    server: ReleaseServer, tmp_path: Path
) -> None:
    (tmp_path / VIRAL).write_bytes(b"mine")
    with pytest.raises(
        PreflightError, match=f"{VIRAL}: exists, and there is no record that this command wrote it"
    ):
        download(tmp_path, options(server))
    assert (tmp_path / VIRAL).read_bytes() == b"mine"
    assert len(download(tmp_path, options(server, replace=True)).fetched) == 2
    # What it fetched itself is replaced where it is damaged, also where an earlier version fetched it.
    record = tmp_path / ".download.json"
    plain, _ = unsealed(record.read_bytes())
    for text in (record.read_text(), json.dumps(plain)):
        record.write_text(text)
        (tmp_path / VIRAL).write_bytes(b"damaged")
        assert [file.name for file in download(tmp_path, options(server)).fetched] == [VIRAL]
    assert held(tmp_path) == published(*held(tmp_path))


def test_a_record_of_an_earlier_version_is_verified_once_and_sealed(
    server: ReleaseServer, tmp_path: Path
) -> None:
    download(tmp_path, options(server))
    record = tmp_path / ".download.json"
    plain, is_sealed = unsealed(record.read_bytes())
    assert is_sealed
    # As if the file had been as it is recorded: its stamp fits, its content does not.
    (tmp_path / VIRAL).write_bytes(b"damaged")
    plain["verified"][VIRAL] = Fingerprint.of(tmp_path / VIRAL).as_list()  # type: ignore[union-attr]
    record.write_text(json.dumps(plain))
    assert [file.name for file in download(tmp_path, options(server)).fetched] == [VIRAL]
    assert unsealed(record.read_bytes())[1]
    assert not download(tmp_path, options(server)).fetched


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../../x.genomic.fna.gz", "files[0].name is ../../x"),
        ("/etc/viral.1.genomic.fna.gz", "files[0].name is /etc/"),
    ],
)
def test_a_record_that_names_files_elsewhere_is_refused(
    name: str, said: str, server: ReleaseServer, tmp_path: Path
) -> None:
    download(tmp_path, options(server))
    record = tmp_path / ".download.json"
    plain, _ = unsealed(record.read_bytes())
    plain["files"][0]["name"] = name
    record.write_bytes(document(plain))
    with pytest.raises(DataError) as error:
        download(tmp_path, options(server))
    assert said in str(error.value)
