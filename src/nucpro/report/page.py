"""The page of a report: one HTML file that needs no network, made of its sections, a style and a script.

The page forbids itself every request by a content security policy, and runs no script but its own, which
the policy names by its digest: whatever a record id holds, it stays text.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from string import Template

from nucpro import __version__
from nucpro.errors import counted
from nucpro.formats.figures import CLASS_COLOURS, DARK_CLASS_COLOURS
from nucpro.report import findings, sections
from nucpro.report.charts import Markup, element, items, join
from nucpro.report.classifier import classifiers
from nucpro.report.geometry import Geometry
from nucpro.report.sample import Sample
from nucpro.report.subject import Output, Subject
from nucpro.state.history import FAILED, INTERRUPTED

__all__ = ["page"]

_SHOWN = 20
_ENDED = {FAILED: "failed", INTERRUPTED: "was interrupted"}


def page(subject: Subject, sample: Sample, geometry: Geometry | None) -> str:
    """Write the page.

    Parameters
    ----------
    subject : Subject
        The data folder.
    sample : Sample
        Rows of its merged files; may be empty.
    geometry : Geometry or None
        Their geometry; None for too few of them.

    Returns
    -------
    str
        HTML.
    """
    script = _part("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    name = subject.folder.root.resolve().name
    mark, verdict = _verdict(subject)
    texts = {
        "name": name,
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "mark": mark,
        "verdict": verdict,
        "version": __version__,
    }
    markup = {
        "script_digest": digest,
        "style": f"{_class_colours()}\n{_part('page.css')}",
        "script": script,
        "contents": _contents(subject, sample, geometry),
        "data": findings.map_data(sample, geometry),
    }
    return Template(_part("page.html")).substitute(
        markup, **{key: escape(text) for key, text in texts.items()}
    )


def _class_colours() -> str:
    shades = {**CLASS_COLOURS, **{f"dark-{name}": colour for name, colour in DARK_CLASS_COLOURS.items()}}
    return f":root {{ {' '.join(f'--{name}: {colour};' for name, colour in shades.items())} }}"


def _part(name: str) -> str:
    return files("nucpro.report").joinpath(name).read_text(encoding="utf-8")


def _verdict(subject: Subject) -> tuple[str, str]:
    """Status of the folder in one sentence, and its mark."""
    total = len(subject.files)
    good = sum(file.output is Output.VALIDATED for file in subject.files)
    records = sum(file.records for file in subject.files)
    last = subject.runs[-1] if subject.runs else None
    if subject.problems:
        return "bad", f"{counted(len(subject.problems), 'problem', ',')} found, listed below."
    if last is not None and last.how in (FAILED, INTERRUPTED):
        return (
            "bad",
            f"The last run {_ENDED[last.how]}. {good:,} of {counted(total, 'file', ',')} are validated.",
        )
    if total and good == total:
        return (
            "good",
            f"Validated: {counted(total, 'file', ',')}, {counted(records, 'sequence', ',')}, all dimensions correct.",
        )
    return (
        "",
        f"{good:,} of {counted(total, 'file', ',')} are validated; nucpro extract DATA makes and validates the rest.",
    )


def _contents(subject: Subject, sample: Sample, geometry: Geometry | None) -> Markup:
    parts = {
        "Overview": _overview(subject, sample, geometry),
        "Map": findings.map_section(sample, geometry),
        "Findings": findings.findings(sample, geometry),
        "Selection": sections.selection(subject),
        "Validation": sections.validation(subject),
        "Lengths": sections.lengths(sample),
        **({"Classifier": classifiers(subject.models, sample)} if subject.models else {}),
        "Speed": sections.rates(subject.last_extraction),
        "Runs": sections.runs(subject),
        "Provenance": sections.provenance(subject, sample),
    }
    links = [element("li", element("a", title, href=f"#{title.lower()}")) for title in parts]
    shown = [
        element(
            "section",
            element("h2", title, id=f"{title.lower()}-title"),
            content,
            id=title.lower(),
            aria_labelledby=f"{title.lower()}-title",
        )
        for title, content in parts.items()
    ]
    return join((element("nav", element("ul", *links), aria_label="Sections"), element("main", *shown)))


def _overview(subject: Subject, sample: Sample, geometry: Geometry | None) -> Markup:
    viral, host = subject.records(1), subject.records(0)
    made = sum(file.output is not Output.MISSING for file in subject.files)
    run = subject.last_extraction
    tiles = [
        (f"{made:,} of {len(subject.files):,}", "merged files made"),
        (f"{viral + host:,}", "sequences"),
        (f"{viral:,} : {host:,}", "viral to host sequences"),
        (f"{sample.vectors.shape[1]:,}" if len(sample) else "none", "columns per merged row"),
    ]
    if geometry is not None and geometry.agreement is not None:
        meaning = f"of sampled sequences have mostly neighbours of their own class (by chance: {geometry.chance:.0%})"
        tiles.append((f"{geometry.agreement:.1%}", meaning))
    if run is not None:
        seconds = max(sum(file.elapsed for file in run.files), 1e-9)
        tiles.append(
            (
                f"{sum(file.records for file in run.files) / seconds:,.0f}",
                "sequences/s in the last extraction",
            )
        )
    outside = [f"{counted(subject.outside, 'file', ',')} outside the selection."] if subject.outside else []
    notes = [*subject.notes, *outside, *(f"Not in the sample: {problem}" for problem in sample.problems)]
    return join(
        (
            items(
                [join((element("strong", value), element("span", meaning))) for value, meaning in tiles],
                class_="tiles",
            ),
            _messages("Problems", subject.problems),
            _messages("Notes", notes),
        )
    )


def _messages(title: str, messages: Sequence[str]) -> Markup:
    shown = [
        *messages[:_SHOWN],
        *([f"… and {len(messages) - _SHOWN:,} more"] if len(messages) > _SHOWN else []),
    ]
    return join((element("h3", title), items(shown, class_="messages"))) if shown else Markup()
