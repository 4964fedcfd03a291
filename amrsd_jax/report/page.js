"use strict";
// Draws the token heat map and shows numbers under the pointer. Texts come from a model: they are only ever
// set as text, never as markup.

const MINUS = "\u2212", NONE = "\u2013";
const tip = document.getElementById("tip");
const number = (v) => (v == null ? NONE : v.toFixed(3).replace("-", MINUS));
const brief = (v) => (v == null ? NONE : String(+v.toFixed(3)).replace("-", MINUS));

function element(name, className, ...children) {
  const node = document.createElement(name);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

function pairs(list) {
  const dl = element("dl");
  for (const [name, value] of list) dl.append(element("dt", "", name), element("dd", "", value));
  return dl;
}

function showTip(owner, heading, list, x, y) {
  tip.owner = owner;
  tip.replaceChildren(element("b", "", heading), pairs(list));
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = Math.max(4, Math.min(x + 14, innerWidth - width - 4)) + "px";
  tip.style.top = (y + 18 + height > innerHeight ? Math.max(4, y - height - 10) : y + 18) + "px";
}

const hideTip = () => { tip.hidden = true; };
document.addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });
document.addEventListener("scroll", () => {
  // Focus may have scrolled its token into view: the numbers move along.
  if (!tip.hidden && tip.owner === document.activeElement) tip.owner.showNumbers();
  else hideTip();
}, { passive: true });

// Charts: the values at the x nearest to the pointer.
for (const svg of document.querySelectorAll(".chart")) {
  const stops = JSON.parse(svg.dataset.hover), cross = svg.querySelector(".cross");
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) * svg.viewBox.baseVal.width / box.width;
    const stop = stops.reduce((best, s) => (Math.abs(s[0] - x) < Math.abs(best[0] - x) ? s : best));
    cross.setAttribute("x1", stop[0]);
    cross.setAttribute("x2", stop[0]);
    cross.style.visibility = "visible";
    showTip(svg, stop[1], stop[2], event.clientX, event.clientY);
  });
  svg.addEventListener("pointerleave", () => { cross.style.visibility = ""; hideTip(); });
}

// Token heat map.
const MODES = {
  credit: { value: (row, i) => at(row.credit, i), centre: 0, label: "token advantage", fills: ["blame", "credit"] },
  gap: { value: (row, i) => at(row.gap, i), centre: 0, label: "gap, nats", fills: ["blame", "credit"] },
  // A heavier token has more blame in a failed rollout and more credit in a correct one: other hues.
  weight: { value: weight, centre: 1, label: "weight", fills: ["lighter", "heavier"] },
};
const at = (list, i) => (list == null ? null : list[i]);

function weight(row, i) {
  const credit = at(row.credit, i);
  return credit == null || !row.advantage ? null : credit / row.advantage;
}

// Full colour stands for the largest distance from the centre among all samples, so that colours of two rows
// can be compared. Gaps have far outliers: theirs is the distance that 98 % of tokens keep within.
function reach(mode, samples) {
  const distances = [];
  for (const { rows } of samples)
    for (const row of rows)
      row.tokens.forEach((_, i) => {
        const value = mode.value(row, i);
        if (value != null) distances.push(Math.abs(value - mode.centre));
      });
  distances.sort((a, b) => a - b);
  const place = mode === MODES.gap ? Math.floor(0.98 * (distances.length - 1)) : distances.length - 1;
  return distances[place] || 1;
}

