"use strict";
// What the pages share: making elements, numbers as people write them, tokens, the numbers under the pointer of a chart.
// Texts come from a model: they are only ever set as text, never as markup.

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

// A token's text. A line break is seen as a sign and also breaks the line.
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
