"""The page: methods side by side on the same tokens, in the look of the report, one HTML text with everything inside.

As in the report, texts of a run are not trusted: Jinja escapes, tokens travel as JSON in which no tag can end, the script
only sets text, and the page's policy lets no other script run and nothing be loaded.
"""

import base64
import hashlib
from collections.abc import Sequence
from typing import Any

import jinja2
import numpy as np
from jaxtyping import Float
from markupsafe import Markup

from amrsd_jax.compare import measures
from amrsd_jax.compare.apply import Applied
from amrsd_jax.policy.tokenizer import token_texts
from amrsd_jax.records import Rollouts
from amrsd_jax.report import svg, theme
from amrsd_jax.report.axes import number, share
from amrsd_jax.report.page import duration, json_in_html
from amrsd_jax.report.rollouts import TOKENS_SHOWN

FAILED, CORRECT = 16, 8  # rollouts shown: most of what methods disagree on is in failures
FULL_COLOUR = 0.98  # share of the values that are not 0 which keep within the full colour


def render(rollouts: Rollouts, applied: Sequence[Applied], values: dict[str, Any]) -> str:
    """The whole page, as HTML.

    Args:
      rollouts, applied: what was compared.
      values: what `compare.json` holds.
    """
    script = theme.asset("dom.js") + theme.asset("compare.js", __package__)
    style = theme.asset("chart.css") + theme.asset("page.css") + theme.asset("compare.css", __package__)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    methods = values["methods"]
    return environment.from_string(theme.asset("compare.html.j2", __package__)).render(
        policy_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=Markup(theme.variables() + style),
        script=Markup(script),
        about=values["rollouts"],
        notes=values["notes"],
        tiles=tiles(values),
        tokens=Markup(json_in_html(token_data(rollouts, applied))),
        methods=methods,
        finds=[(name, m["first_error"]["token"]) for name, m in methods.items() if m["first_error"]],
        matrices=matrices(values["pairs"]),
        gap_charts=gap_charts(applied, methods),
        statuses=sorted({status for m in methods.values() for status in m["ledger"]["status"]}),
        number=lambda value, digits=3: number(value, digits=digits),
        share=lambda value: "–" if value is None else share(value),
        duration=duration,
    )


