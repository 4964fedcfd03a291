"""The picture for a README: the accuracy curve, and one failed and one successful rollout coloured by the teacher's gap.

One SVG without a script; its colours follow the reader's light or dark scheme. Lengths are in user units.
"""

import textwrap
from html import escape
from pathlib import Path
from typing import Any

from amrsd_jax.report import curves, rollouts, theme
from amrsd_jax.report.axes import number
from amrsd_jax.report.read import Run, read

WIDTH, CHART, MARGIN = 1000, (440, 372), 20
LEFT, CHARACTER, LINE = 510, 8.5, 25  # the strip's left edge, a character's width, a line's height
COLUMNS = int((WIDTH - MARGIN - LEFT) / CHARACTER)
LINES = 6  # of a longer rollout so many are shown, the first wrong step among them
STEPS = 12  # so many logged steps are searched, evenly spaced

STYLE = """
svg { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
.ground { fill: var(--card); }
.ink, .title, .code { fill: var(--ink); } .muted { fill: var(--muted); }
.title { font-size: 14px; font-weight: 600; }
.code { font: 14px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; white-space: pre; }
.blame-fill { fill: var(--blame-fill); } .credit-fill { fill: var(--credit-fill); }
.wrong { fill: none; stroke: var(--ink); stroke-width: 1.5; }
"""


def write_figure(workdir: Path | str, path: Path | str) -> Path:
    """Writes the figure of the run in `workdir` to `path` and returns `path`; raises as `write` does."""
    path = Path(path)
    path.write_text(render(read(workdir)), encoding="utf-8")
    return path


def render(run: Run) -> str:
    """The figure as SVG text."""
    left = [_text(MARGIN, 32, "Accuracy over training", "title")]
    drawn = curves.draw(curves.ACCURACY, run, size=CHART)
    if drawn:
        place = f'x="{MARGIN}" y="44" width="{CHART[0]}" height="{CHART[1]}"'
        left.append(drawn.replace("<svg ", f"<svg {place} ", 1))
    else:
        left.append(_text(MARGIN, 56, "The run recorded no accuracy.", "muted"))
    right, bottom = _strip(choose(run))
    height = max(CHART[1] + 44, bottom) + MARGIN
    style = theme.literal(theme.asset("chart.css") + STYLE)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" role="img" aria-label="Accuracy over training; two rollouts coloured by the gap">'
        f'<style>{style}</style><rect class="ground" width="{WIDTH}" height="{height}" rx="6"/>'
        f"{''.join(left)}{''.join(right)}</svg>\n"
    )


def choose(run: Run) -> list[dict[str, Any]]:
    """A failed and a correct rollout: the first of the first logged step that has both, not the prettiest.

    Both have a usable reflection, and the failed one's first wrong step is known. If no step has both, the
    first step with either of them is taken; the list is empty if there is none at all.
    """
    either: list[dict[str, Any]] = []
    for path in rollouts.spread(list(run.rollouts.values()), STEPS):
        tables, _ = rollouts.tables([path], [*rollouts.LIGHT, *rollouts.TOKENS])
        rows = [rollouts.for_heat_map(row) for table in tables for row in rollouts.sample_rows(table, 64)]
        rows = [row for row in rows if row["reflection_status"] == "ok" and row["gap"]]
        failed = [row for row in rows if not row["correct"] and row["first_error_start"] >= 0]
        pair = failed[:1] + [row for row in rows if row["correct"]][:1]
        if len(pair) == 2:
            return pair
        either = either or pair
    return either


def layout(texts: list[str]) -> list[tuple[int, int, int, str]]:
    """Places pieces of tokens on a grid: (token, line, column, text); a newline is shown as ↵ and breaks."""
    pieces, line, column = [], 0, 0
    for token, text in enumerate(texts):
        for i, part in enumerate(text.split("\n")):
            if i:
                pieces.append((token, line, column, "↵"))
                line, column = line + 1, 0
            if column and column + len(part) > COLUMNS - 1:
                line, column = line + 1, 0
            while part:
                pieces.append((token, line, column, part[: COLUMNS - 1]))
                column += len(part[: COLUMNS - 1])
                part = part[COLUMNS - 1 :]
                if part:
                    line, column = line + 1, 0
    return pieces


