"""Draws the figure for a README: accuracy over training, and a failed and a correct rollout coloured by the teacher's gap.

It is one SVG without a script, in the reader's light or dark scheme. Vega-Lite does not lay out text, so the tokens are placed
here, on a grid of monospaced characters. Lengths are in the SVG's user units.
"""

import re
import textwrap
from html import escape
from pathlib import Path
from typing import Any

from amrsd_jax.files import atomic_write
from amrsd_jax.report import charts, curves
from amrsd_jax.report.charts import SANS, SERIF, colour, number
from amrsd_jax.report.read import RunFiles, read
from amrsd_jax.report.signal import CORRECT
from amrsd_jax.report.tokens import spread
from amrsd_jax.runtime.rollouts import read_rollouts

WIDTH, HEIGHT, MARGIN = 1000, 440, 20
LEFT, CHARACTER, LINE = 510, 8.5, 25  # the tokens' left edge, a character's width, a line's height
COLUMNS = int((WIDTH - MARGIN - LEFT) / CHARACTER)
LINES = 6  # most lines shown of a rollout
_NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
STEPS = 12  # logged steps that are searched for rollouts, evenly spaced


def write_figure(workdir: Path | str, path: Path | str) -> Path:
    """Writes the figure of the run in `workdir` to `path`, and returns `path`; raises as `write` does."""
    atomic_write(Path(path), render(read(workdir)))
    return Path(path)


def render(run: RunFiles) -> str:
    """Returns the figure as SVG text; the same run gives the same text."""
    right, bottom = _rollouts(choose(run))
    height = max(HEIGHT, round(bottom) + MARGIN)
    drawn = curves.draw(
        curves.ACCURACY, run, title="Accuracy over training", width=400, height=height - 132, static=True
    )
    if drawn:
        left = re.sub(r"<style>.*?</style>", "", charts.svg(drawn), flags=re.S)  # the figure has the same style
        left = left.replace("<svg ", '<svg x="12" y="8" ', 1)
    else:
        left = _text(MARGIN, 32, "The run recorded no accuracy.", muted=True)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" font-family="{escape(SANS)}" font-size="12" role="img" '
        f'aria-label="Accuracy over training; two rollouts coloured by the teacher\'s gap"><style>{charts.css()}</style>'
        f'<rect fill="{colour("card")}" width="{WIDTH}" height="{height}" rx="6"/>{left}{"".join(right)}</svg>\n'
    )


def choose(run: RunFiles) -> list[dict[str, Any]]:
    """Returns a failed and a correct rollout, the first ones of the first logged step that has both.

    Both have a usable reflection and a gap, and the failed one's first wrong step is known. If no step has both, one rollout of
    the first step with either is returned, or none.
    """
    either: list[dict[str, Any]] = []
    for path in spread(list(run.rollouts.values()), STEPS):
        rows = [row for row in read_rollouts(path).to_pylist() if row["reflection_status"] == "ok" and row["gap"]]
        failed = [row for row in rows if row["reward"] < CORRECT and row["first_error_start"] >= 0]
        pair = failed[:1] + [row for row in rows if row["reward"] >= CORRECT][:1]
        if len(pair) == 2:
            return pair
        either = either or pair
    return either


def layout(texts: list[str]) -> list[tuple[int, int, int, str]]:
    """Places pieces of tokens on a grid: (token, line, column, text); a newline is shown as ↵ and breaks the line."""
    pieces, line, column = [], 0, 0
    for token, text in enumerate(texts):
        for part in re.findall(rf"\n|[^\n]{{1,{COLUMNS - 1}}}", text):
            if column and part != "\n" and column + len(part) > COLUMNS - 1:
                line, column = line + 1, 0
            pieces.append((token, line, column, part.replace("\n", "↵")))
            line, column = (line + 1, 0) if part == "\n" else (line, column + len(part))
    return pieces


def window(row: dict[str, Any]) -> tuple[list[tuple[int, int, int, str]], str]:
    """Returns the pieces of a rollout in the LINES lines to show, renumbered from 0, and a text that names these lines.

    A long rollout is shown from the line before its first wrong step, or from its beginning.
    """
    pieces = layout(row["token_text"])
    lines = pieces[-1][1] + 1
    if lines <= LINES:
        return pieces, ""
    wrong = next((line for token, line, _, _ in pieces if token == row["first_error_start"]), 0)
    first = min(max(wrong - 1, 0), lines - LINES)
    shown = [(t, line - first, c, text) for t, line, c, text in pieces if first <= line < first + LINES]
    return shown, f"lines {first + 1} to {first + LINES}, "


