"use strict";
// Draws the figures in the page's own colours as they come into view, and unpacks the tables.

const byId = (id) => document.getElementById(id);
const read = (id) => JSON.parse(byId(id).textContent);
const root = document.documentElement;
const narrow = () => window.innerWidth < 560;
const figures = {};  // those that were read so far
const texts = {};  // of figures that were unpacked
let printing = false;
let started = false;  // the first figure is drawn before the rest of the page is there

function theme() {
  const style = getComputedStyle(root);
  const [ink, soft, line, paper] = ["--ink", "--soft", "--line", "--paper"].map((name) =>
    style.getPropertyValue(name).trim());
  const axis = {
    gridcolor: line, linecolor: line, zerolinecolor: line, tickcolor: line, ticks: "outside",
    ticklen: 4, title: { font: { size: 13, color: soft }, standoff: 10 }, tickfont: { color: ink },
  };
  const bar = { outlinewidth: 0, tickfont: { color: ink }, title: { font: { color: soft } } };
  return {
    layout: {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 12.5, color: ink },
      xaxis: axis, yaxis: axis, margin: { l: 12, r: 12, t: 12, b: 12 },
      hoverlabel: { bgcolor: paper, bordercolor: soft, font: { color: ink } },
      legend: { font: { color: ink }, bgcolor: "rgba(0,0,0,0)" },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: soft, activecolor: ink },
      annotationdefaults: { bgcolor: paper, borderpad: 1 },
    },
    data: { heatmap: [{ colorbar: bar }], bar: [{ marker: { line: { width: 0 } } }] },
  };
}

// only the traces of the options chosen: a figure may hold hundreds for the others
function shown(figure) {
  const here = figure.data.filter((trace) => (trace.meta || []).every((option, choice) =>
    option === null || option === figure.selected[choice]));
  return here.map((trace) => {
    if (!narrow() || trace.type !== "heatmap") return { ...trace, visible: true };
    const upright = trace.x.length > 6 && trace.x.some((name) => name.length > 18);  // narrow columns
    const x = upright ? trace.x.map((name) => name.replaceAll("<br>", " ")) : trace.x;
    return { ...trace, x, showscale: false, visible: true };
  });
}

function layoutOf(figure) {
  const layout = structuredClone(figure.layout);
  layout.template = theme();
  if (!narrow()) return layout;
  layout.font = { size: 11 };
  if (layout.xaxis6) stack(layout);
  if (layout.meta && layout.meta.rows === "y") breakNames(layout);
  const title = layout.xaxis && layout.xaxis.title;
  if (title && title.text.length > 44) title.text = title.text.replace(" (", "<br>(");
  const above = (layout.annotations || []).filter((note) => note.yref === "paper" && note.y === 1);
  if (above.length === 2) {  // of two lines, words stand on their outer sides
    above.sort((a, b) => a.x - b.x);
    above[0].xanchor = "right";
    above[1].xanchor = "left";
  }
  return layout;
}

// what plotly is given: the traces and layout of the options chosen
function picture(figure, width) {
  const layout = layoutOf(figure), data = closeRows(shown(figure), layout);
  layout.height += legendRoom(data, layout, width);
  return { data, layout };
}

// a legend of many names takes its place above the plot, not from it
function legendRoom(data, layout, width) {
  const listed = data.filter((trace) => trace.name && trace.showlegend !== false && trace.type !== "heatmap");
  const names = [...new Set(listed.map((trace) => trace.name))].map((name) => name.split("<br>"));
  if (names.length < 2 || layout.showlegend === false || !layout.legend || layout.legend.y < 1) return 0;
  const letters = Math.max(...names.flat().map((line) => line.length));
  const fit = Math.max(1, Math.floor((width - 80) / (48 + 6.6 * letters)));
  let room = 0;
  for (let first = 0; first < names.length; first += fit)
    room += 4 + 17 * Math.max(...names.slice(first, first + fit).map((lines) => lines.length));
  return Math.max(0, room - 60);
}