def window(row: dict[str, Any]) -> tuple[list[tuple[int, int, int, str]], str]:
    """The pieces of a rollout in the LINES lines to show, renumbered from 0, and in words which lines they are.

    A long rollout is shown from the line before its first wrong step, or from its beginning.
    """
    pieces = layout(row["tokens"])
    lines = pieces[-1][1] + 1
    if lines <= LINES:
        return pieces, ""
    wrong = next((line for token, line, _, _ in pieces if token == row["first_error_start"]), 0)
    first = min(max(wrong - 1, 0), lines - LINES)
    shown = [(t, line - first, c, text) for t, line, c, text in pieces if first <= line < first + LINES]
    return shown, f"lines {first + 1} to {first + LINES}, "


def _strip(rows: list[dict[str, Any]]) -> tuple[list[str], float]:
    """The right half as SVG parts, and where it ends."""
    if not rows:
        return [_text(LEFT, 32, "No logged rollout has a usable reflection.", "muted")], 0
    reach = max(abs(gap) for row in rows for gap in row["gap"] if gap is not None) or 1
    parts, y = [], 32.0
    for row in rows:
        kind = "Successful" if row["correct"] else "Failed"
        reward, advantage = number(row["reward"]), number(row["advantage"], digits=3)
        pieces, part = window(row)
        facts = f"{part}step {row['step']}, reward {reward}, advantage {advantage}"
        parts.append(_text(LEFT, y, f"{kind} rollout", "title"))
        parts.append(_text(WIDTH - MARGIN, y, facts, "muted", anchor="end"))
        y += 20
        parts.append(_text(LEFT, y, textwrap.shorten(row["question"], 76, placeholder=" …"), "muted"))
        y += 10
        tokens, y = _tokens(row, pieces, reach, y)
        parts += tokens
        reflection = f"{row['reflection_kind'].capitalize()}: {row['reflection']}"
        for line in textwrap.wrap(reflection, 76, max_lines=2, placeholder=" …"):
            y += 17
            parts.append(_text(LEFT, y, line, "muted"))
        y += 40
    y = max(y - 12, CHART[1] + 40)  # the legend stands on the chart's baseline
    for column, (name, label) in enumerate(
        (("blame-fill", f"l_T − l_S to −{reach:.1f}"), ("credit-fill", f"to +{reach:.1f} nats"))
    ):
        x = LEFT + 150 * column
        parts.append(f'<rect class="{name}" x="{x}" y="{y - 11}" width="14" height="14" rx="2"/>')
        parts.append(_text(x + 20, y, label, "ink"))
    parts.append(
        f'<rect class="wrong" x="{LEFT + 300}" y="{y - 11}" width="14" height="14" rx="2"/>'
        + _text(LEFT + 320, y, "true first wrong step", "ink")
    )
    return parts, y


def _tokens(row: dict[str, Any], pieces: list, reach: float, top: float) -> tuple[list[str], float]:
    """The pieces of one rollout below `top`: fills first, then outlines, then letters; and where they end."""
    fills, letters, wrong = [], [], {}
    for token, line, column, text in pieces:
        x, y, width = LEFT + column * CHARACTER, top + line * LINE, len(text) * CHARACTER
        gap = row["gap"][token]
        if gap:
            name = "blame-fill" if gap < 0 else "credit-fill"
            fills.append(
                f'<rect class="{name}" fill-opacity="{abs(gap) / reach:.3f}" x="{x:.1f}" y="{y:.1f}" '
                f'width="{width:.1f}" height="{LINE - 4}"/>'
            )
        if row["first_error_start"] <= token < row["first_error_end"]:
            start, end = wrong.get(y, (x, x))
            wrong[y] = (min(start, x), max(end, x + width))
        # textLength keeps letters over their fill whatever monospaced font the reader has.
        letters.append(
            f'<text class="code" x="{x:.1f}" y="{y + 15:.1f}" textLength="{width:.1f}" '
            f'lengthAdjust="spacingAndGlyphs" xml:space="preserve">{escape(text)}</text>'
        )
    outlines = [
        f'<rect class="wrong" x="{start - 1:.1f}" y="{y - 1:.1f}" width="{end - start + 2:.1f}" '
        f'height="{LINE - 2}" rx="2"/>'
        for y, (start, end) in wrong.items()
    ]
    return fills + outlines + letters, top + (pieces[-1][1] + 1) * LINE


def _text(x: float, y: float, text: str, style: str, anchor: str = "start") -> str:
    return f'<text class="{style}" x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'