function drawTokens(row, mode) {
  const box = element("div", "tokens");
  const wrong = element("span", "wrong");
  wrong.title = "true first wrong step";
  row.tokens.forEach((text, i) => {
    const token = element("span", "token");
    // A line break is seen as a sign and also breaks the line.
    text.split("\n").forEach((part, k) => {
      if (k) token.append(element("i", "", "\u21b5"), "\n");
      token.append(part);
    });
    const value = mode.value(row, i);
    if (value != null) {
      const share = Math.min(1, Math.abs(value - mode.centre) / mode.reach);
      const fill = mode.fills[value < mode.centre ? 0 : 1];
      token.style.background = `color-mix(in srgb, var(--${fill}-fill) ${(100 * share).toFixed(1)}%, transparent)`;
    }
    token.tabIndex = i ? -1 : 0; // one tab stop a rollout; arrow keys go on from there
    token.setAttribute("aria-describedby", "tip");
    const show = token.showNumbers = () => {
      const { left, bottom } = token.getBoundingClientRect();
      showTip(token, JSON.stringify(text), [
        ["student log p", number(at(row.student, i))],
        ["teacher log p", number(at(row.teacher, i))],
        ["gap", number(at(row.gap, i))],
        ["weight", number(weight(row, i))],
        ["token advantage", number(at(row.credit, i))],
        ["entropy", number(at(row.entropy, i))],
      ], left - 14, bottom - 12);
    };
    token.addEventListener("pointerenter", show);
    token.addEventListener("pointerleave", hideTip);
    token.addEventListener("focus", show);
    token.addEventListener("blur", hideTip);
    const inside = i >= row.first_error_start && i < row.first_error_end;
    if (inside && !wrong.parentNode) box.append(wrong);
    (inside ? wrong : box).append(token);
  });
  box.addEventListener("keydown", (event) => {
    const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const all = [...box.querySelectorAll(".token")];
    const next = move && all[all.indexOf(document.activeElement) + move];
    if (next) { next.focus(); event.preventDefault(); }
  });
  return box;
}

function drawRow(row, mode) {
  const verdict = row.correct ? "correct" : "failed";
  const facts = [
    ["reward", brief(row.reward)],
    ["advantage", brief(row.advantage)],
    ["verdict", row.verdict || NONE],
    ["gold answer", row.answer || NONE],
    ["finished by", row.finish_reason || NONE],
    ["reflection", row.reflection_status.replaceAll("_", " ") || NONE],
    ["tokens", row.length > row.tokens.length ? `${row.length}, first ${row.tokens.length} shown` : `${row.length}`],
  ];
  const text = element("div", "", element("p", "question", row.question), drawTokens(row, mode));
  if (row.reflection)
    text.append(element("p", "reflection", element("b", "", row.reflection_kind || "reflection"), row.reflection));
  return element("article", "",
    element("h4", "", element("b", verdict, verdict), `Row ${row.row}, problem ${row.problem_id}`),
    text, pairs(facts));
}

function heatMap() {
  const samples = JSON.parse(document.getElementById("samples").textContent);
  const form = document.getElementById("controls"), rows = document.getElementById("rows");
  for (const mode of Object.values(MODES)) mode.reach = reach(mode, samples);
  samples.forEach(({ step, rows, of }, i) =>
    form.elements.step.append(new Option(`${step} \u00b7 ${rows.length} of ${of} rollouts`, i)));
  // Begin where the method acted: at the last sampled step with a usable reflection.
  const acted = samples.findLastIndex(({ rows }) => rows.some((row) => row.reflection_status === "ok"));
  form.elements.step.value = acted < 0 ? samples.length - 1 : acted;

  function draw() {
    const { step, show, colour } = Object.fromEntries(new FormData(form));
    const mode = MODES[colour], sample = samples[step];
    const shown = sample.rows.filter((row) => show === "all" || row.correct === (show === "correct"));
    rows.replaceChildren(...shown.map((row) => drawRow(row, mode)));
    if (!shown.length) rows.append(element("p", "missing", `No ${show} rollout among the samples of step ${sample.step}.`));
    const [low, high, label] = document.querySelectorAll("#scale span, #scale small");
    low.textContent = number(mode.centre - mode.reach);
    high.textContent = number(mode.centre + mode.reach);
    label.textContent = mode.label;
    document.querySelector("#scale i").style.background =
      `linear-gradient(90deg, var(--${mode.fills[0]}-fill), var(--card), var(--${mode.fills[1]}-fill))`;
    hideTip();
  }
  form.addEventListener("change", draw);
  form.addEventListener("submit", (event) => event.preventDefault());
  draw();
}

if (document.getElementById("samples")) heatMap();