// rows of a forest that have no mark under the options chosen are left out
function closeRows(data, layout) {
  const letter = layout.meta && layout.meta.rows;
  const axis = letter && layout[`${letter}axis`], all = letter && axis.tickvals.length;
  const used = letter ? [...new Set(data.flatMap((trace) => trace[letter].map(Math.round)))] : [];
  if (!used.length || used.length === all) return data;
  used.sort((a, b) => a - b);
  const fewer = all - used.length;
  if (letter === "y") layout.height -= Math.round(fewer * (layout.height - 130) / all);
  axis.ticktext = used.map((row) => axis.ticktext[row]);
  axis.tickvals = used.map((row, place) => place);
  axis.range = axis.range.map((end) => (end > 0 ? end - fewer : end));
  return data.map((trace) => ({
    ...trace, [letter]: trace[letter].map((at) => at - Math.round(at) + used.indexOf(Math.round(at))),
  }));
}

// on a phone, the names of rows leave room for the marks
function breakNames(layout) {
  const names = layout.yaxis.ticktext.map((name) => name.replace(/([^<>]{14,20}) /g, "$1<br>"));
  const lines = Math.max(...names.map((name) => name.split("<br>").length));
  layout.yaxis.ticktext = names;
  layout.height = Math.max(layout.height, 130 + names.length * (14 * lines + 6));
}

// on a phone, six panels stand two and two; each has its title in the annotation of its number
function stack(layout) {
  layout.height = 760;
  for (let place = 0; place < 6; place += 1) {
    const at = place ? place + 1 : "", [row, column] = [Math.floor(place / 2), place % 2];
    const x = [column * 0.54, column * 0.54 + 0.46], top = 0.95 - row * 0.335;
    layout[`xaxis${at}`].domain = x;
    layout[`yaxis${at}`].domain = [top - 0.24, top];
    if (column) delete layout[`yaxis${at}`].title;
    if (row < 2) delete layout[`xaxis${at}`].title;
    Object.assign(layout.annotations[place], { x: (x[0] + x[1]) / 2, y: top });
  }
}

// a figure's data: at once of the first, which stands in the page as it is, and of those unpacked
function readFigure(name) {
  const place = byId(`figure-data-${name}`);
  const text = place.type === "application/json" ? place.textContent : texts[name];
  if (!figures[name] && text) figures[name] = JSON.parse(text);
  return figures[name];
}

async function unpackFigure(name) {
  const place = byId(`figure-data-${name}`);
  if (place.type === "application/gzip" && !texts[name])
    texts[name] = new TextDecoder().decode(await unpacked(place.id));
}

function draw(name) {
  const canvas = byId(`canvas-${name}`), figure = readFigure(name);
  if (!figure) { unpackFigure(name).then(() => draw(name)); return; }
  const config = {
    responsive: true, displaylogo: false, displayModeBar: "hover", scrollZoom: false,
    modeBarButtons: [["toImage", "resetScale2d"]],
    toImageButtonOptions: { format: "svg", filename: name },
  };
  const { data, layout } = picture(figure, canvas.clientWidth);
  canvas.style.height = `${layout.height}px`;
  try {
    Plotly.react(canvas, data, layout, config);
  } catch (error) {  // the others must still be drawn
    canvas.textContent = "This figure could not be drawn; its table is below.";
    console.error(`${name}: ${error}`);
  }
  if (!("drawn" in canvas.dataset) && canvas.on) {
    canvas.on("plotly_hover", showStrip);
    canvas.on("plotly_unhover", hideStrip);
  }
  canvas.dataset.drawn = "";
  if (!root.dataset.first) root.dataset.first = Math.round(performance.now());
  const canvases = document.querySelectorAll("[data-canvas]");
  if (started && [...canvases].every((each) => "drawn" in each.dataset)) root.dataset.drawn = canvases.length;
}

// what a node of a circuit responds to, beside it while it is pointed at
let strips = null;
function stripOf(node) {
  if (!strips) {
    strips = [...document.querySelectorAll("script.nodes")].map((one) => JSON.parse(one.textContent));
    for (const strip of strips) strip.address = pictureAddress(strip);
  }
  const strip = strips.find((one) => typeof node === "string" && node.startsWith(`${one.model}|`));
  const place = strip ? strip.nodes.indexOf(node.slice(strip.model.length + 1)) : -1;
  return place < 0 ? null : { ...strip, place };
}

