"""Downloads from servers that answer what no server should."""

from __future__ import annotations

import http.server
import logging
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nucpro.errors import DataError, human_size
from nucpro.formats import transfer
from nucpro.formats.transfer import Connection
from nucpro.genomes.catalogue import GROUPS, choose, parse_catalogue
from nucpro.genomes.download import download
from nucpro.genomes.options import DEFAULT_COUNTS, DownloadOptions
from release_server import (
    BREAK,
    DRIP_HEAD,
    ENDLESS,
    ERROR,
    FLIP,
    MARKED,
    NO_HTTP,
    PACKED,
    REDIRECTS,
    UNASKED,
    UNSATISFIABLE,
    WRONG,
    ReleaseServer,
)
from serving import served

GENOMES = Path(__file__).resolve().parents[2] / "demo" / "genomes"
VIRAL, GENBANK = "viral.1.1.genomic.fna.gz", "viral.1.genomic.gbff.gz"
RIGHT = (GENOMES / VIRAL).read_bytes()
NUMBER, LIST = "RELEASE_NUMBER", "release231.files.installed"


@pytest.fixture
def server() -> Iterator[ReleaseServer]:
    with ReleaseServer(GENOMES, [VIRAL, GENBANK]) as server:
        yield server


def options(server: str, **changes: object) -> DownloadOptions:
    few = {"counts": dict.fromkeys(GROUPS, 0), "attempts": 3, "wait_s": 0.0, "timeout_s": 0.5}
    return DownloadOptions(server, **{**few, **changes})  # type: ignore[arg-type]


def parts(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob(".*.part"))


@pytest.mark.parametrize("fault", [*WRONG, MARKED])
def test_each_wrong_answer_is_overcome_by_another_try(
    server: ReleaseServer, tmp_path: Path, fault: str
) -> None:
    server.fault(VIRAL, fault)
    download(tmp_path, options(server.address))
    assert (tmp_path / VIRAL).read_bytes() == RIGHT
    assert parts(tmp_path) == []
    assert len(server.gets(VIRAL)) == (1 if fault == MARKED else 2)


@pytest.mark.parametrize("fault", WRONG)
def test_each_wrong_answer_to_the_rest_of_a_file_is_overcome(
    server: ReleaseServer, tmp_path: Path, fault: str
) -> None:
    server.fault(VIRAL, BREAK, fault)
    download(tmp_path, options(server.address))
    assert (tmp_path / VIRAL).read_bytes() == RIGHT


@pytest.mark.parametrize("fault", WRONG)
def test_a_server_that_is_always_wrong_ends_the_run_and_spoils_nothing(
    server: ReleaseServer, tmp_path: Path, fault: str
) -> None:
    server.fault(VIRAL, *[fault] * 3)
    with pytest.raises(
        DataError, match=rf"{re.escape(VIRAL)}: (not downloaded after 3 attempts|the server answers HTTP 416)"
    ):
        download(tmp_path, options(server.address, connections=1))
    assert not (tmp_path / VIRAL).exists()
    part = tmp_path / f".{VIRAL}.part"
    assert not part.exists() or RIGHT.startswith(part.read_bytes())
    download(tmp_path, options(server.address))
    assert (tmp_path / VIRAL).read_bytes() == RIGHT


@pytest.mark.parametrize("fault", REDIRECTS)
def test_redirects_that_lead_elsewhere_are_refused_at_once(
    server: ReleaseServer, tmp_path: Path, fault: str
) -> None:
    server.fault(VIRAL, *[fault] * 20)
    with pytest.raises(
        DataError, match=rf"{re.escape(VIRAL)}: the server('s answer cannot be understood|.* HTTP 302)"
    ):
        download(tmp_path, options(server.address, connections=1))
    assert not (tmp_path / VIRAL).exists()


