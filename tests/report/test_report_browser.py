"""The page in a real browser: it opens by itself, draws, answers, and takes nothing from a hostile id."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import browser
from folders import Frame
from nucpro.execution.workers import Workers
from nucpro.folder.paths import DataFolder
from nucpro.report.subject import Subject
from nucpro.report.writing import write_report
from report_folders import HOSTILE, add_files, copy_rows, subject_of

pytestmark = pytest.mark.skipif(browser.CHROMIUM is None, reason=browser.WITHOUT)


@pytest.fixture(scope="module")
def report(written: Subject) -> Path:
    with Workers(1) as workers:
        return write_report(written, workers)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser.chromium() as started:
        yield started


@pytest.fixture(scope="module")
def shared(chromium: Any, report: Path) -> Iterator[Any]:
    """One page for the tests that leave it as they find it."""
    with browser.open_page(chromium, report) as page:
        yield page


@pytest.fixture
def page(shared: Any) -> Any:
    shared.reload()
    shared.wait_for_selector("#points[data-drawn]")
    return shared


def pixels(page: Any) -> set[tuple[int, ...]]:
    """Colours on the map that are not transparent, rounded so that soft edges count once."""
    found = page.evaluate(
        """() => { const from = document.getElementById("points"), to = document.createElement("canvas");
        [to.width, to.height] = [from.width, from.height];
        const context = to.getContext("2d", { willReadFrequently: true }), seen = new Set();
        context.drawImage(from, 0, 0);
        const d = context.getImageData(0, 0, to.width, to.height).data;
        for (let i = 0; i < d.length; i += 4)
          if (d[i + 3] > 140) seen.add([d[i], d[i + 1], d[i + 2]].map((v) => v >> 5).join());
        return [...seen]; }"""
    )
    return {tuple(map(int, colour.split(","))) for colour in found}


def place_of(page: Any, name: str) -> tuple[float, float]:
    """Bring a record to the middle of the map by its id."""
    page.fill("#find-id", name)
    page.press("#find-id", "Enter")
    box = page.locator("#points").bounding_box()
    return box["width"] / 2, box["height"] / 2


def drag(page: Any, *corners: tuple[float, float]) -> None:
    """Drag over the map, through places given as shares of its width and height."""
    page.locator("#points").scroll_into_view_if_needed()
    box = page.locator("#points").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=4)
    page.mouse.up()


def test_the_page_opens_alone_and_draws(page: Any, report: Path) -> None:
    assert page.said == []
    assert page.evaluate("performance.getEntriesByType('resource').length") == 0
    assert "http" not in report.read_text(encoding="utf-8").replace("http-equiv", "")
    # Both classes are there, each in its colour: orange-red (200, 74, 0) and blue (0, 114, 178).
    colours = pixels(page)
    assert any(red > green + 1 and red > blue + 1 for red, green, blue in colours)
    assert any(blue > red + 1 for red, _, blue in colours)
    for part in (
        "Overview",
        "Map",
        "Findings",
        "Selection",
        "Validation",
        "Lengths",
        "Speed",
        "Runs",
        "Provenance",
    ):
        assert page.get_by_role("heading", name=part, exact=True, level=2).is_visible()


def test_hovering_names_the_record_and_its_nearest(
    page: Any, written: Subject, frames: dict[str, list[Frame]]
) -> None:
    name = frames["viral.1.1"][7].name
    x, y = place_of(page, name)
    page.hover("#points", position={"x": 3, "y": 3})
    page.hover("#points", position={"x": x, "y": y})
    tip = page.locator("#tip")
    assert tip.is_visible()
    lines = tip.locator("> *").all_inner_texts()
    assert lines[0] == name
    assert lines[1] == "viral"
    assert lines[2] == written.files[0].pair.key
    bases, residues = len(frames["viral.1.1"][7].bases), len(frames["viral.1.1"][7].residues)
    assert lines[3] == f"{bases} bases, {residues} residues"
    assert [line[:2] for line in lines[5:]] == ["1.", "2.", "3.", "4.", "5."]
    page.mouse.move(2, 2)
    assert not tip.is_visible()


def test_a_lasso_and_a_box_select_and_shift_adds(page: Any, written: Subject) -> None:
    total = sum(state.records for state in written.files)
    drag(page, (0.01, 0.01), (0.99, 0.01), (0.99, 0.99), (0.01, 0.99))
    ids = page.input_value("#ids").split("\n")
    assert len(ids) == len(set(ids)) == total
    viral, host = written.records(1), written.records(0)
    assert page.inner_text("#selected") == f"{total} records: {viral} viral, {host} host."
    page.click("#clear")
    assert page.input_value("#ids") == ""
    assert page.is_disabled("#download")
    page.check("input[value=box]")
    drag(page, (0.01, 0.01), (0.5, 0.99))
    left = set(page.input_value("#ids").split("\n"))
    page.keyboard.down("Shift")
    drag(page, (0.5, 0.01), (0.99, 0.99))
    page.keyboard.up("Shift")
    both = set(page.input_value("#ids").split("\n"))
    assert set() < left < both == set(ids)


def test_selected_ids_can_be_saved(page: Any, tmp_path: Path) -> None:
    drag(page, (0.01, 0.01), (0.99, 0.01), (0.99, 0.99), (0.01, 0.99))
    with page.expect_download() as started:
        page.click("#download")
    started.value.save_as(tmp_path / "ids.txt")
    assert started.value.suggested_filename == "selected_ids.txt"
    assert (tmp_path / "ids.txt").read_text(encoding="utf-8").rstrip("\n") == page.input_value("#ids")


def test_what_the_legend_hides_is_not_selected(page: Any, written: Subject) -> None:
    page.select_option("#colour", "category")
    assert page.locator("#legend button").all_inner_texts() == ["viral", "invertebrate", "bacteria"]
    page.locator("#legend button").first.click()
    drag(page, (0.01, 0.01), (0.99, 0.01), (0.99, 0.99), (0.01, 0.99))
    assert len(page.input_value("#ids").split("\n")) == written.records(0)
    page.select_option("#colour", "file")
    assert page.locator("#legend button").all_inner_texts() == [state.pair.key for state in written.files]


def test_everything_works_by_keyboard(page: Any) -> None:
    page.focus("#points")
    page.keyboard.press("Enter")
    assert page.locator("#tip b").is_visible()
    name = page.locator("#tip b").inner_text()
    page.keyboard.press("Space")
    assert page.input_value("#ids") == name
    for key in ("+", "ArrowLeft", "ArrowUp", "-", "0"):
        page.keyboard.press(key)
    page.keyboard.press("Escape")
    assert page.input_value("#ids") == ""
    assert not page.locator("#tip").is_visible()
    reached = set()
    page.evaluate("document.activeElement.blur()")
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert {"theme", "layout", "colour", "zoom-in", "find-id", "points", "ids", "SUMMARY", "A"} <= reached
    assert page.said == []


def test_hostile_names_stay_text(page: Any, written: Subject) -> None:
    for name in HOSTILE:
        place_of(page, name)
        assert page.locator("#tip b").inner_text() == name
    drag(page, (0.01, 0.01), (0.99, 0.01), (0.99, 0.99), (0.01, 0.99))
    page.click("#zoom-all")
    drag(page, (0.01, 0.01), (0.99, 0.01), (0.99, 0.99), (0.01, 0.99))
    assert set(HOSTILE) <= set(page.input_value("#ids").split("\n"))
    page.click("summary")
    assert page.get_by_text("bacteria.<i>.identified_nucleotide/output_1.fa").first.is_visible()
    assert page.inner_text("h1") == 'Embeddings of data <b>&"'
    assert page.evaluate("window.broken") is None
    assert page.locator("main img, main script, main i, main b").count() == page.locator("#tip b").count()
    assert page.said == []


def test_dark_follows_the_system_and_the_button_turns_it(chromium: Any, report: Path) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    with browser.open_page(chromium, report, scheme="dark") as page:
        dark, map_dark = page.evaluate(background), pixels(page)
        drawn = page.get_attribute("#points", "data-drawn")
        page.click("#theme")
        page.wait_for_selector(f"#points:not([data-drawn='{drawn}'])")
        assert page.evaluate(background) == "rgb(255, 255, 255)"
        assert pixels(page) != map_dark
        page.click("#theme")
        assert page.evaluate(background) == dark
        assert page.said == []


@pytest.mark.parametrize("width", [320, 375, 768])
def test_nothing_is_wider_than_a_narrow_screen(chromium: Any, report: Path, width: int) -> None:
    with browser.open_page(chromium, report, width=width, height=700) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.locator("#points").bounding_box()["width"] > width * 0.5
        sizes = page.evaluate(
            "[...document.querySelectorAll('main *')].filter((e) => e.childNodes.length && e.offsetParent && "
            "[...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())).map((e) => "
            "parseFloat(getComputedStyle(e).fontSize))"
        )
        assert min(sizes) >= 12
        lines = page.evaluate(
            "[...document.querySelectorAll('td')].filter((e) => e.offsetParent && e.textContent.length > 20)"
            ".map((e) => { const text = document.createRange(); text.selectNodeContents(e); return "
            "e.textContent.length * parseFloat(getComputedStyle(e).fontSize) / text.getBoundingClientRect().height; })"
        )
        assert min(lines) > 10, "names are broken into narrow pieces"
        assert page.said == []


def test_a_page_is_printed_in_the_light_theme(chromium: Any, report: Path) -> None:
    with browser.open_page(chromium, report, scheme="dark") as page:
        background = "getComputedStyle(document.body).backgroundColor"
        dark, map_dark = page.evaluate(background), pixels(page)
        page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        assert page.evaluate(background) == "rgb(255, 255, 255)"
        assert pixels(page) != map_dark
        drawn = page.get_attribute("#points", "data-drawn")
        page.evaluate("window.dispatchEvent(new Event('afterprint'))")
        page.wait_for_selector(f"#points:not([data-drawn='{drawn}'])")
        assert page.evaluate(background) == dark
        assert pixels(page) == map_dark


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read_against_their_background(chromium: Any, report: Path, scheme: str) -> None:
    """WCAG 2.2, 1.4.3: a contrast of 4.5 for type, and 3 for the marks of the map (1.4.11)."""
    with browser.open_page(chromium, report, scheme=scheme) as page:
        names = ("paper", "panel", "ink", "soft", "accent", "viral", "host")
        colours = {
            name: page.evaluate(
                f"getComputedStyle(document.documentElement).getPropertyValue('--{name}')"
            ).strip()
            for name in names
        }
    for paper in ("paper", "panel"):
        for text in ("ink", "soft", "accent"):
            assert contrast(colours[text], colours[paper]) >= 4.5, (text, paper)
        for mark in ("viral", "host"):
            assert contrast(colours[mark], colours[paper]) >= 3, (mark, paper)


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours ``#rrggbb``, as WCAG 2.2 defines it."""
    bright, dark = sorted(map(_luminance, (one, other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_links_of_findings_lead_to_the_map(
    chromium: Any, tmp_path: Path, frames: dict[str, list[Frame]]
) -> None:
    pairs = add_files(tmp_path, "viral.1.1", frames["viral.1.1"][:20])
    pairs += add_files(tmp_path, "plant.1.1", frames["viral.1.1"][20:30])
    # The host file holds rows of a viral one: near-duplicates across classes.
    copy_rows(pairs[0], pairs[2])
    with Workers(1) as workers:
        path = write_report(subject_of(tmp_path, pairs), workers)
    with browser.open_page(chromium, path) as page:
        link = page.locator("#findings table").first.locator("a").first
        name = link.inner_text()
        link.click()
        assert page.locator("#tip b").inner_text() == name
        assert page.evaluate("document.activeElement.id") == "points"
        assert page.said == []


def test_a_page_without_files_still_works(chromium: Any, tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    subject = Subject(folder, (), "given", (), ("viral: no full file <b>",), 0, ())
    with Workers(1) as workers:
        path = write_report(subject, workers)
    with browser.open_page(chromium, path, wait_for_map=False) as page:
        assert "1 problem found" in page.inner_text(".verdict")
        assert page.get_by_text("viral: no full file <b>").is_visible()
        assert page.said == []
