"use strict";
// Figures that a reader pins, as they are chosen at that moment, on a board that is saved as a picture or a page.

const pinned = [];
const WIDE = 900, EDGE = 20;  // of a saved picture, in pixels

// in the light colours, whatever the page's own are: what is saved is read on paper
async function pictured(name) {
  const canvas = byId(`canvas-${name}`);
  await unpackFigure(name);
  const figure = readFigure(name);
  const was = printing || root.classList.contains("printing");
  root.classList.add("printing");
  const width = Math.max(canvas.offsetWidth, 560);
  const { data, layout } = picture(figure, width);
  layout.paper_bgcolor = "#ffffff";
  root.classList.toggle("printing", was);
  const size = { width, height: layout.height };
  return { ...size, source: await Plotly.toImage({ data, layout }, { format: "svg", ...size }) };
}

async function pin(name) {
  const figure = byId(`figure-${name}`);
  const chosen = [...figure.querySelectorAll("[data-choice]")].map((one) => `${one.previousElementSibling.textContent}: `
    + (one.selectedOptions ? one.selectedOptions[0] : one.nextElementSibling).textContent);
  const title = figure.querySelector("h3").textContent.trim(), choices = chosen.join(" · ");
  const caption = figure.querySelector("figcaption").textContent.trim();
  const one = { name, title, choices, caption, ...await pictured(name) };
  const same = pinned.findIndex((other) => other.name === name && other.choices === choices);
  if (same < 0) pinned.push(one); else pinned[same] = one;
  showBoard();
}

// a pinned figure as it stands on the board and in what is saved
function asFigure(one) {
  const figure = element("figure", null);
  const { source, width, height, title, choices, caption } = one;
  figure.append(element("h3", title));
  if (choices) figure.append(element("p", choices));
  figure.append(element("img", null, { src: source, alt: title, width, height }), element("figcaption", caption));
  return figure;
}

function showBoard() {
  const board = byId("board"), link = byId("to-board");
  board.hidden = link.hidden = !pinned.length;
  link.textContent = `Board (${pinned.length})`;
  byId("pinned").replaceChildren(...pinned.map((one) => {
    const label = `Remove ${one.title} from the board`;
    const figure = asFigure(one), remove = element("button", "Remove", { type: "button", "aria-label": label });
    figure.append(remove);
    remove.addEventListener("click", () => { pinned.splice(pinned.indexOf(one), 1); showBoard(); });
    return figure;
  }));
  for (const button of document.querySelectorAll("[data-pin]"))
    button.setAttribute("aria-pressed", String(pinned.some((one) => one.name === button.dataset.pin)));
}

function boardPage() {
  const page = document.implementation.createHTMLDocument(document.title);
  page.documentElement.lang = "en";
  page.head.append(element("meta", null, { charset: "utf-8" }), element("style",
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    + "img{max-width:100%;height:auto}figure{margin:0 0 3rem}figcaption,p{color:#57606a;max-width:46rem}"));
  page.body.append(element("h1", document.title), element("p", document.querySelector("h1").textContent));
  page.body.append(...pinned.map(asFigure));
  return `<!doctype html>\n${page.documentElement.outerHTML}\n`;
}

function lines(brush, text, width) {
  const found = [""];
  for (const word of text.split(/\s+/).filter(Boolean)) {
    const longer = found[found.length - 1] ? `${found[found.length - 1]} ${word}` : word;
    if (brush.measureText(longer).width <= width) found[found.length - 1] = longer;
    else found.push(word);
  }
  return found;
}

async function boardPicture() {
  const canvas = element("canvas", null), brush = canvas.getContext("2d"), inner = WIDE - 2 * EDGE;
  const family = getComputedStyle(document.body).fontFamily;
  const styles = { title: [`600 19px ${family}`, 26, "#1b1f23"], choices: [`14px ${family}`, 22, "#57606a"],
    caption: [`13px ${family}`, 19, "#57606a"] };
  const rows = [];  // what stands where, from the top
  let top = EDGE;
  const write = (one, style) => {
    [brush.font] = styles[style];
    for (const text of one[style] ? lines(brush, one[style], inner) : []) {
      rows.push({ text, style, y: top });
      top += styles[style][1];
    }
  };
  for (const one of pinned) {
    write(one, "title");
    write(one, "choices");
    const image = element("img", null), height = one.height * inner / one.width;
    image.src = one.source;
    await image.decode();
    rows.push({ image, y: top, height });
    top += height + 8;
    write(one, "caption");
    top += 2 * EDGE;
  }
  const sharp = 2;
  Object.assign(canvas, { width: WIDE * sharp, height: Math.ceil(top) * sharp });
  brush.scale(sharp, sharp);
  brush.fillStyle = "#ffffff";
  brush.fillRect(0, 0, WIDE, top);
  brush.textBaseline = "top";
  for (const { text, style, image, y, height } of rows) {
    if (image) { brush.drawImage(image, EDGE, y, inner, height); continue; }
    [brush.font, , brush.fillStyle] = styles[style];
    brush.fillText(text, EDGE, y);
  }
  return new Promise((done) => { canvas.toBlob(done, "image/png"); });
}

function startBoard() {
  for (const button of document.querySelectorAll("[data-pin]")) {
    button.hidden = false;
    button.addEventListener("click", () => pin(button.dataset.pin));
  }
  byId("save-page").addEventListener("click", () => save(new Blob([boardPage()], { type: "text/html" }), "board.html"));
  byId("save-picture").addEventListener("click", async () => save(await boardPicture(), "board.png"));
}
