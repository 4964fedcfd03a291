"use strict";
// Shared by the pages: charts, elements, numbers, tokens, and the tooltip of a token.
// Texts come from a model: they are only ever set as text, never as markup.

for (const box of document.querySelectorAll(".chart")) {
  const specification = JSON.parse(box.querySelector("script").textContent);
  // `ast` makes Vega interpret expressions: compiling them would need 'unsafe-eval' in the page's policy.
  vegaEmbed(box, specification, { ast: true, actions: false, logLevel: 1, renderer: "svg", tooltip: { theme: "custom" } });
}

const MINUS = "\u2212", NONE = "\u2013";
const tip = document.getElementById("tip");
const number = (v) => (v == null ? NONE : (Math.abs(v) < 5e-4 ? 0 : v).toFixed(3).replace("-", MINUS));
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

// Returns a token's element. A line break is shown as a sign and also breaks the line.
function tokenElement(text) {
  const token = element("span", "token");
  text.split("\n").forEach((part, k) => {
    if (k) token.append(element("i", "", "\u21b5"), "\n");
    token.append(part);
  });
  return token;
}

// Colours a token: `share` in [-1, 1] of the full colours, named for values below and above the centre.
function tint(token, share, [below, above]) {
  const part = (100 * Math.min(1, Math.abs(share))).toFixed(1);
  token.style.background = `color-mix(in srgb, var(--${share < 0 ? below : above}-fill) ${part}%, transparent)`;
}

function showTip(owner, heading, list) {
  const { left, bottom, top } = owner.getBoundingClientRect();
  tip.replaceChildren(element("b", "", heading), pairs(list));
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = Math.max(4, Math.min(left, innerWidth - width - 20)) + "px";
  tip.style.top = scrollY + (bottom + 6 + height > innerHeight ? top - height - 6 : bottom + 6) + "px";
}

const hideTip = () => { tip.hidden = true; };
document.addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });
