"""The documentation site as a browser gets it: complete, without a request to another host, readable everywhere."""

from __future__ import annotations

import functools
import html
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from doc_blocks import ROOT

from browser import CHROMIUM, WITHOUT, chromium
from nucpro.cli.main import commands_of, tree
from serving import served

SIZES = {"desktop": (1280, 900), "phone": (360, 780)}


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(target)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return target


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site))
    with served(server):
        yield f"http://127.0.0.1:{server.server_port}"


def test_every_page_is_built_and_can_be_reached_from_every_other(site: Path) -> None:
    names = {path.with_suffix(".html").name for path in (ROOT / "docs").glob("*.md")}
    for name in names:
        found = set(re.findall(r'href="([\w-]+\.html)"', (site / name).read_text()))
        assert names - {name} <= found, name


def test_the_page_of_commands_has_every_option_of_every_command(site: Path) -> None:
    text = html.unescape((site / "commands.html").read_text())
    for name, parser in commands_of(tree()).items():
        section = text.partition(f">nucpro {name}<")[2].partition("<h3")[0]
        assert parser.usage_line in section
        for action in parser.actions:
            if action.option_strings and action.dest not in ("help", "progress", "quiet", "verbose"):
                assert f"<code>{action.option_strings[-1]}" in section, (name, action.dest)


def test_pages_ask_no_other_host_for_anything(site: Path) -> None:
    for path in site.rglob("*.html"):
        text = path.read_text()
        asked = re.findall(
            r"<(?:link|script|img|iframe|source)\b[^>]*?(?:href|src)=\"?(https?:|//)[^>]*", text
        )
        assert not asked, path


def test_only_what_belongs_to_the_site_is_in_it(site: Path) -> None:
    assert not list(site.rglob("*.py")) + list(site.rglob("*.md"))


def test_references_of_docstrings_are_links_or_names(site: Path) -> None:
    text = (site / "api.html").read_text()
    assert not re.findall(r":(?:func|class|meth|mod|attr|data):", text)
    assert re.search(r'<a href="#nucpro\.formats\.fasta\.stream">', text)
    for name in (
        "nucpro.formats.fasta.read",
        "nucpro.formats.read_merged",
        "units.extract_fast_esm",
        "nucpro.errors.StoreError",
    ):
        assert f'id="{name}"' in text


@pytest.mark.skipif(CHROMIUM is None, reason=WITHOUT)
def test_pages_fit_and_load_everything_in_a_browser(site: Path, address: str) -> None:
    said: list[str] = []
    with chromium() as started:
        for name, (width, height) in SIZES.items():
            with started.new_context(viewport={"width": width, "height": height}) as context:
                page = context.new_page()
                page.on("console", lambda message: said.append(message.text))
                page.on("pageerror", lambda error: said.append(str(error)))
                page.on(
                    "request", lambda request: request.url.startswith(address) or said.append(request.url)
                )
                for path in sorted(site.glob("*.html")):
                    page.goto(f"{address}/{path.name}")
                    wide = page.evaluate("document.documentElement.scrollWidth")
                    assert wide <= width, f"{path.name} is {wide} wide on a {name}"
                    broken = page.evaluate(
                        "[...document.images].filter(i => !i.naturalWidth).map(i => i.src)"
                    )
                    assert not broken, path.name
    assert not said


@pytest.mark.skipif(CHROMIUM is None, reason=WITHOUT)
def test_the_search_finds_a_page_by_a_word(address: str) -> None:
    with chromium() as started:
        page = started.new_page()
        page.goto(f"{address}/index.html")
        page.click("input[name=query]")
        page.keyboard.type("truncated")
        page.wait_for_selector(".md-search-result__link")
        found = page.eval_on_selector_all(".md-search-result__link", "links => links.map(link => link.href)")
        assert any("faq.html" in link for link in found)


def test_a_dead_link_stops_the_build(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "index.md").write_text("# One\n\n[nowhere](missing.md)\n")
    config = tmp_path / "mkdocs.yml"
    validation = (ROOT / "mkdocs.yml").read_text().partition("\nvalidation:")[2].partition("\n\n")[0]
    config.write_text(f"site_name: one\nvalidation:{validation}\n")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(config)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 1
    assert "missing.md" in built.stderr