@pytest.fixture
def encrypted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[http.server.HTTPServer]:
    """A server of https, whose certificate is trusted; it redirects to what its attribute ``target`` says."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, *names, "-keyout", key, "-out", certificate], check=True, capture_output=True)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", self.server.target)  # type: ignore[attr-defined]
            self.send_header("Content-Length", "0")
            self.end_headers()

    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with served(server):
        yield server


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl, for a certificate")
def test_a_redirect_from_https_to_http_is_refused(
    server: ReleaseServer, encrypted: http.server.HTTPServer
) -> None:
    target = f"{server.address}/{NUMBER}"
    encrypted.target = target  # type: ignore[attr-defined]
    connection = Connection(3, 0.0, 5.0)
    with pytest.raises(
        DataError, match=rf"HTTP 302 .* redirects to '{re.escape(target)}', which is not allowed"
    ):
        connection.text(f"https://127.0.0.1:{encrypted.server_port}/", 100)
    assert server.gets(NUMBER) == []
    # The same address is fine where nothing was encrypted before.
    assert connection.text(target, 100).strip() == "231"


@pytest.mark.parametrize("name", [NUMBER, LIST])
@pytest.mark.parametrize("fault", [ENDLESS, DRIP_HEAD, PACKED, NO_HTTP, UNSATISFIABLE, UNASKED, *REDIRECTS])
def test_texts_that_never_come_right_end_the_run(
    server: ReleaseServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, fault: str
) -> None:
    monkeypatch.setattr(sys.modules[download.__module__], "_LARGEST_CATALOGUE", 1 << 20)
    server.fault(name, *[fault] * 20)
    with pytest.raises(DataError, match=name):
        download(tmp_path, options(server.address))
    assert not list(tmp_path.glob("*.gz"))


def test_a_file_without_any_size_ends_somewhere(
    server: ReleaseServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "_LARGEST_FILE", 1 << 20)
    server.head_status = 405
    server.fault(VIRAL, *[ENDLESS] * 3)
    with pytest.raises(
        DataError, match=r"more than the 1048576 bytes of the file were received; they were discarded"
    ):
        download(tmp_path, options(server.address, connections=1))
    assert f".{VIRAL}.part" not in parts(tmp_path)


def test_what_was_thrown_away_is_not_said_to_be_kept(server: ReleaseServer, tmp_path: Path) -> None:
    server.fault(VIRAL, *[FLIP] * 3)
    with pytest.raises(DataError) as caught:
        download(tmp_path, options(server.address, connections=1))
    assert "the bytes were discarded" in str(caught.value)
    assert "is kept" not in str(caught.value)
    server.fault(VIRAL, *[BREAK] * 3)
    with pytest.raises(DataError, match="the partial download is kept"):
        download(tmp_path, options(server.address, connections=1))


def test_an_encoding_that_nobody_asked_for_is_named(server: ReleaseServer, tmp_path: Path) -> None:
    server.head_status = 405
    server.fault(VIRAL, *[PACKED] * 3)
    with pytest.raises(
        DataError, match=r"MD5 sum is .* \(it came in the encoding gzip, though none was asked for\)"
    ):
        download(tmp_path, options(server.address, connections=1))


def test_tries_that_bring_a_file_further_do_not_count(
    server: ReleaseServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "_BLOCK", 64)
    server.fault(VIRAL, *[BREAK] * 7)
    download(tmp_path, options(server.address))
    assert (tmp_path / VIRAL).read_bytes() == RIGHT
    assert len(server.gets(VIRAL)) == 8


def test_a_link_in_place_of_a_part_is_not_followed(server: ReleaseServer, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / f".{VIRAL}.part").symlink_to("mine")
    os.mkfifo(tmp_path / f".{GENBANK}.part")
    download(tmp_path, options(server.address))
    assert (tmp_path / VIRAL).read_bytes() == RIGHT
    assert (tmp_path / "mine").read_text() == "mine"


def test_without_network_the_run_ends_at_once(
    server: ReleaseServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        DataError, match=r"cannot be reached \(its name is not resolved: .*\); check the network"
    ):
        download(tmp_path, options("http://server.invalid/release", attempts=1000, wait_s=3600.0))
    # A name that is not resolved once the server was there may be a moment later.
    server.fault(VIRAL, ERROR)
    resolve, failing = socket.getaddrinfo, iter([True])

    def sometimes(*arguments: object, **others: object) -> object:
        if server.gets(VIRAL) and next(failing, False):
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return resolve(*arguments, **others)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", sometimes)
    download(tmp_path, options(server.address, connections=1))
    assert (tmp_path / VIRAL).read_bytes() == RIGHT


def test_a_dry_run_shows_sizes_and_writes_nothing(
    server: ReleaseServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "nucpro"):
        report = download(tmp_path / "new" / "data", options(server.address), dry_run=True)
    total = len(RIGHT) + (GENOMES / GENBANK).stat().st_size
    assert f"RefSeq release 231: 2 files chosen, 2 to download ({human_size(total)})" in caplog.text
    assert f"viral/{VIRAL}: {human_size(len(RIGHT))}" in caplog.text
    assert [file.name for file in report.fetched] == [VIRAL, GENBANK]
    assert list(tmp_path.iterdir()) == []
    assert server.gets(VIRAL) == []


def test_a_listing_of_a_million_lines_is_read() -> None:
    lines = [f"{number:032x}\t{GROUPS[number % 8]}.{number}.protein.faa.gz" for number in range(900_000)]
    for number in range(50_000):
        name = f"{GROUPS[number % 8]}.{number}"
        lines += [f"{number:032x}\t{name}.1.genomic.fna.gz", f"{number:032x}\t{name}.genomic.gbff.gz"]
    lines += [f"{'a' * 32}\t{VIRAL}", f"{'b' * 32}\t{GENBANK}"]
    catalogue = parse_catalogue("\n".join(lines), "list")
    assert len(catalogue) == 100_002
    assert len(choose(catalogue, DEFAULT_COUNTS, seed=42)) == 90
