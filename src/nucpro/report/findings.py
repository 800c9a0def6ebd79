"""Sections of the page about the vectors: the map, outliers, near-duplicates, and the data of the map.

A sample and its geometry come in; out go markup and one JSON document that the page's script draws.
Coordinates and other arrays are base64 of little-endian integers, which a browser decodes at once.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nucpro.errors import counted
from nucpro.folder.paths import CATEGORIES, CLASS_NAMES
from nucpro.report.charts import Markup, element, join, table
from nucpro.report.geometry import NEAR_DUPLICATE, NEIGHBOURS, OUTLYING, Geometry, Layout
from nucpro.report.sample import Sample

__all__ = ["findings", "map_data", "map_section"]

_STEPS = 65535

_CONTROLS = """
<div class="controls" role="group" aria-label="Map controls">
  <label>Map <select id="layout"></select></label>
  <label>Colour <select id="colour">
    <option value="class">class</option><option value="category">category</option><option value="file">file</option>
  </select></label>
  <span class="tools" role="radiogroup" aria-label="What dragging does">
    <label><input type="radio" name="tool" value="lasso" checked> lasso</label>
    <label><input type="radio" name="tool" value="box"> box</label>
    <label><input type="radio" name="tool" value="move"> move</label>
  </span>
  <span class="tools">
    <button type="button" id="zoom-in" aria-label="Zoom in">+</button>
    <button type="button" id="zoom-out" aria-label="Zoom out">−</button>
    <button type="button" id="zoom-all">all</button>
  </span>
  <form id="find"><label>Record <input id="find-id" autocomplete="off" spellcheck="false"
    placeholder="id or part of it"></label> <button>find</button></form>
</div>
<div class="map">
  <div class="canvas">
    <canvas id="points" tabindex="0" role="application"
      aria-label="Map of the sampled sequences" aria-describedby="map-keys"></canvas>
    <div id="tip" role="status" aria-live="polite" hidden></div>
    <div class="x-axis" id="x-axis"></div><div class="y-axis" id="y-axis"></div>
  </div>
  <aside>
    <h3 id="legend-title">Class</h3>
    <div id="legend" role="group" aria-labelledby="legend-title"></div>
    <div class="selection"><h3>Selection</h3>
    <p id="selected" role="status" aria-live="polite">Nothing is selected: draw around points.</p>
    <textarea id="ids" readonly rows="6" aria-label="Ids of the selected records"></textarea>
    <div class="tools">
      <button type="button" id="copy" disabled>copy</button>
      <button type="button" id="download" disabled>download</button>
      <button type="button" id="clear" disabled>clear</button>
    </div></div>
  </aside>
</div>
<p id="map-keys" class="hint">Point at a dot for its record. Wheel or + and − zoom. With the keyboard: arrows move the
map under the cross, + and − zoom, Enter names the point nearest to the cross, Space selects it, 0 shows all,
Escape clears.</p>
<noscript><p>The interactive map needs JavaScript; map.png beside this page shows it.</p></noscript>
"""


def map_section(sample: Sample, geometry: Geometry | None) -> Markup:
    """Write the frame that the script fills, and describe what is shown."""
    if geometry is None:
        return element(
            "p",
            f"{counted(len(sample), 'sequence', ',')} with merged vectors, too few for a map. Run "
            "nucpro extract DATA first.",
        )
    text = (
        f"{counted(len(sample), 'sequence', ',')}, sampled with a fixed seed and balanced over classes, categories and "
        f"{counted(len(sample.pairs), 'file', ',')}, as far as they have enough rows. DNA and "
        "protein columns have equal weight."
    )
    return join((element("p", text), Markup(_CONTROLS)))


def findings(sample: Sample, geometry: Geometry | None) -> Markup:
    """List findings: records nearly the same in both classes, surrounded by the other class, and far from all."""
    if geometry is None:
        return element("p", "There is no sample to search.")
    duplicates = [
        (_record(sample, viral), _record(sample, host), f"{cosine:.5f}")
        for viral, host, cosine in geometry.duplicates
    ]
    surrounded = [(*_place(sample, row), f"{count} of {count}") for row, count in geometry.surrounded]
    outliers = [(*_place(sample, row), f"{score:.1f}") for row, score in geometry.outliers]
    place = ["record", "class", "file", "#bases", "#residues"]
    return join(
        (
            element("h3", "Near-duplicates across classes"),
            _listed(
                duplicates,
                table(
                    f"Cosine of {NEAR_DUPLICATE} or more",
                    ["viral record", "host record", "#cosine"],
                    duplicates,
                ),
                f"None: no pair of a viral and a host sequence in the sample has a cosine of {NEAR_DUPLICATE} or more.",
            ),
            element("h3", "Surrounded by the other class"),
            _listed(
                surrounded,
                table(
                    "Records whose nearest are all of the other class", [*place, "#of the other"], surrounded
                ),
                f"None: every sequence has a neighbour of its own class among its {NEIGHBOURS} nearest.",
            ),
            element("h3", "Outliers"),
            _listed(
                outliers,
                table(
                    "Distance to the nearest records, in robust standard deviations of their class",
                    [*place, "#deviations"],
                    outliers,
                ),
                f"None: no sequence is {OUTLYING:g} or more robust standard deviations from its nearest neighbours.",
            ),
        )
    )


def _listed(rows: Sequence[object], shown: Markup, otherwise: str) -> Markup:
    return shown if rows else element("p", otherwise)


def _record(sample: Sample, row: int) -> Markup:
    """Name a record, with a link that the script leads to the map."""
    return element("a", sample.ids[row], href="#map", data_row=row)


def _place(sample: Sample, row: int) -> tuple[object, ...]:
    pair = sample.pairs[sample.files[row]]
    return (
        _record(sample, row),
        CLASS_NAMES[pair.label],
        pair.key,
        f"{sample.bases[row]:,}",
        f"{sample.residues[row]:,}",
    )


def map_data(sample: Sample, geometry: Geometry | None) -> str:
    """JSON for the script of the page; it cannot end its element."""
    content = {} if geometry is None else _content(sample, geometry)
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _content(sample: Sample, geometry: Geometry) -> dict[str, object]:
    used = sorted(set(sample.categories.tolist()))
    return {
        "ids": sample.ids,
        "layouts": [_layout(layout) for layout in geometry.layouts],
        "classes": list(CLASS_NAMES),
        "categories": [CATEGORIES[place] for place in used],
        "files": [pair.key for pair in sample.pairs],
        "label": _packed(sample.labels, "<u1"),
        "category": _packed(np.searchsorted(used, sample.categories), "<u1"),
        "file": _packed(sample.files, "<u2"),
        "bases": _packed(sample.bases, "<u4"),
        "residues": _packed(sample.residues, "<u4"),
        "neighbours": _packed(geometry.neighbours, "<u4"),
    }


def _layout(layout: Layout) -> dict[str, object]:
    """Coordinates in steps of the longer side; smaller differences are not visible."""
    low = layout.points.min(axis=0)
    extent = layout.points.max(axis=0) - low
    scale = _STEPS / max(float(extent.max()), 1e-9)
    steps = np.rint((layout.points - low) * scale)
    return {
        "name": layout.name,
        "axes": layout.axes,
        "x": _packed(steps[:, 0], "<u2"),
        "y": _packed(steps[:, 1], "<u2"),
    }


def _packed(values: NDArray[np.generic], kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, kind).tobytes()).decode("ascii")