def _rollouts(rows: list[dict[str, Any]]) -> tuple[list[str], float]:
    """Returns the right half as SVG parts, and where it ends."""
    if not rows:
        return [_text(LEFT, 32, "No logged rollout has a usable reflection.", muted=True)], 0
    reach = max(abs(gap) for row in rows for gap in row["gap"] if gap is not None) or 1
    parts, y = [], 32.0
    for row in rows:
        kind = "Correct rollout" if row["reward"] >= CORRECT else "Failed rollout"
        pieces, lines = window(row)
        facts = (
            f"{lines}step {row['step']}, reward {number(row['reward'])}, advantage {number(row['advantage'], digits=3)}"
        )
        parts += [_text(LEFT, y, kind, title=True), _text(WIDTH - MARGIN, y, facts, muted=True, anchor="end")]
        parts.append(_text(LEFT, y + 20, textwrap.shorten(row["question"], 76, placeholder=" …"), muted=True))
        tokens, y = _tokens(row, pieces, reach, y + 30)
        parts += tokens
        for line in textwrap.wrap(
            f"{row['reflection_kind'].capitalize()}: {row['reflection']}", 76, max_lines=2, placeholder=" …"
        ):
            y += 17
            parts.append(_text(LEFT, y, line, muted=True))
        y += 40
    y = max(y - 12, HEIGHT - MARGIN - 6)
    legend = [
        (0, _fill(-1), f"gap to −{reach:.1f}"),
        (130, _fill(1), f"to +{reach:.1f} nats"),
        (260, WRONG, "true first wrong step"),
    ]
    for x, style, label in legend:
        parts.append(f'<rect {style} x="{LEFT + x}" y="{y - 11}" width="14" height="14" rx="2"/>')
        parts.append(_text(LEFT + x + 20, y, label))
    return parts, y


WRONG = f'fill="none" stroke="{colour("ink")}" stroke-width="1.5"'


def _fill(depth: float) -> str:
    return f'fill="{colour("blame-fill" if depth < 0 else "credit-fill")}" fill-opacity="{abs(depth):.3f}"'


def _tokens(row: dict[str, Any], pieces: list, reach: float, top: float) -> tuple[list[str], float]:
    """Returns the pieces of one rollout below `top`: fills first, then outlines, then letters; and where they end."""
    fills, letters, wrong = [], [], {}
    for token, line, column, text in pieces:
        x, y, width = LEFT + column * CHARACTER, top + line * LINE, len(text) * CHARACTER
        if gap := row["gap"][token]:
            fills.append(
                f'<rect {_fill(gap / reach)} x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{LINE - 4}"/>'
            )
        if row["first_error_start"] <= token < row["first_error_end"]:
            start, end = wrong.get(y, (x, x))
            wrong[y] = (min(start, x), max(end, x + width))
        # textLength keeps letters over their fill whatever monospaced font the reader has.
        letters.append(
            f'<text x="{x:.1f}" y="{y + 15:.1f}" textLength="{width:.1f}" lengthAdjust="spacingAndGlyphs" xml:space="preserve" '
            f'font-family="ui-monospace, Menlo, Consolas, monospace" font-size="14" fill="{colour("ink")}">'
            f"{_escaped(text)}</text>"
        )
    outlines = [
        f'<rect {WRONG} x="{start - 1:.1f}" y="{y - 1:.1f}" width="{end - start + 2:.1f}" height="{LINE - 2}" rx="2"/>'
        for y, (start, end) in wrong.items()
    ]
    return fills + outlines + letters, top + (pieces[-1][1] + 1) * LINE


def _escaped(text: str) -> str:
    """Returns a text as XML, which has no control characters."""
    return escape(_NOT_IN_XML.sub("\ufffd", text))


def _text(x: float, y: float, text: str, *, muted: bool = False, title: bool = False, anchor: str = "start") -> str:
    style = f'font-family="{escape(SERIF)}" font-size="14" font-weight="600" ' if title else ""
    fill = colour("muted" if muted else "ink")
    return f'<text {style}fill="{fill}" x="{x}" y="{y}" text-anchor="{anchor}">{_escaped(text)}</text>'