def tiles(values: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(label, value, detail) of the headline."""
    about, parameters = values["rollouts"], values["parameters"]
    behind = about["step"] - parameters["checkpoint"]
    return [
        ("Methods", f"{len(values['methods'])}", f"compared in {duration(values['seconds'])}"),
        ("Rollouts", f"{about['rows']:,}", f"{about['failed']:,} failed, {about['tokens']:,} tokens; {about['file']}"),
        (
            "Policy",
            f"step {parameters['checkpoint']}",
            f"{behind} steps before the rollouts; " * (behind > 0)
            + f"{number(parameters['recorded_gap'], digits=2)} nats a token from the recorded log-probabilities",
        ),
    ]


# ---------------------------------------------------------------- tokens


def representative(rollouts: Rollouts, applied: Sequence[Applied]) -> list[int]:
    """Rows to look at: failures first, those with a known first error before others, then successes.

    Of equals, rows that more methods gave credit of their own come first. Nothing else about a row decides.
    """
    acted = sum((measures.added(one.credit, rollouts) != 0).any(axis=1).astype(int) for one in applied)
    unknown = rollouts.first_error[:, 0] < 0
    order = sorted(range(len(rollouts.text)), key=lambda i: (unknown[i], -acted[i], i))
    correct = [verdict.correct for verdict in rollouts.verdicts]
    failed, passed = ([i for i in order if correct[i] is wanted] for wanted in (False, True))
    return failed[:FAILED] + sorted(passed, key=lambda i: (-acted[i], i))[:CORRECT]


def token_data(rollouts: Rollouts, applied: Sequence[Applied]) -> dict[str, Any]:
    """What the page's script draws. Rows longer than TOKENS_SHOWN tokens are cut there.

    `reach` is, per method, the value that has the full colour: credit in each method's own, gaps in common.
    """
    parts = [(one, measures.added(one.credit, rollouts), one.scores.logp_teacher - one.scores.logp_student)
             for one in applied]  # fmt: skip
    gap_reach = _reach(np.concatenate([gap.ravel() for _, _, gap in parts]))
    rows = []
    for i in representative(rollouts, applied):
        length = int(rollouts.mask[i].sum())
        shown, problem = min(length, TOKENS_SHOWN), rollouts.problems[i]
        panels = [
            {
                "kind": one.contexts.kind[i],
                "status": one.contexts.status[i],
                "text": one.contexts.text[i],
                "credit": _brief(one.credit.token_advantage[i, :shown]),
                "added": _brief(added[i, :shown]),
                "gap": _brief(gap[i, :shown]) if one.scores.scored[i] else None,
            }
            for one, added, gap in parts
        ]
        rows.append(
            {
                "row": i, "problem": problem.id, "question": problem.question, "answer": problem.answer,
                "correct": rollouts.verdicts[i].correct, "verdict": rollouts.verdicts[i].message,
                "finished": rollouts.finish_reason[i], "advantage": _brief(applied[0].credit.advantage[i : i + 1])[0],
                "length": length, "wrong": rollouts.first_error[i].tolist(),
                "tokens": token_texts(applied[0].run.tokenizer, rollouts.response[i, :shown].tolist()),
                "panels": panels,
            }
        )  # fmt: skip
    methods = [
        {
            "name": one.name,
            "about": f"{one.run.config.credit.context}, {one.run.config.teacher.kind} teacher"
            if one.run.config.credit.context != "none"
            else "reads no teacher",
            "reach": {"credit": _reach(one.credit.token_advantage), "added": _reach(added), "gap": gap_reach},
        }
        for one, added, _ in parts
    ]
    return {"methods": methods, "rows": rows}


def _reach(values: np.ndarray) -> float:
    sizes = np.abs(values[values != 0])
    return float(f"{np.quantile(sizes, FULL_COLOUR):.4g}") if len(sizes) else 1.0


def _brief(values: Float[np.ndarray, " n"]) -> list[float | None]:
    return [float(f"{value:.4g}") if np.isfinite(value) else None for value in values.tolist()]


# ---------------------------------------------------------------- pictures and tables


def gap_charts(applied: Sequence[Applied], methods: dict[str, Any]) -> list[dict[str, Any]]:
    """Along the response: median gap and the band of the middle 90 %, once per source of contexts and kind of teacher.

    Methods of the same source and teacher differ only in which rows they need; the one with the most rows is drawn.
    """
    ranked = sorted(applied, key=lambda one: -len(one.contexts.rows))
    widest = {(one.run.config.credit.context, one.run.config.teacher.kind): one for one in reversed(ranked)}
    charts = []
    for (source, kind), one in widest.items():
        if not len(one.contexts.rows):
            continue
        gap, series = methods[one.name]["gap"], []
        centres = ((np.arange(measures.POSITIONS) + 0.5) / measures.POSITIONS).tolist()
        for name, colour in (("correct", "credit"), ("failed", "blame")):
            low, _, middle, _, high = zip(*(q or [None] * 5 for q in gap[name]["by_position"]), strict=True)
            if any(value is not None for value in middle):
                series.append(svg.Series(name, centres, middle, low, high, colour))
        drawn = svg.chart(
            series, title=f"Gap of {source}, {kind}", x_label="share of the response passed",
            y_label="gap, nats", x_percent=True,
        )  # fmt: skip
        title = f"{source.replace('_', ' ')}, {kind} teacher"
        charts.append({"title": title, "rows": len(one.contexts.rows), "svg": Markup(drawn)})
    return charts


def matrices(pairs: dict[str, Any]) -> list[dict[str, Any]]:
    """The pairwise tables, each cell with its colour: full at 1, none at `zero`."""
    tables = [
        ("Policy gradients: cosine", pairs["gradient_cosine"], 0.0, 3),
        ("Added to the row's advantage: rank correlation", pairs["rank_correlation"]["added"], 0.0, 2),
        ("Added to the row's advantage: same sign, where both add", pairs["sign_agreement"]["added"], 0.5, 2),
        ("Added to the row's advantage: both add, where one does", pairs["overlap"]["added"], 0.0, 2),
        ("Raw credit: rank correlation", pairs["rank_correlation"]["credit"], 0.0, 2),
        ("Raw credit: same sign, where both give any", pairs["sign_agreement"]["credit"], 0.5, 2),
    ]
    return [
        {
            "title": title,
            "rows": [(name, [_cell(value, zero, digits) for value in row])
                     for name, row in zip(pairs["methods"], rows, strict=True)],
        }
        for title, rows, zero, digits in tables
    ]  # fmt: skip


def _cell(value: float | None, zero: float, digits: int) -> tuple[str, str]:
    """(text, style) of a value: blue above zero, orange below."""
    if value is None:
        return "–", ""
    strength = (value - zero) / (1 - zero)
    fill = "credit" if strength >= 0 else "blame"
    part = round(90 * min(1, abs(strength)))
    text = f"{value:.{digits}f}".replace("-", "−")
    return text, f"background:color-mix(in srgb,var(--{fill}-fill) {part}%,transparent)"
