"use strict";
// Draws the figures in the page's own colours, shows the choices, unpacks the tables.

const read = (id) => JSON.parse(document.getElementById(id).textContent);
const figures = Object.fromEntries(read("figures").map((figure) => [figure.name, figure]));
const columns = read("columns");
const narrow = () => window.innerWidth < 560;

function theme() {
  const style = getComputedStyle(document.documentElement);
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
      annotationdefaults: { bgcolor: paper, borderpad: 1 },
    },
    data: { heatmap: [{ colorbar: bar }], bar: [{ marker: { line: { width: 0 } } }] },
  };
}

function shown(figure) {
  return figure.data.map((trace) => {
    const here = (trace.meta || []).every((option, choice) =>
      option === null || option === figure.selected[choice]);
    const small = narrow() && trace.type === "heatmap" ? { showscale: false } : {};
    return { ...trace, ...small, visible: here };
  });
}

function layoutOf(figure) {
  const layout = structuredClone(figure.layout);
  layout.template = theme();
  if (narrow()) layout.font = { size: 11 };
  return layout;
}

async function draw(figure) {
  const canvas = document.getElementById(`canvas-${figure.name}`);
  const config = {
    responsive: true, displaylogo: false, displayModeBar: "hover", scrollZoom: false,
    modeBarButtons: [["toImage", "resetScale2d"]],
    toImageButtonOptions: { format: "svg", filename: figure.name },
  };
  await Plotly.react(canvas, shown(figure), layoutOf(figure), config);
}

async function drawAll() {
  for (const figure of Object.values(figures)) {
    await draw(figure);
    await new Promise((resume) => setTimeout(resume));  // the first figure is seen before the last
  }
  document.documentElement.dataset.drawn = Object.keys(figures).length;
}

async function csv(name) {
  const packed = Uint8Array.from(
    atob(document.getElementById(`table-${name}`).textContent), (sign) => sign.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

async function download(name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([await csv(name)], { type: "text/csv" }));
  link.download = `${name}.csv`;
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
  const text = new TextDecoder().decode(await csv(details.dataset.table));
  const [head, ...rows] = parse(text, 201).slice(0, 201);
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

document.addEventListener("change", (event) => {
  const { figure, choice } = event.target.dataset;
  if (!figure) return;
  figures[figure].selected[Number(choice)] = Number(event.target.value);
  draw(figures[figure]);
});
document.addEventListener("click", (event) => {
  const name = event.target.dataset && event.target.dataset.download;
  if (name) download(name);
});
for (const details of document.querySelectorAll("details[data-table]"))
  details.addEventListener("toggle", () => { if (details.open) showRows(details); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
matchMedia("(max-width: 559px)").addEventListener("change", drawAll);
matchMedia("print").addEventListener("change", drawAll);
drawAll();
