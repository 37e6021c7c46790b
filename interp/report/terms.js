"use strict";
// A term of the glossary is explained where a section first uses it: pointed at or focused, and behind its link.

// terms that mostly stand in their everyday sense
const EVERYDAY = new Set(["name", "hold", "table", "split", "run", "cell", "condition", "effect", "drawing", "artist",
  "level", "seed", "arm", "axes", "mask", "blind", "consistent", "cut", "head", "seen", "patch", "dose", "clean", "site"]);

function glossary() {
  const found = new Map();
  for (const entry of document.querySelectorAll("#words dl > div")) {
    const meaning = entry.querySelector("dd").textContent;
    for (const name of entry.querySelector("dt").textContent.split(",").map((one) => one.trim()))
      if (name && !EVERYDAY.has(name)) found.set(name.toLowerCase(), { meaning, id: entry.id });
  }
  return found;
}

function markTerms() {
  const known = glossary();
  if (!known.size) return;
  const names = [...known.keys()].sort((a, b) => b.length - a.length);
  const escaped = names.map((name) => name.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  const pattern = new RegExp(`(?<![\\w-])(${escaped.join("|")})(?=(?:s|es)?(?![\\w-]))`, "i");
  for (const section of document.querySelectorAll("main > section:not(#words, #provenance)")) {
    const seen = new Set();
    for (const prose of section.querySelectorAll("p, figcaption, .made dd")) {
      if (!prose.closest("summary")) markIn(prose, pattern, known, seen);
    }
  }
}

function markIn(prose, pattern, known, seen) {
  const walker = document.createTreeWalker(prose, NodeFilter.SHOW_TEXT);
  const texts = [];
  while (walker.nextNode()) if (!walker.currentNode.parentElement.closest("a, button, code")) texts.push(walker.currentNode);
  for (let text of texts) {
    for (let match = pattern.exec(text.data), from = 0; match; match = pattern.exec(text.data.slice(from))) {
      const at = from + match.index, name = match[1].toLowerCase();
      from = at + name.length;
      if (seen.has(name)) continue;
      seen.add(name);
      const word = text.splitText(at), rest = word.splitText(name.length), link = document.createElement("a");
      link.className = "term";
      link.href = `#${known.get(name).id}`;
      link.dataset.meaning = known.get(name).meaning;
      word.replaceWith(link);
      link.append(word);
      [text, from] = [rest, 0];
    }
  }
}

function placed(box, x, y) {
  box.hidden = false;
  box.style.left = `${Math.max(8, Math.min(x, scrollX + root.clientWidth - box.offsetWidth - 8))}px`;
  box.style.top = `${y}px`;
}

function startTerms() {
  markTerms();
  const tip = byId("tip");
  const show = ({ target }) => {
    if (!target.dataset || !target.dataset.meaning) return;
    tip.textContent = target.dataset.meaning;
    target.setAttribute("aria-describedby", "tip");
    const box = target.getBoundingClientRect();
    placed(tip, box.left + scrollX, box.bottom + scrollY + 6);
  };
  const hide = () => { tip.hidden = true; };
  for (const [on, off] of [["mouseover", "mouseout"], ["focusin", "focusout"]]) {
    document.addEventListener(on, show);
    document.addEventListener(off, hide);
  }
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
}
