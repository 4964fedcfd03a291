"use strict";
// Draws the token heat map of the report; `dom.js` stands before it.

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
    const token = tokenElement(text);
    const value = mode.value(row, i);
    if (value != null) tint(token, (value - mode.centre) / mode.reach, mode.fills);
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
