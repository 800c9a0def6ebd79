// The map of a report: draws the points of the document's JSON, and answers pointer and keyboard.
// Texts from the data reach the page through textContent and value only.
"use strict";

const byId = (id) => document.getElementById(id);
const root = document.documentElement;

// Theme: that of the system until the button chooses the other one.
const systemIsDark = window.matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : systemIsDark.matches);
const nameTheme = () => { byId("theme").textContent = isDark() ? "light theme" : "dark theme"; };
byId("theme").addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  nameTheme();
  document.dispatchEvent(new Event("recolour"));
});
systemIsDark.addEventListener("change", () => {
  nameTheme();
  document.dispatchEvent(new Event("recolour"));
});
nameTheme();

// Paper is white, whatever the theme.
let themeOnScreen;
window.addEventListener("beforeprint", () => {
  themeOnScreen = root.dataset.theme;
  root.dataset.theme = "light";
  document.dispatchEvent(new Event("recolour"));
});
window.addEventListener("afterprint", () => {
  if (themeOnScreen) root.dataset.theme = themeOnScreen;
  else delete root.dataset.theme;
  document.dispatchEvent(new Event("recolour"));
});

const data = JSON.parse(byId("data").textContent);
if (data.ids) startMap(data);

function startMap(data) {
  const count = data.ids.length;
  const unpack = (text, Kind) => {
    const raw = atob(text);
    const bytes = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
    return new Kind(bytes.buffer);
  };
  const groupings = {
    class: { title: "Class", names: data.classes, of: unpack(data.label, Uint8Array), hidden: new Set() },
    category: { title: "Category", names: data.categories, of: unpack(data.category, Uint8Array), hidden: new Set() },
    file: { title: "File", names: data.files, of: unpack(data.file, Uint16Array), hidden: new Set() },
  };
  const layouts = data.layouts.map((layout) => ({
    name: layout.name, axes: layout.axes, x: unpack(layout.x, Uint16Array), y: unpack(layout.y, Uint16Array),
  }));
  const bases = unpack(data.bases, Uint32Array);
  const residues = unpack(data.residues, Uint32Array);
  const neighbours = unpack(data.neighbours, Uint32Array);
  const perPoint = neighbours.length / count;

  const canvas = byId("points");
  const context = canvas.getContext("2d");
  const tip = byId("tip");
  const chosen = new Set();
  let layout = layouts[0];
  let grouping = groupings.class;
  let view = { scale: 1, left: 0, top: 0 };
  let fit = view;
  let hovered = -1;
  let drag = null;
  let waiting = false;

  // ---- drawing ----

  const SHAPES = ["circle", "square", "triangle", "diamond", "cross"];
  const colourOf = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();
  const lookOf = (group) => {
    if (grouping === groupings.class) return { colour: data.classes[group], shape: SHAPES[group === 1 ? 0 : 1] };
    return { colour: `c${group % 8}`, shape: SHAPES[(group + Math.floor(group / 8)) % SHAPES.length] };
  };

  function trace(target, shape, x, y, r) {
    target.beginPath();
    if (shape === "circle") target.arc(x, y, r, 0, 2 * Math.PI);
    else if (shape === "square") target.rect(x - r * 0.85, y - r * 0.85, r * 1.7, r * 1.7);
    else if (shape === "triangle") { target.moveTo(x, y - r * 1.1); target.lineTo(x + r, y + r * 0.8); target.lineTo(x - r, y + r * 0.8); }
    else if (shape === "diamond") { target.moveTo(x, y - r * 1.2); target.lineTo(x + r, y); target.lineTo(x, y + r * 1.2); target.lineTo(x - r, y); }
    else { const w = r / 2.4; target.rect(x - r, y - w, 2 * r, 2 * w); target.rect(x - w, y - r, 2 * w, 2 * r); }
    target.closePath();
  }

  function sprite(look, radius, alpha) {
    const picture = document.createElement("canvas");
    picture.width = picture.height = Math.ceil(2 * radius * 1.25) + 2;
    const target = picture.getContext("2d");
    target.globalAlpha = alpha;
    target.fillStyle = colourOf(look.colour);
    trace(target, look.shape, picture.width / 2, picture.width / 2, radius);
    target.fill();
    return picture;
  }

  const ratio = () => window.devicePixelRatio || 1;
  const radius = () => (count > 20000 ? 2.2 : count > 4000 ? 2.8 : count > 500 ? 3.6 : 5);
  let sprites = [];
  const makeSprites = () => {
    const alpha = count > 20000 ? 0.35 : count > 4000 ? 0.5 : 0.8;
    sprites = grouping.names.map((_, group) => sprite(lookOf(group), radius() * ratio(), alpha));
  };

  const screenX = (i) => (layout.x[i] - view.left) * view.scale;
  const screenY = (i) => (view.top - layout.y[i]) * view.scale;
  const isShown = (i) => Object.values(groupings).every((each) => !each.hidden.has(each.of[i]));

  function draw() {
    waiting = false;
    const r = ratio();
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    for (let i = 0; i < count; i++) {
      if (!isShownFast[i]) continue;
      const picture = sprites[grouping.of[i]];
      const half = picture.width / 2;
      context.drawImage(picture, Math.round(screenX(i) * r - half), Math.round(screenY(i) * r - half));
    }
    context.setTransform(r, 0, 0, r, 0, 0);
    drawMarks();
    canvas.dataset.drawn = String(Number(canvas.dataset.drawn || 0) + 1);
  }

  function drawMarks() {
    context.lineWidth = 1.5;
    context.strokeStyle = colourOf("chosen");
    [...chosen].filter(isShown).forEach((i) => {
      trace(context, "circle", screenX(i), screenY(i), radius() + 1.5);
      context.stroke();
    });
    if (hovered >= 0) {
      for (let k = 0; k < perPoint; k++) {
        const other = neighbours[hovered * perPoint + k];
        context.beginPath();
        context.moveTo(screenX(hovered), screenY(hovered));
        context.lineTo(screenX(other), screenY(other));
        context.stroke();
      }
      context.lineWidth = 3;
      trace(context, "circle", screenX(hovered), screenY(hovered), radius() + 4);
      context.stroke();
    }
    if (drag && drag.path.length > 1 && drag.tool !== "move") {
      context.lineWidth = 1.5;
      context.setLineDash([5, 4]);
      context.beginPath();
      outline(drag).forEach(([x, y], step) => (step ? context.lineTo(x, y) : context.moveTo(x, y)));
      context.closePath();
      context.stroke();
      context.setLineDash([]);
    }
    if (document.activeElement === canvas && canvas.matches(":focus-visible")) {
      const [x, y] = [canvas.clientWidth / 2, canvas.clientHeight / 2];
      context.lineWidth = 1.5;
      context.beginPath();
      context.moveTo(x - 9, y); context.lineTo(x + 9, y); context.moveTo(x, y - 9); context.lineTo(x, y + 9);
      context.stroke();
    }
  }

  let isShownFast = new Uint8Array(count).fill(1);
  const filter = () => { for (let i = 0; i < count; i++) isShownFast[i] = isShown(i) ? 1 : 0; };
  const redraw = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(draw);
  };

  // ---- view ----

  function resize() {
    const r = ratio();
    canvas.width = Math.round(canvas.clientWidth * r);
    canvas.height = Math.round(canvas.clientHeight * r);
    makeSprites();
    showAll();
  }

  function showAll() {
    let [low, high, bottom, top] = [Infinity, -Infinity, Infinity, -Infinity];
    for (let i = 0; i < count; i++) {
      low = Math.min(low, layout.x[i]); high = Math.max(high, layout.x[i]);
      bottom = Math.min(bottom, layout.y[i]); top = Math.max(top, layout.y[i]);
    }
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    const room = 34;
    const scale = Math.min((width - 2 * room) / Math.max(high - low, 1), (height - 2 * room) / Math.max(top - bottom, 1));
    fit = { scale, left: (low + high) / 2 - width / 2 / scale, top: (top + bottom) / 2 + height / 2 / scale };
    view = { ...fit };
    byId("x-axis").textContent = `${layout.axes[0]} →`;
    byId("y-axis").textContent = `${layout.axes[1]} →`;
    redraw();
  }

  function zoom(factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
    const scale = Math.min(Math.max(view.scale * factor, fit.scale / 2), fit.scale * 400);
    view.left += x / view.scale - x / scale;
    view.top -= y / view.scale - y / scale;
    view.scale = scale;
    redraw();
  }

  function move(dx, dy) {
    view.left -= dx / view.scale;
    view.top += dy / view.scale;
    redraw();
  }

  function centre(i) {
    view.scale = Math.max(view.scale, fit.scale * 4);
    view.left = layout.x[i] - canvas.clientWidth / 2 / view.scale;
    view.top = layout.y[i] + canvas.clientHeight / 2 / view.scale;
    show(i);
  }

  // ---- looking at one point ----

  function nearest(x, y, reach) {
    let [best, found] = [reach * reach, -1];
    for (let i = 0; i < count; i++) {
      if (!isShownFast[i]) continue;
      const [dx, dy] = [screenX(i) - x, screenY(i) - y];
      const distance = dx * dx + dy * dy;
      if (distance < best) [best, found] = [distance, i];
    }
    return found;
  }

  function show(i) {
    if (i === hovered && i < 0) return;
    hovered = i;
    tip.hidden = i < 0;
    if (i >= 0) {
      tip.replaceChildren(...describe(i));
      const [x, y] = [screenX(i), screenY(i)];
      const left = Math.min(Math.max(x + 14, 4), canvas.clientWidth - tip.offsetWidth - 4);
      const below = y + 14 + tip.offsetHeight < canvas.clientHeight;
      tip.style.left = `${Math.max(left, 4)}px`;
      tip.style.top = `${below ? y + 14 : Math.max(4, y - 14 - tip.offsetHeight)}px`;
    }
    redraw();
  }

  function describe(i) {
    const line = (text, tag = "div") => {
      const element = document.createElement(tag);
      element.textContent = text;
      return element;
    };
    const around = [];
    for (let k = 0; k < perPoint; k++) {
      const other = neighbours[i * perPoint + k];
      around.push(line(`${k + 1}. ${data.ids[other]} (${data.classes[groupings.class.of[other]]})`));
    }
    return [
      line(data.ids[i], "b"),
      line([...new Set([data.classes[groupings.class.of[i]], data.categories[groupings.category.of[i]]])].join(", ")),
      line(data.files[groupings.file.of[i]]),
      line(`${bases[i].toLocaleString("en")} bases, ${residues[i].toLocaleString("en")} residues`),
      line("Nearest:"),
      ...around,
    ];
  }

  // ---- selection ----

  function outline({ tool, path }) {
    if (tool === "lasso") return path;
    const [[x0, y0], [x1, y1]] = [path[0], path[path.length - 1]];
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]];
  }

  function isInside(polygon, x, y) {
    let inside = false;
    for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
      const [[xi, yi], [xj, yj]] = [polygon[i], polygon[j]];
      if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) inside = !inside;
    }
    return inside;
  }

  function choose(polygon, add) {
    if (!add) chosen.clear();
    for (let i = 0; i < count; i++) {
      if (isShownFast[i] && isInside(polygon, screenX(i), screenY(i))) chosen.add(i);
    }
    listChosen();
  }

  function listChosen() {
    const rows = [...chosen];
    const viral = rows.filter((i) => groupings.class.of[i] === 1).length;
    byId("selected").textContent = rows.length
      ? `${rows.length.toLocaleString("en")} records: ${viral.toLocaleString("en")} viral, ${(rows.length - viral).toLocaleString("en")} host.`
      : "Nothing is selected: draw around points.";
    byId("ids").value = rows.map((i) => data.ids[i]).join("\n");
    for (const id of ["copy", "download", "clear"]) byId(id).disabled = !rows.length;
    redraw();
  }

  byId("copy").addEventListener("click", async () => {
    byId("ids").select();
    // The clipboard of a page that was opened as a file may be closed to it; the older way always works there.
    try { await navigator.clipboard.writeText(byId("ids").value); } catch { document.execCommand("copy"); }
    byId("copy").textContent = "copied";
    setTimeout(() => { byId("copy").textContent = "copy"; }, 1500);
  });
  byId("download").addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([`${byId("ids").value}\n`], { type: "text/plain" }));
    link.download = "selected_ids.txt";
    link.click();
    URL.revokeObjectURL(link.href);
  });
  byId("clear").addEventListener("click", () => { chosen.clear(); listChosen(); });

  // ---- pointer and keys ----

  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  canvas.addEventListener("pointerdown", (event) => {
    const tool = event.button === 1 ? "move" : document.querySelector("input[name=tool]:checked").value;
    drag = { tool, path: [place(event)] };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = place(event);
    if (!drag) { show(nearest(x, y, 12)); return; }
    const [px, py] = drag.path[drag.path.length - 1];
    drag.path.push([x, y]);
    if (drag.tool === "move") move(x - px, y - py);
    redraw();
  });
  canvas.addEventListener("pointerup", (event) => {
    if (!drag) return;
    const [[x0, y0], [x, y]] = [drag.path[0], place(event)];
    const done = drag;
    drag = null;
    if (Math.abs(x - x0) + Math.abs(y - y0) < 4 && done.path.length < 6) show(nearest(x, y, 16));
    else if (done.tool !== "move") choose(outline({ tool: done.tool, path: [...done.path, [x, y]] }), event.shiftKey);
    redraw();
  });
  canvas.addEventListener("pointercancel", () => { drag = null; redraw(); });
  canvas.addEventListener("pointerleave", () => { if (!drag) show(-1); });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, ...place(event));
  }, { passive: false });
  canvas.addEventListener("focus", redraw);
  canvas.addEventListener("blur", redraw);

  const atCross = () => nearest(canvas.clientWidth / 2, canvas.clientHeight / 2, Infinity);
  const keys = {
    ArrowLeft: () => move(40, 0), ArrowRight: () => move(-40, 0), ArrowUp: () => move(0, 40), ArrowDown: () => move(0, -40),
    "+": () => zoom(1.4), "=": () => zoom(1.4), "-": () => zoom(1 / 1.4), 0: showAll,
    Enter: () => show(atCross()),
    " ": () => { const i = hovered >= 0 ? hovered : atCross(); if (chosen.has(i)) chosen.delete(i); else if (i >= 0) chosen.add(i); listChosen(); },
    Escape: () => { chosen.clear(); show(-1); listChosen(); },
  };
  canvas.addEventListener("keydown", (event) => {
    if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    keys[event.key]();
  });
  byId("zoom-in").addEventListener("click", () => zoom(1.5));
  byId("zoom-out").addEventListener("click", () => zoom(1 / 1.5));
  byId("zoom-all").addEventListener("click", showAll);

  byId("find").addEventListener("submit", (event) => {
    event.preventDefault();
    const wanted = byId("find-id").value.trim();
    if (!wanted) return;
    let i = data.ids.indexOf(wanted);
    if (i < 0) i = data.ids.findIndex((id) => id.includes(wanted));
    byId("find-id").setCustomValidity(i < 0 ? "No record of the sample has this in its id" : "");
    byId("find-id").reportValidity();
    if (i >= 0) centre(i);
  });
  byId("find-id").addEventListener("input", () => byId("find-id").setCustomValidity(""));
  document.querySelectorAll("a[data-row]").forEach((link) => link.addEventListener("click", (event) => {
    event.preventDefault();
    byId("map").scrollIntoView();
    canvas.focus({ preventScroll: true });
    centre(Number(link.dataset.row));
  }));

  // ---- legend ----

  function legend() {
    byId("legend-title").textContent = grouping.title;
    byId("legend").replaceChildren(...grouping.names.map((name, group) => {
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-pressed", String(!grouping.hidden.has(group)));
      const text = document.createElement("span");
      text.textContent = name;
      button.append(sprite(lookOf(group), 6.5, 1), text);
      button.addEventListener("click", () => {
        if (!grouping.hidden.delete(group)) grouping.hidden.add(group);
        button.setAttribute("aria-pressed", String(!grouping.hidden.has(group)));
        filter();
        redraw();
      });
      return button;
    }));
  }

  function recolour() { makeSprites(); legend(); redraw(); }
  byId("layout").replaceChildren(...layouts.map((each, place) => new Option(each.name, String(place))));
  byId("layout").addEventListener("change", () => { layout = layouts[Number(byId("layout").value)]; show(-1); showAll(); });
  byId("colour").addEventListener("change", () => { grouping = groupings[byId("colour").value]; recolour(); });
  document.addEventListener("recolour", recolour);
  window.addEventListener("beforeprint", draw); // at once: no frame follows before the page is printed
  new ResizeObserver(resize).observe(canvas);
  legend();
}
