"use strict";
// Draws one rollout under every method; a token that is pointed at is marked in all of them. Uses dom.js.

const data = JSON.parse(document.getElementById("data").textContent);
const form = document.getElementById("controls"), facts = document.getElementById("facts"), panels = document.getElementById("panels");
const FILLS = ["blame", "credit"];
const words = (name) => name.replaceAll("_", " ");

function drawPanel(row, method, panel, colour) {
  const values = { ...panel, credit: panel.added.map((v) => (v == null ? null : panel.advantage + v)) };
  const numbers = (i) => `gap ${number(panel.gap?.[i])} \u00b7 credit ${number(values.credit[i])} \u00b7 added ${number(panel.added[i])}`;
  const box = element("div", "tokens"), wrong = element("span", "wrong"), output = element("output", "");
  wrong.title = "true first wrong step";
  output.ariaLive = "off"; // a screen reader would read one token for every method; aria-description has its numbers
  row.tokens.forEach((text, i) => {
    const token = tokenElement(text), value = values[colour]?.[i];
    if (value != null) tint(token, value / method.reach[colour], FILLS);
    token.tabIndex = i ? -1 : 0; // one tab stop per method; arrow keys move from there
    token.dataset.place = i;
    token.setAttribute("aria-description", numbers(i));
    const inside = i >= row.wrong[0] && i < row.wrong[1];
    if (inside && !wrong.parentNode) box.append(wrong);
    (inside ? wrong : box).append(token);
  });
  const reach = brief(method.reach[colour]);
  const scale = element("span", "scale", MINUS + reach, element("i"), "+" + reach);
  scale.title = "values of the full colours";
  const heading = element("h3", "", method.name, element("small", "", method.about), scale);
  const state = panel.status === "not_needed" ? "no context needed" : `no context: ${words(panel.status)}`;
  const unusable = panel.status === "ok" ? "" : ` (not used: ${words(panel.status)})`;
  const context = panel.text ? element("p", "reflection", element("b", "", words(panel.kind) + unusable), panel.text)
    : element("p", "missing", state);
  const node = element("section", "panel", heading, output, box, context);
  node.setAttribute("aria-label", method.name);
  node.show = (i) => { output.textContent = i == null ? "" : numbers(i); };
  return node;
}

// Marks the token at a place in every panel; null removes the marks.
function mark(place) {
  for (const token of panels.querySelectorAll(".same")) token.classList.remove("same");
  for (const panel of panels.children) {
    panel.show(place);
    if (place != null) panel.querySelector(`[data-place="${place}"]`).classList.add("same");
  }
}

const placeOf = (event) => { const token = event.target.closest(".token"); return token && +token.dataset.place; };
panels.addEventListener("pointerover", (event) => { if (placeOf(event) != null) mark(placeOf(event)); });
panels.addEventListener("pointerleave", () => {
  const focused = document.activeElement.closest("#panels .token");
  mark(focused ? +focused.dataset.place : null);
});
panels.addEventListener("focusin", (event) => { if (placeOf(event) != null) mark(placeOf(event)); });
panels.addEventListener("focusout", () => mark(null));
panels.addEventListener("keydown", (event) => {
  const place = placeOf(event), all = [...panels.children], here = all.indexOf(event.target.closest(".panel"));
  if (place == null) return;
  if (event.key === "Escape") return mark(null);
  const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
  const next = step && all[here + step[0]]?.querySelector(`[data-place="${place + step[1]}"]`);
  if (next) { next.focus(); event.preventDefault(); }
});

function draw() {
  const { row: index, colour } = Object.fromEntries(new FormData(form)), row = data.rows[index];
  const verdict = row.correct ? "correct" : "failed";
  facts.replaceChildren(
    element("p", "question", row.question),
    pairs([
      ["verdict", element("span", verdict, row.verdict || verdict)],
      ["gold answer", row.answer],
      ["row's advantage", brief(row.advantage)],
      ["finished by", row.finished],
      ["tokens", row.length > row.tokens.length ? `${row.length}, first ${row.tokens.length} shown` : `${row.length}`],
    ]));
  panels.replaceChildren(...data.methods.map((method, k) => drawPanel(row, method, row.panels[k], colour)));
}

data.rows.forEach((row, i) => {
  const question = row.question.length > 50 ? row.question.slice(0, 49) + "\u2026" : row.question;
  form.elements.row.append(new Option(`${row.correct ? "correct" : "failed"} \u00b7 row ${row.row} \u00b7 ${question}`, i));
});
form.addEventListener("change", draw);
form.addEventListener("submit", (event) => event.preventDefault());
draw();