function showStrip(event) {
  const point = event.points && event.points[0], found = point && stripOf(point.customdata);
  if (!found) return;
  const box = byId("node-strip"), picture = box.querySelector("img");
  picture.src = found.address;
  picture.alt = `What activates ${point.hovertext} most`;
  Object.assign(picture, { width: found.width, height: found.size });
  picture.style.objectPosition = `0 ${-found.place * (found.size + found.gap)}px`;
  box.querySelector("span").textContent = `most active in ${found.domains.join(", then in ")}`;
  placed(box, event.event.pageX, event.event.pageY + 24);
}

function hideStrip() { byId("node-strip").hidden = true; }

function drawEverything() {
  for (const canvas of document.querySelectorAll("[data-canvas]:not([data-drawn])"))
    draw(canvas.dataset.canvas);
}

function drawAgain() {
  for (const canvas of document.querySelectorAll("[data-canvas][data-drawn]"))
    draw(canvas.dataset.canvas);
  if (typeof redrawMap === "function") redrawMap();
}

async function unpacked(id) {
  const packed = Uint8Array.from(atob(byId(id).textContent), (sign) => sign.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

async function download(name) {
  save(new Blob([await unpacked(`table-${name}`)], { type: "text/csv" }), `${name}.csv`);
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// RFC 4180: quoted fields may hold commas, line breaks and doubled quotes
function parse(text, most) {
  const rows = [[""]];
  let quoted = false;
  for (let at = 0; at < text.length && rows.length <= most; at += 1) {
    const sign = text[at], row = rows[rows.length - 1];
    if (quoted && sign === '"' && text[at + 1] === '"') { row[row.length - 1] += '"'; at += 1; }
    else if (sign === '"') quoted = !quoted;
    else if (quoted) row[row.length - 1] += sign;
    else if (sign === ",") row.push("");
    else if (sign === "\n") rows.push([""]);
    else if (sign !== "\r") row[row.length - 1] += sign;
  }
  return rows.filter((row) => row.length > 1 || row[0] !== "");
}

function rounded(text) {
  const fraction = /^-?\d*\.\d{4,}(e[-+]?\d+)?$/i.test(text);
  return fraction ? String(Number(Number(text).toPrecision(4))) : text;
}

async function showRows(details) {
  const box = details.querySelector(".rows");
  if (box.firstChild) return;
  const text = new TextDecoder().decode(await unpacked(`table-${details.dataset.table}`));
  const [head, ...rows] = parse(text, 201).slice(0, 201);
  const columns = read("columns");
  const table = document.createElement("table");
  const top = table.createTHead().insertRow();
  for (const name of head || []) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = name;
    cell.title = columns[name] || "";
    top.append(cell);
  }
  const body = table.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    for (const value of row) {
      const cell = line.insertCell();
      cell.textContent = rounded(value);
      cell.dir = "auto";
      if (value !== cell.textContent || value.length > 30) cell.title = value;
    }
  }
  box.replaceChildren(table);
}

function pictureAddress({ data, type }) {
  const bytes = Uint8Array.from(atob(data), (sign) => sign.charCodeAt(0));
  return URL.createObjectURL(new Blob([bytes], { type }));
}

// a picture of every class in every domain, cut from one sheet for each domain
function showCells() {
  const table = document.querySelector("#cells table");
  if (!table || table.firstChild) return;
  const sheets = [...document.querySelectorAll("script.sheet")].map((one) =>
    JSON.parse(one.textContent));
  for (const sheet of sheets) sheet.address = pictureAddress(sheet);
  const labels = [...new Set(sheets.flatMap((sheet) => sheet.labels))].filter(Boolean);
  const top = table.createTHead().insertRow();
  for (const name of ["Class", ...sheets.map((sheet) => sheet.domain)]) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.dir = "auto";
    cell.textContent = name;
    top.append(cell);
  }
  const body = table.createTBody();
  for (const label of labels) {
    const row = body.insertRow();
    const head = document.createElement("th");
    head.scope = "row";
    head.dir = "auto";
    head.textContent = label;
    row.append(head);
    for (const sheet of sheets) {
      const place = sheet.labels.indexOf(label), cell = row.insertCell();
      if (place < 0) { cell.textContent = "–"; continue; }
      const tile = document.createElement("img");
      tile.className = "tile";
      tile.alt = `${label} in ${sheet.domain}`;
      tile.width = tile.height = sheet.size;
      const [down, across] = [Math.floor(place / sheet.columns), place % sheet.columns];
      tile.style.objectPosition = `${-across * sheet.size}px ${-down * sheet.size}px`;
      tile.src = sheet.address;
      cell.append(tile);
    }
  }
}

