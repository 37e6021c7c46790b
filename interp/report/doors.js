"use strict";
// Sections open like doors. The address says which are open and what is chosen, so a link restores both.

const doors = () => [...document.querySelectorAll(".door > details")];

// everything above a place is opened, so that it can be seen
function reveal(id) {
  const target = byId(id);
  if (!target) return;
  const inner = target.querySelector(":scope > details");
  if (inner) inner.open = true;
  for (let box = target.parentElement; box; box = box.parentElement)
    if (box.tagName === "DETAILS") box.open = true;
  target.scrollIntoView();
}

// "#features&open=ladder,features&pick=accuracy:0:2": a place, the open doors, choices that were changed
function decoded(part) {
  try { return decodeURIComponent(part); } catch { return ""; }  // an address that was cut off
}

function readAddress() {
  const parts = location.hash.slice(1).split("&").map(decoded);
  const place = parts.find((part) => part && !part.includes("="));
  const state = new URLSearchParams(parts.filter((part) => part.includes("=")).join("&"));
  for (const id of (state.get("open") || "").split(",")) {
    const door = id && document.querySelector(`#${CSS.escape(id)}.door > details`);
    if (door) door.open = true;
  }
  for (const pick of (state.get("pick") || "").split(",").filter(Boolean)) {
    const [figure, choice, option] = pick.split(":");
    const chosen = document.querySelector(
      `[data-figure="${CSS.escape(figure)}"][data-choice="${CSS.escape(choice)}"]`);
    if (!chosen || (chosen.options && !chosen.options[option])) continue;
    chosen.value = option;
    chosen.dispatchEvent(new Event(chosen.type === "range" ? "input" : "change", { bubbles: true }));
  }
  if (place) reveal(place);
}

const isChanged = (chosen) => chosen.options
  ? chosen.selectedIndex !== Math.max(0, [...chosen.options].findIndex((one) => one.defaultSelected))
  : chosen.value !== chosen.dataset.first;

function writeAddress() {
  if (printing) return;
  const open = doors().filter((one) => one.open).map((one) => one.parentElement.id);
  const picks = [...document.querySelectorAll("[data-figure][data-choice]")].filter(isChanged)
    .map((one) => `${one.dataset.figure}:${one.dataset.choice}:${one.value}`);
  const place = location.hash.slice(1).split("&")[0];
  const parts = place && !place.includes("=") ? [place] : [];
  if (open.length) parts.push(`open=${open.join(",")}`);
  if (picks.length) parts.push(`pick=${picks.join(",")}`);
  const address = parts.length ? `#${parts.join("&")}` : location.pathname;
  try { history.replaceState(null, "", address); } catch { /* a page in a frame may have no history */ }
}

// what can be searched: sections, figures, tables of words, terms, tables, and every class
function searchable() {
  const found = [];
  const add = (text, id, kind) => { if (text && id) found.push({ text: text.trim(), id, kind }); };
  for (const door of document.querySelectorAll("main section[id]")) {
    const heading = door.querySelector("h2");
    if (heading) add(heading.textContent, door.id, "section");
    for (const words of (door.dataset.also || "").split("; ")) add(words, door.id, "section");
    for (const figure of door.querySelectorAll("figure.plot")) add(figure.querySelector("h3").textContent, figure.id, "figure");
    for (const one of door.querySelectorAll("table.grid caption")) add(one.textContent, door.id, "table");
    for (const one of door.querySelectorAll("details[data-table]")) add(one.dataset.table, door.id, "table");
  }
  for (const term of document.querySelectorAll("#words dt")) add(term.textContent, "words", "word");
  for (const sheet of document.querySelectorAll("script.sheet"))
    for (const label of JSON.parse(sheet.textContent).labels) add(label, "cells", "class");
  const seen = new Set();
  return found.filter((one) => {
    const key = `${one.kind} ${one.text}`;
    return seen.has(key) ? false : seen.add(key);
  });
}

function search(index, text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const hits = words.length ? index.filter((one) =>
    words.every((word) => one.text.toLowerCase().includes(word))).slice(0, 12) : [];
  const list = byId("found");
  list.replaceChildren(...hits.map((one) => {
    const item = document.createElement("li"), link = document.createElement("a"), kind = document.createElement("small");
    link.href = `#${one.id}`;
    link.textContent = one.text;
    link.addEventListener("click", () => reveal(one.id));
    kind.textContent = ` ${one.kind}`;
    item.append(link, kind);
    return item;
  }));
  if (words.length && !hits.length) {
    const none = document.createElement("li");
    none.textContent = "Nothing on this page is called so.";
    list.append(none);
  }
  list.hidden = !words.length;
}

function startDoors() {
  startTerms();
  startBoard();
  document.querySelector(".tools").hidden = false;
  const index = searchable(), field = byId("search"), every = byId("open-all");
  field.addEventListener("input", () => search(index, field.value));
  every.addEventListener("click", () => {
    const open = every.getAttribute("aria-pressed") !== "true";
    every.setAttribute("aria-pressed", String(open));
    every.textContent = open ? "Close everything" : "Open everything";
    for (const door of doors()) door.open = open;
  });
  for (const door of doors()) door.addEventListener("toggle", writeAddress);
  document.addEventListener("change", (event) => { if (event.target.dataset.figure) writeAddress(); });
  addEventListener("hashchange", readAddress);
  for (const link of document.querySelectorAll('a[href^="#"]'))
    link.addEventListener("click", () => {
      if (innerWidth < 1100) document.querySelector("nav details").open = false;
      reveal(decoded(link.hash.slice(1)));
    });
  readAddress();
}
