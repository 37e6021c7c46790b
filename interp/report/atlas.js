// The map of domain by domain by layer, and what was measured on the pair that is chosen in it.

const SIGNS = { "shared": "●", "partly shared": "◐", "not shared": "○", "unknown": "?" };
const LOOKS = { "shared": "shared", "partly shared": "partly", "not shared": "apart", "unknown": "open" };
const SVG = "http://www.w3.org/2000/svg";
let map = null;
let here = null;  // what is shown: measure, model, place, and the pair [a, b]

function element(name, text, more = {}) {
  const made = document.createElement(name);
  if (text !== undefined && text !== null) made.textContent = text;
  for (const [key, value] of Object.entries(more)) made.setAttribute(key, value);
  return made;
}

function drawn(name, more, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(more)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

const show = (value, digits = 2) =>
  value === null || value === undefined ? "–" : value.toFixed(digits).replace("-", "−");
const interval = (row) => row.from === null ? "" : ` (${show(row.from)} to ${show(row.to)})`;

// rows from columns; a column that is not there holds nothing
function rowsOf(columns) {
  const numbers = ["value", "low", "high", "null", "ceiling", "index", "from", "to", "p"];
  return columns.a.map((_, at) => {
    const row = { m: columns.m[at], a: columns.a[at], b: columns.b[at], s: columns.s[at] };
    for (const name of numbers) {
      const found = columns[name] ? columns[name][at] : null;
      row[name] = found === null ? null : found / map.scale;
    }
    row.n = columns.n[at];
    row.verdict = map.verdicts[columns.verdict[at]];
    row.reason = map.texts[columns.reason[at]];
    return row;
  });
}

const key = (m, a, b, s) => `${m} ${a} ${b} ${s}`;

async function openMap() {
  map = JSON.parse(new TextDecoder().decode(await unpacked("atlas")));
  for (const measure of map.measures) {
    measure.rows = rowsOf(measure.columns);
    measure.found = new Map(measure.rows.map((row) => [key(row.m, row.a, row.b, row.s), row]));
  }
  for (const rung of Object.keys(map.bands)) {
    const rows = rowsOf(map.bands[rung]);
    map.bands[rung] = new Map(rows.map((row) => [key(row.m, row.a, row.b, row.s), row]));
  }
  const trained = map.models.flatMap((model, place) => model.control ? [] : [place]);
  const measure = Math.max(0, map.measures.findIndex((one) => one.key === "R2"));
  here = { measure, model: trained[0] ?? 0, place: null, pair: firstPair(), own: false };
  fill("map-measure", map.measures.map((one, place) => [place, one.name]), here.measure);
  fillModels();
  fillPlaces();
  byId("map-measure").addEventListener("change", (event) => {
    here.measure = Number(event.target.value);
    fillModels();
    fillPlaces();
    drawMap();
  });
  byId("map-model").addEventListener("change", (event) => {
    here.model = Number(event.target.value);
    fillPlaces();
    drawMap();
  });
  byId("map-place").addEventListener("change", (event) => {
    choosePlace(event.target.value);
    drawMap();
  });
  byId("map-grid").addEventListener("keydown", move);
  drawMap();
  root.dataset.map = "";
}

// the pair that the study is about
function firstPair() {
  for (const [a, b] of map.pairs) {
    const ends = [map.domains.indexOf(a), map.domains.indexOf(b)];
    if (ends[0] >= 0 && ends[1] >= 0 && ends[0] !== ends[1]) return ends;
  }
  const row = map.measures[0].rows[0];
  return [row.a, row.b];
}

function fill(id, options, chosen) {
  const select = byId(id);
  select.replaceChildren(...options.map(([value, text]) => {
    const option = element("option", text, { value });
    option.selected = String(value) === String(chosen);
    return option;
  }));
  select.closest("label").hidden = options.length < 2 && id !== "map-place";
}

function fillModels() {
  const rows = map.measures[here.measure].rows;
  const present = new Set(rows.map((row) => row.m));
  const models = map.models.map((model, place) => [place, model.name]).filter(([place]) =>
    present.has(place) && map.models[place].control !== "pixels");
  if (!models.some(([place]) => place === here.model) && models.length) here.model = models[0][0];
  fill("map-model", models, here.model);
}

// verdicts of the ladder are written with an L: they sum up sites and both directions
function fillPlaces() {
  const measure = map.measures[here.measure], model = here.model;
  const own = [...new Set(measure.rows.filter((row) => row.m === model).map((row) => row.s))];
  const banded = measure.first && map.bands[measure.rung] ? map.bands[measure.rung] : new Map();
  const bands = [...new Set([...banded.values()].filter((r) => r.m === model).map((r) => r.s))];
  const options = [
    ...bands.sort((x, y) => x - y).map((s) => [`L${s}`, `${map.places[s].name} (verdict of the ladder)`]),
    ...own.sort((x, y) => x - y).map((s) => {
      const { name, depth, last } = map.places[s];
      const where = depth === null ? "" : ` (depth ${show(depth)}${last ? ", final embedding" : ""})`;
      return [String(s), name + where];
    }),
  ];
  const asked = here.place === null ? null : `${here.own ? "" : "L"}${here.place}`;
  const inner = map.places.findIndex((place) => place.inner);
  const middle = [`L${inner}`, asked].find((v) => v && options.some(([value]) => value === v));
  const depths = own.map((s) => [Math.abs((map.places[s].depth ?? 2) - 0.5), s]).sort((x, y) => x[0] - y[0]);
  const kept = options.some(([value]) => value === asked) ? asked : null;
  choosePlace(kept ?? middle ?? (depths.length ? String(depths[0][1]) : "0"));
  fill("map-place", options, `${here.own ? "" : "L"}${here.place}`);
}

function choosePlace(value) {
  here.own = !value.startsWith("L");
  here.place = Number(value.replace("L", ""));
}

// a cell's row: in both directions the same where the measure knows none
function rowAt(measure, model, a, b, place, own) {
  const table = own ? measure.found : map.bands[measure.rung];
  if (!table) return undefined;
  const there = table.get(key(model, a, b, place));
  return there || (own && measure.directed ? undefined : table.get(key(model, b, a, place)));
}

function drawMap(focus = false) {
  const measure = map.measures[here.measure], table = byId("map-grid");
  const head = element("tr", null, { role: "row" });
  head.append(element("td", null, { role: "presentation" }));
  for (const name of map.domains) {
    const cell = element("th", null, { role: "columnheader", scope: "col" });
    cell.append(element("span", name, { dir: "auto" }));
    head.append(cell);
  }
  const lines = map.domains.map((name, a) => {
    const line = element("tr", null, { role: "row" });
    line.append(element("th", name, { role: "rowheader", scope: "row", dir: "auto" }));
    map.domains.forEach((_, b) => line.append(cellOf(measure, a, b)));
    return line;
  });
  const top = element("thead", null, { role: "rowgroup" }), body = element("tbody", null, { role: "rowgroup" });
  top.append(head);
  body.append(...lines);
  table.replaceChildren(top, body);
  const how = here.own && measure.directed ? "One direction at a time." : "Both directions together.";
  const kinds = here.own ? [measure.null_kind && `Null: ${measure.null_kind}.`,
    measure.ceiling_kind && `Ceiling: ${measure.ceiling_kind}.`] : [
    "A band has the answer on which all its sites and both directions agree, or that of their mean."];
  const first = measure.rung === "R1" ? "R1 asks whether the class can be read, not how well: " +
    "it is so where the accuracy's interval lies above its null, in the domain where that is harder." : "";
  byId("map-note").textContent =
    [first, `${measure.n}; in brackets 95 % intervals of the index.`, how, ...kinds].filter(Boolean).join(" ");
  if (focus) cellButton(...here.pair)?.focus();
  detail();
}

const cellButton = (a, b) => document.querySelector(`#map-grid button[data-pair="${a} ${b}"]`);

function cellOf(measure, a, b) {
  const cell = element("td", null, { role: "gridcell" });
  if (a === b) { cell.className = "self"; return cell; }
  const row = rowAt(measure, here.model, a, b, here.place, here.own);
  const button = element("button", null, { type: "button", "data-pair": `${a} ${b}` });
  const chosen = a === here.pair[0] && b === here.pair[1];
  button.tabIndex = chosen ? 0 : -1;
  cell.setAttribute("aria-selected", String(chosen));
  button.className = row ? LOOKS[row.verdict] || "open" : "none";
  const sign = row ? SIGNS[row.verdict] || "?" : "–";
  button.append(element("span", sign, { class: "sign" }));
  if (row && row.index !== null) button.append(element("span", show(row.index)));
  const said = row ? `${row.index === null ? "no index" : `index ${show(row.index)}${interval(row)}`}, ` +
    `${row.verdict || "unknown"}` : "not measured";
  button.setAttribute("aria-label", `${map.domains[a]} to ${map.domains[b]}: ${said}`);
  button.title = `${map.domains[a]} → ${map.domains[b]}: ${said}`;
  button.addEventListener("click", () => choose(a, b));
  cell.append(button);
  return cell;
}

function choose(a, b) {
  for (const cell of document.querySelectorAll("#map-grid td[aria-selected=true]")) {
    cell.setAttribute("aria-selected", "false");
    cell.firstChild.tabIndex = -1;
  }
  here.pair = [a, b];
  const button = cellButton(a, b);
  button.tabIndex = 0;
  button.parentElement.setAttribute("aria-selected", "true");
  detail();
}

function move(event) {
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  const focused = document.activeElement?.dataset?.pair;
  if (focused === undefined) return;
  const n = map.domains.length;
  let [a, b] = focused.split(" ").map(Number);
  const step = steps[event.key];
  if (step) {
    do { a += step[0]; b += step[1]; } while (a === b);  // nothing stands on the diagonal
  } else if (event.key === "Home") { b = a === 0 ? 1 : 0; }
  else if (event.key === "End") { b = a === n - 1 ? n - 2 : n - 1; }
  else return;
  event.preventDefault();
  const next = cellButton(a, b);
  if (!next) return;
  for (const button of document.querySelectorAll("#map-grid button")) button.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

function redrawMap() {
  if (map) detail();
}

function detail() {
  const [a, b] = here.pair, model = map.models[here.model];
  const box = byId("map-detail");
  const title = element("h3", `${map.domains[a]} → ${map.domains[b]}, ${model.name}`, { dir: "auto" });
  const panels = element("div", null, { class: "panels" });
  const rows = [];
  for (const measure of map.measures) {
    const own = measure.rows.filter((row) => row.m === here.model && between(measure, row, a, b));
    const banded = bandsOf(measure, a, b);
    if (!own.length && !banded.length) continue;
    panels.append(panel(measure, own, a, b));
    rows.push(...banded.map((row) => [measure, row, "both"]), ...own.map((row) => [measure, row, ""]));
  }
  const more = element("details", null, { id: "map-more" });
  more.open = printing || Boolean(byId("map-more")?.open);
  more.append(element("summary", "Every measure of this pair, by depth and in numbers"), panels, ...unmeasured(a, b));
  if (rows.length) more.append(numbersOf(rows, a, b));
  box.replaceChildren(title, ...pictures(a, b), element("p", summary(a, b), { dir: "auto" }), more);
}

function between(measure, row, a, b) {
  return (row.a === a && row.b === b) || (!measure.directed && row.a === b && row.b === a);
}

function bandsOf(measure, a, b) {
  if (!measure.first || !map.bands[measure.rung] || isLaterCut(measure)) return [];
  return map.places.flatMap((_, s) => {
    const row = rowAt(measure, here.model, a, b, s, false);
    return row ? [row] : [];
  });
}

const isLaterCut = (measure) => map.measures.find((one) => one.rung === measure.rung) !== measure;

// the chosen cell in a sentence
function summary(a, b) {
  const measure = map.measures[here.measure];
  const row = rowAt(measure, here.model, a, b, here.place, here.own);
  const where = map.places[here.place].name;
  if (!row) return `${measure.name}, ${where}: not measured for this pair.`;
  const index = row.index === null ? "no index" : `index ${show(row.index)}${interval(row)}`;
  const n = row.n === null ? "" : `, n = ${row.n} classes`;
  const why = row.reason ? ` ${row.reason}${row.reason.endsWith(".") ? "" : "."}` : "";
  return `${measure.name}, ${where}: ${SIGNS[row.verdict] || "?"} ${row.verdict || "unknown"}, ${index}${n}.${why}`;
}

function pictures(a, b) {
  const made = [a, b].flatMap((place) => {
    const from = byId(`plate-${map.plates[map.domains[place]]}`);
    if (!from) return [];
    const image = element("img", null, { alt: from.alt, src: from.src });
    return [image];
  });
  if (!made.length) return [];
  const box = element("div", null, { class: "strips" });
  box.append(...made);
  return [box];
}

// a measure's index by depth: sites or thirds with intervals, the untrained model dashed
function panel(measure, rows, a, b) {
  const figure = element("figure", null, { class: "panel" });
  figure.append(element("figcaption", measure.name));
  const [width, height, left, top, low, high] = [240, 132, 30, 6, -0.5, 1.5];
  const across = (depth) => left + depth * (width - left - 8);
  const down = (index) => top + (high - Math.min(high, Math.max(low, index))) / (high - low) * (height - top - 18);
  const points = rows.map((row) => ({ ...row, depth: map.places[row.s].depth }))
    .filter((row) => row.depth !== null && map.models[row.m].control !== "pixels")
    .sort((x, y) => x.depth - y.depth);
  const known = points.filter((row) => row.index !== null);
  const said = known.map((row) => `${map.places[row.s].name} ${show(row.index)}${interval(row)} ${row.verdict}`);
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `${measure.name} by depth: ${said.join("; ") || "no index"}` });
  svg.append(drawn("rect", { x: across(1 / 3), y: top, width: across(2 / 3) - across(1 / 3), height: height - top - 18, class: "middle" }));
  for (const at of [0, 0.5, 1]) {
    svg.append(drawn("line", { x1: left, x2: width - 8, y1: down(at), y2: down(at), class: "axis" }));
    svg.append(drawn("text", { x: left - 4, y: down(at) + 3, "text-anchor": "end" }, String(at)));
  }
  for (const bar of measure.bars)
    svg.append(drawn("line", { x1: left, x2: width - 8, y1: down(bar), y2: down(bar), class: "limit" }));
  svg.append(drawn("text", { x: left, y: height - 5 }, "picture"));
  svg.append(drawn("text", { x: width - 8, y: height - 5, "text-anchor": "end" }, "embedding"));
  const line = (some, look) => {
    if (some.length > 1) svg.append(drawn("polyline", { class: look,
      points: some.map((row) => `${across(row.depth)},${down(row.index)}`).join(" ") }));
  };
  line(floorOf(measure, a, b), "floor");
  line(known, "line");
  for (const row of known) {
    const x = across(row.depth), y = down(row.index), look = LOOKS[row.verdict] || "open";
    if (row.from !== null) svg.append(drawn("line", { x1: x, x2: x, y1: down(row.from), y2: down(row.to), class: "bar" }));
    const mark = look === "open" ? drawn("rect", { x: x - 3.5, y: y - 3.5, width: 7, height: 7, class: `mark ${look}` })
      : drawn("circle", { cx: x, cy: y, r: 4, class: `mark ${look}` });
    mark.append(drawn("title", {}, `${map.places[row.s].name}: ${show(row.index)}${interval(row)}, ${row.verdict}`));
    svg.append(mark);
  }
  if (!known.length) svg.append(drawn("text", { x: width / 2, y: height / 2, "text-anchor": "middle" },
    rows.length ? "no index: see the reasons" : "not measured this way"));
  figure.append(svg);
  return figure;
}

