// Draws the token heat map of the report. Uses dom.js.

const PAGE = 8; // rollouts drawn at a time
const FOLD = 600; // tokens of a longer response are drawn when asked for
const LONG = 240; // characters of a question beyond which it folds
const MODES = {
  // A larger weight means more blame in a failed rollout and more credit in a correct one, so the hues are others.
  weight: { centre: 1, label: "token advantage / rollout advantage", fills: ["lighter", "heavier"] },
  gap: { centre: 0, label: "log p(teacher) \u2212 log p(student), nats", fills: ["blame", "credit"] },
  credit: { centre: 0, label: "token advantage", fills: ["blame", "credit"] },
};

// Returns a value of a token by name, null where it was not measured. The numbers of a row are unpacked at their first use.
function value(row, name, i) {
  if (name === "weight") return row.credit && row.advantage ? value(row, "credit", i) / row.advantage : null;
  if (!row[name]) return null;
  if (!row[name].numbers) {
    const [scale, packed] = row[name], bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
    row[name].numbers = Array.from({ length: bytes.length / 2 }, (_, k) => {
      const integer = ((bytes[2 * k] | (bytes[2 * k + 1] << 8)) << 16) >> 16;
      return integer === -32768 ? null : integer * scale;
    });
  }
  return row[name].numbers[i];
}

function drawTokens(row, colour, reach, end) {
  const { centre, fills } = MODES[colour], box = element("div", "tokens"), wrong = element("span", "wrong");
  wrong.title = "true first wrong step";
  row.tokens.slice(0, end).forEach((text, i) => {
    const token = tokenElement(text), v = value(row, colour, i);
    if (v != null) tint(token, (v - centre) / reach, fills);
    token.tabIndex = i ? -1 : 0; // one tab stop per rollout; arrow keys move from there
    token.row = row;
    token.index = i;
    const inside = i >= row.first_error_start && i < row.first_error_end;
    if (inside && !wrong.parentNode) box.append(wrong);
    (inside ? wrong : box).append(token);
  });
  return box;
}

// Returns a paragraph, or for a long text an element that folds all but its beginning.
function foldable(className, text) {
  if (text.length <= LONG) return element("p", className, text);
  const details = element("details", className, element("summary", "", text.slice(0, LONG / 2).trimEnd() + " \u2026"));
  details.append(text);
  return details;
}

function drawRow(row, colour, reach) {
  const verdict = row.correct ? "correct" : "failed", n = row.tokens.length;
  const facts = [
    ["reward", brief(row.reward)],
    ["advantage", brief(row.advantage)],
    ["verdict", row.verdict || NONE],
    ["gold answer", row.answer || NONE],
    ["finished by", row.finish_reason || NONE],
    ["reflection", (row.reflection_status || NONE).replaceAll("_", " ")],
    ["tokens", n.toLocaleString("en")],
  ];
  if (row.first_error_start >= 0) facts.push(["first wrong step", `tokens ${row.first_error_start} to ${row.first_error_end - 1}`]);
  if (row.data_set) facts.unshift(["data set", row.data_set]);
  const text = element("div", "", foldable("question", row.question), drawTokens(row, colour, reach, FOLD));
  if (n > FOLD) {
    const more = element("button", "more", `Show all ${n.toLocaleString("en")} tokens`);
    more.addEventListener("click", () => {
      text.querySelector(".tokens").replaceWith(drawTokens(row, colour, reach));
      more.remove();
    });
    text.append(more);
  }
  if (row.reflection) {
    const kind = (row.reflection_kind || "reflection").replaceAll("_", " ");
    const unusable = row.reflection_status === "ok" ? "" : ` (not used: ${row.reflection_status.replaceAll("_", " ")})`;
    text.append(element("p", "reflection", element("b", "", kind + unusable), row.reflection.trim()));
  }
  const heading = element("h4", "", element("b", verdict, verdict), `Row ${row.row}, group ${row.group}, problem ${row.problem_id}`);
  return element("article", "", heading, text, pairs(facts));
}

// Returns the first colouring: weights if they differ between tokens of a rollout, else gaps if there are any, else advantages.
function firstColour(rows) {
  const differs = (row) => {
    const weights = row.tokens.map((_, i) => value(row, "weight", i) ?? 1);
    return weights.some((weight) => Math.abs(weight - weights[0]) > 1e-3);
  };
  return rows.some(differs) ? "weight" : rows.some((row) => row.gap) ? "gap" : "credit";
}

function heatMap() {
  const { steps, reach } = JSON.parse(document.getElementById("samples").textContent);
  const form = document.getElementById("controls"), box = document.getElementById("rows");
  const counter = form.querySelector(".pager span");
  let first = 0; // index of the first rollout drawn
  steps.forEach(({ step, rows, of }, i) =>
    form.elements.step.append(new Option(rows.length < of ? `${step} \u00b7 ${rows.length} of ${of} rollouts` : `${step}`, i)));
  form.elements.colour.value = firstColour(steps[0].rows);

  function draw() {
    const { step, show, colour } = Object.fromEntries(new FormData(form));
    const mode = MODES[colour];
    const rows = steps[step].rows.filter((row) => show === "all" || row.correct === (show === "correct"));
    const last = Math.min(first + PAGE, rows.length);
    box.replaceChildren(...rows.slice(first, last).map((row) => drawRow(row, colour, reach[colour])));
    if (!rows.length) box.append(element("p", "missing", `No ${show} rollout was logged at this step.`));
    counter.textContent = rows.length ? `${first + 1}\u2013${last} of ${rows.length}` : "0";
    form.elements.previous.disabled = first === 0;
    form.elements.next.disabled = last === rows.length;
    const [low, high, label] = form.querySelectorAll("#scale span, #scale small");
    low.textContent = brief(mode.centre - reach[colour]);
    high.textContent = brief(mode.centre + reach[colour]);
    label.textContent = mode.label;
    form.querySelector("#scale i").style.background =
      `linear-gradient(90deg, var(--${mode.fills[0]}-fill), var(--card), var(--${mode.fills[1]}-fill))`;
    hideTip();
  }
  function turn(by) {
    first += by;
    draw();
    document.getElementById("tokens").scrollIntoView();
  }
  form.elements.previous.addEventListener("click", () => turn(-PAGE));
  form.elements.next.addEventListener("click", () => turn(PAGE));
  form.addEventListener("change", (event) => {
    if (event.target.name !== "colour") first = 0;
    draw();
  });
  form.addEventListener("submit", (event) => event.preventDefault());

  const tokenOf = (event) => event.target.closest(".token");
  function show(event) {
    const token = tokenOf(event);
    if (!token) return;
    const numbers = [["student log p", "student"], ["teacher log p", "teacher"], ["teacher gap", "gap"], ["weight", "weight"],
      ["token advantage", "credit"], ["student entropy", "entropy"]];
    showTip(token, JSON.stringify(token.row.tokens[token.index]),
      numbers.map(([label, name]) => [label, number(value(token.row, name, token.index))]));
  }
  for (const kind of ["pointerover", "focusin"]) box.addEventListener(kind, show);
  for (const kind of ["pointerout", "focusout"]) box.addEventListener(kind, hideTip);
  box.addEventListener("keydown", (event) => {
    const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key], token = tokenOf(event);
    if (!move || !token) return;
    const all = [...token.closest(".tokens").querySelectorAll(".token")];
    all[token.index + move]?.focus();
    event.preventDefault();
  });
  draw();
}

if (document.getElementById("samples")) heatMap();