function isDark() {
  const chosen = root.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function saved(choice) {
  try {
    if (choice) localStorage.setItem("interp-theme", choice);
    return localStorage.getItem("interp-theme");
  } catch { return null; }  // a page opened as a file may have no storage
}

if (saved()) root.dataset.theme = saved();

function sayTheme() {
  const button = byId("theme");
  button.hidden = false;
  button.setAttribute("aria-pressed", String(isDark()));
}

function setPrinting(on) {
  if (printing === on) return;
  printing = on;
  root.classList.toggle("printing", on);
  // a reader who opened some doors prints these; of a page with all shut, everything is printed
  const some = [...document.querySelectorAll(".door > details")].some((one) => one.open);
  for (const details of document.querySelectorAll("main details:not([data-table])")) {
    if (some && !details.closest(".door > details[open]")) continue;
    if (on && !details.open) { details.open = true; details.dataset.shut = ""; }
    else if (!on && "shut" in details.dataset) { details.open = false; delete details.dataset.shut; }
  }
  if (on) { showCells(); drawEverything(); }
  drawAgain();
}

// paper does not wait: all that may be printed is unpacked beforehand
async function unpackEverything(canvases) {
  for (const canvas of canvases) await unpackFigure(canvas.dataset.canvas);
  root.dataset.unpacked = canvases.length;
}

// what is not on the first screen waits until the first figure has been seen
function start() {
  sayTheme();
  started = true;
  for (const details of document.querySelectorAll("details[data-table]"))
    details.addEventListener("toggle", () => { if (details.open) showRows(details); });
  if (byId("cells")) byId("cells").addEventListener("toggle", showCells);
  byId("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    saved(root.dataset.theme);
    sayTheme();
    drawAgain();
  });
  if (innerWidth < 1100) document.querySelector("nav details").open = false;
  const canvases = [...document.querySelectorAll("[data-canvas]")];
  if (canvases.every((each) => "drawn" in each.dataset)) root.dataset.drawn = canvases.length;
  const near = new IntersectionObserver((seen) => {
    for (const { isIntersecting, target } of seen) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      if (!("drawn" in target.dataset)) draw(target.dataset.canvas);
    }
  }, { rootMargin: "800px 0px" });
  requestAnimationFrame(() => setTimeout(() => {
    for (const canvas of canvases) near.observe(canvas);
    Promise.resolve(byId("atlas") ? openMap() : null).finally(startDoors);  // a link's place is known last
    unpackEverything(canvases);
  }));
  const links = new Map([...document.querySelectorAll("nav a")].map((a) => [a.hash.slice(1), a]));
  const reading = new IntersectionObserver((seen) => {
    for (const { isIntersecting, target } of seen) {
      if (!isIntersecting || !links.has(target.id)) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(target.id).setAttribute("aria-current", "true");
      document.querySelector("nav summary").dataset.here = links.get(target.id).textContent;
    }
  }, { rootMargin: "-15% 0px -75% 0px" });
  for (const section of document.querySelectorAll("main section")) reading.observe(section);
}

// a select says that it changed, a slider that it moves
for (const moved of ["change", "input"]) document.addEventListener(moved, (event) => {
  const { figure, choice, options } = event.target.dataset;
  if (!figure || (moved === "input") !== (event.target.type === "range")) return;
  if (options) event.target.nextElementSibling.textContent = JSON.parse(options)[event.target.value];
  const chosen = Number(event.target.value);
  unpackFigure(figure).then(() => {
    readFigure(figure).selected[Number(choice)] = chosen;
    draw(figure);
  });
});
document.addEventListener("click", (event) => {
  const name = event.target.dataset && event.target.dataset.download;
  if (name) download(name);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  sayTheme();
  drawAgain();
});
matchMedia("(max-width: 559px)").addEventListener("change", drawAgain);
matchMedia("print").addEventListener("change", (event) => setPrinting(event.matches));
addEventListener("beforeprint", () => setPrinting(true));
addEventListener("afterprint", () => setPrinting(false));