function floorOf(measure, a, b) {
  const { test, seed } = map.models[here.model];
  const floor = map.models.findIndex((model) => model.control === "epoch 0" && model.test === test && model.seed === seed);
  return measure.rows.filter((row) => row.m === floor && row.index !== null && between(measure, row, a, b))
    .map((row) => ({ ...row, depth: map.places[row.s].depth })).filter((row) => row.depth !== null)
    .sort((x, y) => x.depth - y.depth);
}

// which rungs nobody measured on this pair, and what would
function unmeasured(a, b) {
  const rungs = ["R1", "R2", "R3", "R4", "R5", "R6"];
  const here_ = rungs.filter((rung) => map.measures.some((measure) => measure.rung === rung &&
    measure.rows.some((row) => row.m === here.model && (between(measure, row, a, b) || between(measure, row, b, a)))));
  const missing = rungs.filter((rung) => !here_.includes(rung));
  if (!missing.length) return [];
  const names = [map.domains[a], map.domains[b]];
  const had = here_.length ? `only ${listed(here_)} were measured` : "nothing was measured";
  const note = element("p", `On this pair and model ${had}; ${listed(missing)} not. `, { class: "note", dir: "auto" });
  if (map.models[here.model].control) {
    note.append("An untrained model is measured up to R3 only.");
    return [note];
  }
  const asked = map.pairs.some(([x, y]) => names.includes(x) && names.includes(y));
  if (asked && !map.one_model) {
    note.append("The study leaves them out where it was told to: set ", element("code", "circuits = true"),
      " under ", element("code", "[analysis]"), " and run it again; where they failed, the tables name the reason.");
    return [note];
  }
  const command = `interp-report run --checkpoint CHECKPOINT --images FOLDER --domains ${quoted(names.join(","))}`;
  note.append("A run climbs above R3 only between the two domains it asks about. For this pair: ", element("code", command));
  if (!map.one_model) note.append("; or name the domain under ", element("code", "[mixtures]"), " in ", element("code", "test_domains"));
  note.append(".");
  return [note];
}

const listed = (words) => words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words[words.length - 1]}`;
const quoted = (text) => /^[\w,.-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;

function numbersOf(rows, a, b) {
  const box = element("div", null, { class: "scroll rows", tabindex: "0", role: "region", "aria-label": "Numbers of this pair" });
  const table = element("table"), top = table.createTHead().insertRow();
  table.append(element("caption", "Its numbers"));
  for (const name of ["Measure", "Layer", "Verdict", "Index (95 % interval)", "Value", "Null", "Ceiling", "n", "Why"])
    top.append(element("th", name, { scope: "col" }));
  const body = table.createTBody();
  for (const [measure, row, both] of rows) {
    const line = body.insertRow();
    const place = map.places[row.s].name + (both ? ", both ways" : "");
    line.append(element("th", measure.name, { scope: "row" }));
    for (const text of [place, `${SIGNS[row.verdict] || "?"} ${row.verdict || "unknown"}`,
      row.index === null ? "–" : show(row.index) + interval(row), show(row.value, 3), show(row.null, 3),
      show(row.ceiling, 3), row.n === null ? "–" : String(row.n), row.reason || "–"])
      line.append(element("td", text, { dir: "auto" }));
  }
  box.append(table);
  return box;
}
